"""card.md: what a person needs to know before using a student that somebody else made."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distilrec.evaluation import words
from distilrec.evaluation.terminal import table_metrics
from distilrec.files import atomic_file

__all__ = ["render_card", "write_card"]


def write_card(report: Mapping[str, Any], path: str | Path) -> Path:
    """Write the card of `report` atomically."""
    with atomic_file(path) as temporary:
        temporary.write_text(render_card(report), encoding="utf-8")
    return Path(path)


def render_card(report: Mapping[str, Any]) -> str:
    """The card as Markdown: verdict, numbers, data, how it was measured, where it came from, limits."""
    student = words.main_student(report)
    title = student["name"] if student else report["dataset"]["name"]
    sections = [
        f"# {_text(title)}",
        f"**{words.headline(report)}.** " + " ".join(_text(one) for one in words.verdict_sentences(report)),
        "## Results", _results(report),
        "## Against the others", _comparisons(report),
        *(["## Slices", _slices(report)] if report["dataset"].get("slices") else []),
        "## Data", _data(report),
        "## How it was measured", _protocol(report),
        "## Where it comes from", _lineage(report),
        "## Limits", _limits(report),
    ]
    return "\n\n".join(sections) + "\n"


def _results(report: Mapping[str, Any]) -> str:
    metrics = table_metrics(report)
    header = ["model", "role", *map(words.column_title, metrics), "parameters", "size", "latency p50", "trained in"]
    rows = []
    for model in report["models"]:
        latency = model["latency_ms"]
        values = (model["metrics"]["test"].get(metric) for metric in metrics)
        rows.append([
            _text(model["name"]), model["role"],
            *(_number(v) + (f" ± {v['std']:.4f}" if v and v["std"] is not None else "") for v in values),
            words.human_count(model["parameters"]), words.human_bytes(model["bytes"]),
            words.human_ms(latency["p50"] if latency else None), words.human_seconds(model["train_seconds"]),
        ])
    arrow = "\n\n↓: lower is better." if any("↓" in name for name in header) else ""
    return _table(header, rows, right=2) + arrow


def _comparisons(report: Mapping[str, Any]) -> str:
    rows = [
        [f"{_text(c['a'])} − {_text(c['b'])}", words.human_metric(c["metric"]), words.human_signed(c["difference"]),
         " to ".join(map(words.human_signed, c["interval"])), words.human_percent(words.gain_of(c)[0]),
         words.human_p(c["p_value"]).removeprefix("=\u00a0"), f"{c['n']:,}"]
        for c in report["comparisons"] if c["metric"] == report["metric"]
    ]
    if not rows:
        return "None."
    relative = "gain" if words.is_rows(report) else "relative"
    header = ["pair", "metric", "difference", "95% interval", relative, "p", words.unit_of(report)]
    return _table(header, rows, right=2) + f"\n\nTest: {report['comparisons'][0]['test']}."


def _slices(report: Mapping[str, Any]) -> str:
    """The student beside its control on each slice, by the leading metric of each head."""
    data, student = report["dataset"], words.main_student(report)
    control = words.model_named(report, student.get("control")) if student else None
    models = [one for one in (student, control) if one is not None] or report["models"][:1]
    leads = [lead for head in data["heads"] if (lead := words.lead_metric(report, head)) is not None]
    columns = [(lead, one) for lead in leads for one in models]
    rows = [[_text(name), f"{size:,}", *(_number(one["groups"].get(name, {}).get(lead)) for lead, one in columns)]
            for name, size in data["slices"].items()]
    header = ["slice", "rows", *(f"{words.column_title(lead)}, {_text(one['name'])}" for lead, one in columns)]
    return _table(header, rows, right=1)


def _number(stats: Mapping[str, Any] | None) -> str:
    return "–" if stats is None or stats["mean"] is None else f"{stats['mean']:.4f}"


def _data(report: Mapping[str, Any]) -> str:
    data = report["dataset"]
    lines = [f"- Name: {_text(data['name'])}", f"- Digest: {_text(data['digest'])}",
             f"- {', '.join(words.size_of(report))}"]
    for name, head in data.get("heads", {}).items():
        mean = head.get("base_rate", head.get("mean"))
        level = "" if mean is None else f", {'mean' if head['kind'] == 'number' else 'base rate'} {mean:.4g}"
        lines.append(f"- {_text(name)} ({head['kind']}): observed on {head['observed']:,} test rows{level}")
    return "\n".join(lines)


def _protocol(report: Mapping[str, Any]) -> str:
    protocol = report["protocol"]
    sampled = protocol.get("candidates", "full") != "full"
    ranked = f"sampled candidates ({_value(protocol['candidates'])})" if sampled else "the full catalog"
    cuts = f"; k = {', '.join(map(str, protocol['k']))}" if "k" in protocol else ""
    lines = [
        f"- Split: {_text(protocol['split'])}; models were chosen on the validation part, the test part was read once",
        f"- Seeds: {', '.join(map(str, protocol['seeds']))}{cuts}",
        f"- Main metric: {words.human_metric(report['metric'])}",
    ]
    if not words.is_rows(report):
        lines.insert(1, f"- Ranked: {ranked}; items of the history are "
                        f"{'left out' if protocol['seen'] == 'drop' else 'kept in'}")
    elif "thresholds" in protocol:
        lines.append(f"- Thresholds: {_text(protocol['thresholds'])}")
    return "\n".join([*lines, *(f"- {_text(note)}" for note in report.get("notes", ()))])


def _lineage(report: Mapping[str, Any]) -> str:
    lines = [f"- {_text(role.capitalize())}: {', '.join(_text(m['name']) for m in words.of_role(report, role))}"
             for role in ("teacher", "student", "control") if words.of_role(report, role)]
    lines += [f"- {_text(key)}: {_value(value)}" for key, value in report["lineage"].items()]
    return "\n".join(lines) or "Nothing was recorded."


def _limits(report: Mapping[str, Any]) -> str:
    protocol, student, unit = report["protocol"], words.main_student(report), words.unit_of(report)
    limits = [
        f"The numbers hold for this data set, this split and {unit} like these; past behavior is not a live "
        "experiment.",
        f"The intervals speak of other {unit}, not of other training seeds: the spread over seeds is given beside it.",
    ]
    if len(protocol["seeds"]) < 3:
        limits.append(f"Only {len(protocol['seeds'])} seed(s) were run: the spread of training is not well known.")
    if protocol.get("candidates", "full") != "full":
        limits.append("Sampled candidates make every model look better than it is, and can change their order.")
    if student is not None and student.get("control") is None:
        limits.append("There is no control, so the effect of the teacher is unknown.")
    tail = (student or {}).get("groups", {}).get("tail", {}).get(report["metric"])
    head = (student or {}).get("groups", {}).get("head", {}).get(report["metric"])
    if tail and head:
        limits.append(
            f"On rarely seen items (the tail) {words.human_metric(report['metric'])} is {tail['mean']:.4f}, on the "
            f"others {head['mean']:.4f}.")
    return "\n".join(f"- {limit}" for limit in limits)


def _table(header: list[str], rows: list[list[str]], right: int) -> str:
    rule = ["---" if i < right else "---:" for i in range(len(header))]
    return "\n".join("| " + " | ".join(row) + " |" for row in [header, rule, *rows])


def _value(value: Any) -> str:
    return _text(value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str))


def _text(value: str) -> str:
    """User text that can neither break a table nor become markup."""
    flat = " ".join(str(value).split())
    for special in "\\`*_[]<>|#":
        flat = flat.replace(special, "\\" + special)
    return flat
