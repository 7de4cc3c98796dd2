"""The pictures of a report, drawn with altair and turned into plain SVG: no script, no network, sharp in print.

Each function gives the SVG text, or None where the report has nothing to draw.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from distilrec.errors import MissingExtraError
from distilrec.evaluation import words
from distilrec.evaluation.page_style import PAINT, ROLE_PAINT
from distilrec.evaluation.verdict import is_lower_better

__all__ = ["FAR", "calibration_chart", "comparison_chart", "cost_chart", "curve_chart", "group_chart"]

FAR = 0.3  # a relative difference beyond this is left to the table
_POINTS = 200  # of one learning curve; more cannot be seen at this width


def cost_chart(report: Mapping[str, Any], cost: str) -> str | None:
    """The main metric against "parameters" or "latency", both costs on a log scale. None for fewer than two models."""
    alt = _altair()
    rows = []
    for model in report["models"]:
        value = model["parameters"] if cost == "parameters" else (model["latency_ms"] or {}).get("p50")
        quality = words.mean_of(model, report["metric"])
        if value and quality is not None:
            rows.append({"name": model["name"], "role": model["role"], "x": value, "y": quality})
    if len(rows) < 2:
        return None
    _place_labels(rows)
    # both cost charts share one quality axis, over all models, so that the eye may go from one to the other
    values = [v for model in report["models"] if (v := words.mean_of(model, report["metric"])) is not None]
    title = "parameters" if cost == "parameters" else "milliseconds a request (median, one core)"
    low, high = min(row["x"] for row in rows), max(row["x"] for row in rows)
    # room on the right for the labels, and never less than one decade, so that close costs look close
    scale = alt.Scale(type="log", domain=[low / 2, max(high * 12, low * 20)], nice=False)
    axis = alt.Axis(grid=False, format="~s" if cost == "parameters" else "~g", tickCount=5)
    x = alt.X("x:Q", title=title, scale=scale, axis=axis)
    # a loss is turned around, so that up is better in every report
    quality = alt.Scale(zero=False, domain=[min(values), max(values)], padding=14,
                        reverse=is_lower_better(report["metric"]))
    y = alt.Y("y:Q", title=words.column_title(report["metric"]), scale=quality)
    base = alt.Chart(alt.Data(values=rows))
    color = _role_color(alt)
    points = base.mark_circle(size=130, opacity=1).encode(x=x, y=y, color=color)
    text = base.mark_text(align="left", dx=11, fontSize=12, limit=170)
    labels = text.encode(x=x, y="label:Q", text="name:N", color=color)
    return _svg(points + labels, alt, width=455, height=270)


def _place_labels(rows: list[dict[str, Any]]) -> None:
    """Push labels of neighbors apart vertically: `label` is `y`, moved as little as possible."""
    values = [row["y"] for row in rows]
    gap = 0.065 * ((max(values) - min(values)) or 1.0)
    placed: list[dict[str, Any]] = []
    for row in sorted(rows, key=lambda one: -one["y"]):
        near = [p["label"] for p in placed if abs(math.log10(p["x"] / row["x"])) < 0.9]
        row["label"] = min([row["y"], *(label - gap for label in near)])
        placed.append(row)


def group_chart(report: Mapping[str, Any]) -> str | None:
    """The main metric on targets of the head and of the tail, one bar a model."""
    alt = _altair()
    rows = [
        {"name": model["name"], "role": model["role"], "group": _GROUPS.get(group, group), "y": stats["mean"],
         "text": f"{stats['mean']:.4f}"}
        for model in report["models"] for group, values in model["groups"].items()
        if (stats := values.get(report["metric"])) is not None
    ]
    if not rows:
        return None
    y = alt.Y("name:N", sort=None, title=None, axis=alt.Axis(labelLimit=170, labelPadding=8, ticks=False, domain=False))
    panels = []
    for group in dict.fromkeys(row["group"] for row in rows):
        here = [row for row in rows if row["group"] == group]
        most = max(row["y"] for row in here) or 1.0
        base = alt.Chart(alt.Data(values=here), title=alt.Title(group, anchor="start"))
        x = alt.X("y:Q", title=None, axis=None, scale=alt.Scale(domain=[0, most * 1.18]))
        bars = base.mark_bar(cornerRadiusEnd=3, height={"band": 0.66}).encode(x=x, y=y, color=_role_color(alt))
        text = base.mark_text(align="left", dx=5, fontSize=12, color=PAINT["ink"]).encode(x=x, y=y, text="text:N")
        panels.append((bars + text).properties(width=370, height=alt.Step(26)))
    return _svg(alt.hconcat(*panels, spacing=30), alt)


_GROUPS = {"head": "Popular items (head)", "tail": "Rare items (tail)"}


def curve_chart(report: Mapping[str, Any]) -> str | None:
    """The main metric on the validation part over training seconds, one line for each model and seed."""
    alt = _altair()
    rows, ends = [], []
    for model in report["models"]:
        points = [p for p in model.get("curves", ()) if p["valid"] is not None]
        for seed in sorted({point["seed"] for point in points}):
            line = sorted((p for p in points if p["seed"] == seed), key=lambda one: one["seconds"])
            rows += [{"name": model["name"], "role": model["role"], "line": f"{model['name']} {seed}",
                      "x": point["seconds"], "y": point["valid"]} for point in _thin(line)]
        if points:
            ends.append(model["name"])
    if not rows:
        return None
    roles = {model["name"]: model["role"] for model in report["models"]}
    color = alt.Color("name:N", title=None, legend=alt.Legend(orient="top", labelLimit=260, symbolStrokeWidth=3),
                      scale=alt.Scale(domain=ends, range=[ROLE_PAINT[roles[name]] for name in ends]))
    dashes = [[1, 0], [6, 3], [2, 2], [8, 2, 2, 2]]
    order = {name: [n for n in ends if roles[n] == roles[name]].index(name) % len(dashes) for name in ends}
    dash = alt.StrokeDash("name:N", legend=None, scale=alt.Scale(domain=ends, range=[dashes[order[n]] for n in ends]))
    lines = alt.Chart(alt.Data(values=rows)).mark_line(strokeWidth=2, opacity=0.85, clip=True).encode(
        x=alt.X("x:Q", title="training seconds", axis=alt.Axis(grid=False, tickCount=8)),
        y=alt.Y("y:Q", title=f"{words.human_metric(report['metric'])}, validation", scale=alt.Scale(zero=False)),
        color=color, strokeDash=dash, detail="line:N",
    )
    return _svg(lines, alt, width=990, height=280)


def _thin(points: Sequence[Any]) -> list[Any]:
    """At most about `_POINTS` of the points, evenly, and the last one."""
    kept = list(points[:: max(1, math.ceil(len(points) / _POINTS))])
    return kept if kept[-1] is points[-1] else [*kept, points[-1]]


def comparison_chart(report: Mapping[str, Any]) -> str | None:
    """Relative differences on the main metric with 95% intervals; the lines mark 0 and the +1% of the verdict."""
    alt = _altair()
    rows: list[dict[str, Any]] = []
    for c in report["comparisons"]:
        gain, span = words.gain_of(c)
        if c["metric"] == report["metric"] and span:
            rows.append({"pair": f"{c['a']} − {c['b']}", "role": _role(report, c["a"]), "x": gain, "low": span[0],
                         "high": span[1], "text": words.human_percent(gain)})
    if not rows:
        return None
    # baselines can be hundreds of percent away, which would flatten the comparisons that decide
    near = [row for row in rows if abs(row["x"]) <= FAR] or rows
    y = alt.Y("pair:N", sort=None, title=None, axis=alt.Axis(labelLimit=330, labelPadding=8, ticks=False, domain=False))
    title = "gain" if words.is_rows(report) else "relative difference"
    x = alt.X("low:Q", title=title, axis=alt.Axis(format="+%", tickCount=7))
    base = alt.Chart(alt.Data(values=near))
    color = _role_color(alt)
    spans = base.mark_rule(strokeWidth=3, opacity=0.55).encode(x=x, x2="high:Q", y=y, color=color)
    points = base.mark_circle(size=90, opacity=1).encode(x="x:Q", y=y, color=color)
    text = base.mark_text(dy=-11, fontSize=12, color=PAINT["ink"]).encode(x="x:Q", y=y, text="text:N")
    zero = alt.Chart(alt.Data(values=[{"x": 0.0}])).mark_rule(color=PAINT["ink"], strokeWidth=1).encode(x="x:Q")
    worth = alt.Chart(alt.Data(values=[{"x": 0.01}])).mark_rule(color=PAINT["soft"], strokeDash=[3, 3]).encode(x="x:Q")
    return _svg(zero + worth + spans + points + text, alt, width=760, height=alt.Step(38))


def calibration_chart(report: Mapping[str, Any]) -> str | None:
    """What happened over what was predicted, one panel a head and one line a model; the diagonal is exact."""
    alt = _altair()
    rows = [{"head": head, "name": model["name"], "role": model["role"], "x": one["prediction"], "y": one["label"]}
            for model in report["models"] for head, bins in model.get("calibration", {}).items() for one in bins]
    if not rows:
        return None
    panels = []
    for head in dict.fromkeys(row["head"] for row in rows):
        here = [row for row in rows if row["head"] == head]
        seen = [row[axis] for row in here for axis in ("x", "y")]
        ends = [min(seen), max(seen) + (max(seen) == min(seen)) * 0.1]
        scale = alt.Scale(domain=ends, nice=True)
        exact = alt.Chart(alt.Data(values=[{"x": end, "y": end} for end in ends])).mark_line(
            color=PAINT["soft"], strokeDash=[3, 3], strokeWidth=1)
        x = alt.X("x:Q", title="predicted", scale=scale, axis=alt.Axis(grid=False, tickCount=5))
        y = alt.Y("y:Q", title="observed", scale=scale, axis=alt.Axis(tickCount=5))
        base = alt.Chart(alt.Data(values=here), title=alt.Title(head, anchor="start"))
        lines = base.mark_line(strokeWidth=2, opacity=0.85).encode(x=x, y=y, color=_role_color(alt), detail="name:N")
        points = base.mark_circle(size=34, opacity=1).encode(x=x, y=y, color=_role_color(alt))
        panels.append((exact.encode(x=x, y=y) + lines + points).properties(width=300, height=270))
    return _svg(alt.concat(*panels, columns=3, spacing=30), alt)


def _role(report: Mapping[str, Any], name: str) -> str:
    model = words.model_named(report, name)
    return model["role"] if model else "baseline"


def _role_color(alt: ModuleType) -> Any:
    scale = alt.Scale(domain=list(ROLE_PAINT), range=list(ROLE_PAINT.values()))
    return alt.Color("role:N", scale=scale, legend=None)


def _svg(chart: Any, alt: ModuleType, **size: Any) -> str:
    """The chart as SVG text with the stand-in colors replaced by the page's variables."""
    import vl_convert

    if size:
        chart = chart.properties(**size)
    soft, line = PAINT["soft"], PAINT["line"]
    axis = {"labelColor": soft, "titleColor": soft, "gridColor": line, "tickColor": line, "domainColor": line,
            "labelFontSize": 12, "titleFontSize": 12, "titleFontWeight": "normal"}
    chart = chart.configure(background="transparent", font="Helvetica, Arial, sans-serif").configure_axis(**axis)
    chart = chart.configure_view(stroke=None).configure_legend(labelColor=PAINT["ink"], labelFontSize=12)
    chart = chart.configure_title(color=PAINT["ink"], fontSize=13)
    version = alt.SCHEMA_VERSION.rpartition(".")[0]  # vl-convert wants "v6.1", altair says "v6.1.0"
    text = vl_convert.vegalite_to_svg(chart.to_dict(), vl_version=version)
    for name, stand_in in PAINT.items():
        text = text.replace(f'"{stand_in}"', f'"var(--{name})"')
    return text


def _altair() -> ModuleType:
    try:
        import altair
        import vl_convert  # noqa: F401  altair finds it by itself; without it there is no picture
    except ImportError:
        raise MissingExtraError("altair or vl-convert-python", "report") from None
    return altair
