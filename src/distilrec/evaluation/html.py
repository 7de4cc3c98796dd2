"""The report as one self-contained page: no script, no network, readable in light and dark, fit to print."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
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
    "teacher": "teacher", "member": "one of the teacher's models", "student": "distilled student",
    "control": "same student, no teacher",
    "baseline": "baseline", "fusion": "fusion", "compressed": "compressed",
}

_RELATIVE = "relative difference of the main metric"
_GAIN = ("gain on the main metric, the difference as a share of the second model's value (of an AUC what it has above "
         ".5; of a loss what was saved)")


def write_html(report: Mapping[str, Any], path: str | Path) -> Path:
    """Write the page of `report` atomically. Raises MissingExtraError without altair or vl-convert."""
    page = render_html(report)
    with atomic_file(path) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return Path(path)


def render_html(report: Mapping[str, Any]) -> str:
    """The page as text. Every string that came from a user is escaped, and the page forbids itself all loading."""
    data, seeds, rows = report["dataset"], len(report["protocol"]["seeds"]), words.is_rows(report)
    title = f"{data['name']}: {words.headline(report).lower()}"
    body = [
        f"<h1>{escape(data['name'])}</h1>",
        f'<p class="soft">{" · ".join(words.size_of(report))} · '
        f'{seeds} seed{"" if seeds == 1 else "s"} · main metric {_metric(report["metric"])} on the test part</p>',
        _verdict(report),
        _tiles(report),
        _results(report),
        _cost(report),
        *(_of_rows(report) if rows else [_section(
            "Popular and rare items", "The main metric, counted only on targets of each group. The tail are the "
            "least popular items that hold the last 20% of the training interactions.",
            _figure(charts.group_chart(report)))]),
        _section("Differences", f"Each pair of models on the same {words.unit_of(report)}: "
                 f"{_GAIN if rows else _RELATIVE} with its 95% interval. Left of the solid line the first model is "
                 "worse; the dashed line is the +1% from which a teacher is worth it. "
                 f"Pairs more than {charts.FAR:.0%} apart are only in the table below.",
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
    if found and (gain := words.gain_of(found)[0]) is not None:
        label = "gain in " if words.is_rows(report) else ""
        tiles.append((words.human_percent(gain), f"{label}{words.human_metric(metric)} against the control"))
    own, best = words.mean_of(student, metric), words.mean_of(teacher, metric) if teacher else None
    if (share := words.kept_share(metric, own, best)) is not None:
        tiles.append((f"{share:.0%}", "of the teacher's quality kept"))
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
    by_head = words.head_metrics(report) or {"": every}
    more = "".join((f"<h3>{escape(head)}</h3>" if len(by_head) > 1 else "") + _all_metrics(report, names)
                   for head, names in by_head.items())
    arrow = " ↓: lower is better; of all other metrics higher is." if words.is_rows(report) else ""
    return _section(
        "Results", f"Means over the test {'part' if words.is_rows(report) else 'users'} and seeds; beneath them the "
        "standard deviation over seeds. Gap closed: the share of the way from control to teacher that the student "
        f"went. Latency: one request on one core, median.{arrow}",
        _table(header, rows),
        f"<details><summary>All metrics</summary>{more}</details>",
    )


def _all_metrics(report: Mapping[str, Any], names: Sequence[str]) -> str:
    rows = [(model["role"], [escape(model["name"]), *(_stats(model["metrics"]["test"].get(name)) for name in names)])
            for model in report["models"]]
    return _table(["model", *map(_metric, names)], rows)


def _of_rows(report: Mapping[str, Any]) -> list[str]:
    """What only predictions of rows have: calibration, slices, classes of tags."""
    data = report["dataset"]
    slices, classes = [], []
    for head in data["heads"]:
        lead = words.lead_metric(report, head)
        if lead is None:
            continue
        if data["slices"]:
            slices.append(_groups(report, "slice", {name: name for name in data["slices"]}, lead, data["slices"]))
        prefix = f"{head}." if len(data["heads"]) > 1 else ""
        classes += [_groups(report, head, found, prefix + name, data["heads"][head]["classes"])
                    for name in ("f1", "recall") if (found := words.class_groups(report, head))]
    return [
        _section("Calibration", "Of the cases that a model gives a probability of 20%, 20% should happen: the line of "
                 "a good model lies on the dashed one. Bins of equal numbers of rows; of number heads, mean values.",
                 _figure(charts.calibration_chart(report))),
        _section("Slices", "The same models on parts of the test rows. Small slices differ by chance.", *slices),
        _section("Classes", "Each tag by itself, at the threshold that was chosen on the validation part; the share "
                 "is that of rows that have it.", *classes),
    ]


def _groups(
    report: Mapping[str, Any], what: str, groups: Mapping[str, str], metric: str, sizes: Mapping[str, Any]
) -> str:
    """One metric of every model on each group: {shown name: name in the report}."""
    header = [escape(what), "rows" if what == "slice" else "share", *(escape(one["name"]) for one in report["models"])]
    rows = []
    for name, key in groups.items():
        cells = [model["groups"].get(key, {}).get(metric) for model in report["models"]]
        size = "–" if sizes[name] is None else f"{sizes[name]:,}" if what == "slice" else f"{sizes[name]:.1%}"
        if any(cells):
            rows.append(("", [escape(name), size, *map(_stats, cells)]))
    return f"<h3>{_metric(metric)}</h3>{_table(header, rows)}" if rows else ""


def _cost(report: Mapping[str, Any]) -> str:
    pictures = [_figure(charts.cost_chart(report, cost)) for cost in ("parameters", "latency")]
    if not any(pictures):
        return ""
    return _section("Quality against cost", "Up and to the left is better. Costs on a log scale.",
                    f'<div class="charts">{"".join(pictures)}</div>')


def _comparisons(report: Mapping[str, Any]) -> str:
    rows = []
    for c in report["comparisons"]:
        gain, span = words.gain_of(c)
        low, high = span or (None, None)
        rows.append(("", [
            f"{escape(c['a'])} − {escape(c['b'])}", _metric(c["metric"]), words.human_signed(c["difference"]),
            " to ".join(map(words.human_signed, c["interval"])), words.human_percent(gain),
            "–" if low is None else f"{words.human_percent(low)} to {words.human_percent(high)}",
            words.human_p(c["p_value"]).removeprefix("=\u00a0"), f"{c['n']:,}",
        ]))
    if not rows:
        return ""
    relative = "gain" if words.is_rows(report) else "relative"
    header = ["pair", "metric", "difference", "95% interval", relative, "95% interval", "p", words.unit_of(report)]
    note = (f'<p class="soft">Test: {escape(report["comparisons"][0]["test"])}. The verdict rests on the main metric '
            "alone; the others are there to look at, and are not corrected for being many.</p>")
    return f"<details><summary>All comparisons as numbers</summary>{_table(header, rows)}{note}</details>"


def _protocol(report: Mapping[str, Any]) -> str:
    protocol = report["protocol"]
    facts = {
        "Split": protocol["split"],
        "Chosen by": "the validation part; the test part was read once, at the end",
        "Seeds": ", ".join(map(str, protocol["seeds"])),
    }
    if words.is_rows(report):
        facts["Measured on"] = f"{report['dataset']['parts']['test']:,} test rows"
        facts["Intervals"] = f"speak of other {words.unit_of(report)} like these"
    else:
        full = protocol["candidates"] == "full"
        facts["Ranked"] = "the full catalog" if full else f"sampled candidates only: {_value(protocol['candidates'])}"
        facts["Items of the history"] = "left out of the lists" if protocol["seen"] == "drop" else "kept in the lists"
    if "k" in protocol:
        facts["Lists of"] = ", ".join(map(str, protocol["k"])) + (" tags" if words.is_rows(report) else " items")
    known = {"split", "candidates", "seen", "selection", "seeds", "k"}
    facts |= {key: _value(value) for key, value in protocol.items() if key not in known}
    notes = "".join(f"<li>{escape(note)}</li>" for note in report.get("notes", ()))
    return _facts(facts.items()) + (f"<ul>{notes}</ul>" if notes else "")


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
    if stats is None or stats["mean"] is None:
        return "–"
    spread = "" if stats["std"] is None else f"<br><small>± {stats['std']:.4f}</small>"
    return f"{stats['mean']:.4f}{spread}"


def _latency(latency: Mapping[str, Any] | None) -> str:
    if latency is None:
        return "–"
    list_of = latency.get("of_100")
    more = f"<br>100 rows: {words.human_ms(list_of['p50'])}, p99 {words.human_ms(list_of['p99'])}" if list_of else ""
    return f"{words.human_ms(latency['p50'])}<br><small>p99 {words.human_ms(latency['p99'])}{more}</small>"


def _metric(name: str) -> str:
    return escape(words.column_title(name))


def _value(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=2, default=str)
