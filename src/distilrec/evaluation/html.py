"""The report as one self-contained page: no script, no network, readable in light and dark, fit to print."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import Any

from distilrec.evaluation import charts, words
from distilrec.evaluation.page_style import STYLE
from distilrec.evaluation.terminal import table_metrics
from distilrec.files import atomic_file

__all__ = ["render_html", "write_html"]

_TONES = {"Distill": "good", "Do not distill": "bad"}
_ROLES = {
    "teacher": "teacher", "student": "distilled student", "control": "same student, no teacher",
    "baseline": "baseline", "fusion": "fusion", "compressed": "compressed",
}


def write_html(report: Mapping[str, Any], path: str | Path) -> Path:
    """Write the page of `report` atomically. Raises MissingExtraError without altair or vl-convert."""
    page = render_html(report)
    with atomic_file(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return Path(path)


def render_html(report: Mapping[str, Any]) -> str:
    """The page as text. Every string that came from a user is escaped, and the page forbids itself all loading."""
    data, seeds = report["dataset"], len(report["protocol"]["seeds"])
    title = f"{data['name']}: {words.headline(report).lower()}"
    body = [
        f"<h1>{escape(data['name'])}</h1>",
        f'<p class="soft">{data["users"]:,} users · {data["items"]:,} items · {data["interactions"]:,} interactions · '
        f'{seeds} seed{"" if seeds == 1 else "s"} · main metric {_metric(report["metric"])} on the test part</p>',
        _verdict(report),
        _tiles(report),
        _results(report),
        _cost(report),
        _section("Popular and rare items", "The main metric, counted only on targets of each group. The tail are the "
                 "least popular items that hold the last 20% of the training interactions.",
                 _figure(charts.group_chart(report))),
        _section("Differences", "Each pair of models on the same users: relative difference of the main metric with "
                 "its 95% interval. Left of the solid line the first model is worse; the dashed line is the +1% from "
                 f"which a teacher is worth it. Pairs more than {charts.FAR:.0%} apart are only in the table below.",
                 _figure(charts.comparison_chart(report)), _comparisons(report)),
        _section("Learning curves", "Quality on the validation part while training; one line a seed.",
                 _figure(charts.curve_chart(report))),
        _section("How it was measured", "", _protocol(report)),
        _section("Where it comes from", "", _lineage(report)),
        "<footer>Made by distilrec. The same numbers, for machines, are in report.json.</footer>",
    ]
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; style-src \'unsafe-inline\'">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head>\n<body><main>\n"
        + "\n".join(part for part in body if part) + "\n</main></body></html>\n"
    )


def _verdict(report: Mapping[str, Any]) -> str:
    title = words.headline(report)
    text = "".join(f"<p>{escape(sentence)}</p>" for sentence in words.verdict_sentences(report))
    return f'<section class="verdict {_TONES.get(title, "open")}"><h2>{title}</h2>{text}</section>'


def _tiles(report: Mapping[str, Any]) -> str:
    student, metric = words.main_student(report), report["metric"]
    if student is None:
        return ""
    teacher = next(iter(words.of_role(report, "teacher")), None)
    tiles: list[tuple[str, str]] = []
    control = student.get("control")
    found = words.comparison_of(report, student["name"], control, metric) if control else None
    if found and found["relative"] is not None:
        tiles.append((words.human_percent(found["relative"]), f"{words.human_metric(metric)} against the control"))
    own, best = words.mean_of(student, metric), words.mean_of(teacher, metric) if teacher else None
    if own is not None and best:
        tiles.append((f"{own / best:.0%}", "of the teacher's quality kept"))
    if student.get("compression_ratio"):
        tiles.append((f"{student['compression_ratio']:,.1f}×", "fewer parameters than the teacher"))
    if student["latency_ms"]:
        tiles.append((words.human_ms(student["latency_ms"]["p50"]), "a request, median, one core"))
    boxes = (f'<div class="tile"><b>{escape(value)}</b><span>{escape(text)}</span></div>' for value, text in tiles)
    return f'<div class="tiles">{"".join(boxes)}</div>'


def _results(report: Mapping[str, Any]) -> str:
    metrics = table_metrics(report)
    header = ["model", *map(_metric, metrics), "parameters", "size", "latency", "trained in", "gap closed"]
    rows = []
    for model in report["models"]:
        gap = model["gap_closed"]
        rows.append((model["role"], [
            f'<span class="dot" style="background:var(--{model["role"]})"></span>{escape(model["name"])}'
            f'<br><small>{_ROLES[model["role"]]}{f": {verdict}" if (verdict := model["verdict"]) else ""}</small>',
            *(_stats(model["metrics"]["test"].get(metric)) for metric in metrics),
            words.human_count(model["parameters"]), words.human_bytes(model["bytes"]),
            _latency(model["latency_ms"]),
            words.human_seconds(model["train_seconds"]),
            "–" if gap is None else f"{gap:.0%}",
        ]))
    every = sorted({name for model in report["models"] for name in model["metrics"]["test"]})
    more = [(model["role"], [escape(model["name"]), *(_stats(model["metrics"]["test"].get(name)) for name in every)])
            for model in report["models"]]
    return _section(
        "Results", "Means over the test users and seeds; beneath them the standard deviation over seeds. Gap closed: "
        "the share of the way from control to teacher that the student went. Latency: one request on one core, median.",
        _table(header, rows),
        f"<details><summary>All metrics</summary>{_table(['model', *map(_metric, every)], more)}</details>",
    )


def _cost(report: Mapping[str, Any]) -> str:
    pictures = [_figure(charts.cost_chart(report, cost)) for cost in ("parameters", "latency")]
    if not any(pictures):
        return ""
    return _section("Quality against cost", "Up and to the left is better. Costs on a log scale.",
                    f'<div class="charts">{"".join(pictures)}</div>')


def _comparisons(report: Mapping[str, Any]) -> str:
    rows = []
    for c in report["comparisons"]:
        span = c.get("relative_interval") or (None, None)
        rows.append(("", [
            f"{escape(c['a'])} − {escape(c['b'])}", _metric(c["metric"]), words.human_signed(c["difference"]),
            " to ".join(map(words.human_signed, c["interval"])), words.human_percent(c.get("relative")),
            "–" if span[0] is None else f"{words.human_percent(span[0])} to {words.human_percent(span[1])}",
            words.human_p(c["p_value"]).removeprefix("=\u00a0"), f"{c['n']:,}",
        ]))
    if not rows:
        return ""
    header = ["pair", "metric", "difference", "95% interval", "relative", "95% interval", "p", "users"]
    note = (f'<p class="soft">Test: {escape(report["comparisons"][0]["test"])}. The verdict rests on the main metric '
            "alone; the others are there to look at, and are not corrected for being many.</p>")
    return f"<details><summary>All comparisons as numbers</summary>{_table(header, rows)}{note}</details>"


def _protocol(report: Mapping[str, Any]) -> str:
    protocol = report["protocol"]
    full = protocol["candidates"] == "full"
    facts = {
        "Split": protocol["split"],
        "Ranked": "the full catalog" if full else f"sampled candidates only: {_value(protocol['candidates'])}",
        "Items of the history": "left out of the lists" if protocol["seen"] == "drop" else "kept in the lists",
        "Chosen by": "the validation part; the test part was read once, at the end",
        "Seeds": ", ".join(map(str, protocol["seeds"])),
        "Lists of": ", ".join(map(str, protocol["k"])) + " items",
    }
    known = {"split", "candidates", "seen", "selection", "seeds", "k"}
    facts |= {key: _value(value) for key, value in protocol.items() if key not in known}
    return _facts(facts.items())


def _lineage(report: Mapping[str, Any]) -> str:
    facts = {"Data digest": report["dataset"]["digest"]}
    facts |= {key: _value(value) for key, value in report["lineage"].items()}
    recipe = report["recipe"]
    if not recipe:
        return _facts(facts.items())
    return _facts(facts.items()) + f"<details><summary>Recipe</summary><pre>{escape(_value(recipe))}</pre></details>"


def _section(title: str, lead: str, *parts: str) -> str:
    content = "".join(parts)
    if not content:
        return ""
    return f"<section><h2>{title}</h2>" + (f'<p class="soft">{lead}</p>' if lead else "") + content + "</section>"


def _figure(svg: str | None) -> str:
    return f"<figure>{svg}</figure>" if svg else ""


def _table(header: Iterable[str], rows: Iterable[tuple[str, list[str]]]) -> str:
    """Cells are HTML already; the first of a row is its heading."""
    head = "".join(f"<th>{cell}</th>" for cell in header)
    body = "".join(f'<tr class="{kind}">' + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for kind, row in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _facts(pairs: Iterable[tuple[str, str]]) -> str:
    return "<dl>" + "".join(f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>" for key, value in pairs) + "</dl>"


def _stats(stats: Mapping[str, Any] | None) -> str:
    if stats is None:
        return "–"
    spread = "" if stats["std"] is None else f"<br><small>± {stats['std']:.4f}</small>"
    return f"{stats['mean']:.4f}{spread}"


def _latency(latency: Mapping[str, float] | None) -> str:
    if latency is None:
        return "–"
    return f"{words.human_ms(latency['p50'])}<br><small>p99 {words.human_ms(latency['p99'])}</small>"


def _metric(name: str) -> str:
    return escape(words.human_metric(name))


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2, default=str)
