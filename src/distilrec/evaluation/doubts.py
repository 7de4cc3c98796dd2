"""What speaks against a verdict: a control that is too easy to beat, a teacher that one of its members beats."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distilrec.evaluation.lookup import comparison_of, mean_of, model_named, of_role
from distilrec.evaluation.verdict import is_lower_better

__all__ = ["below_popularity", "better_members", "weak_control"]

_LATE = 0.05  # a rise after four fifths of training from which on a control counts as cut short


def better_members(report: Mapping[str, Any], teacher: Mapping[str, Any], metric: str) -> list[str]:
    """Members of an ensemble that are surely better than all of them together."""
    sign = -1 if is_lower_better(metric) else 1
    better = [one for one in of_role(report, "member")
              if (found := comparison_of(report, teacher["name"], one["name"], metric)) is not None
              and max(sign * bound for bound in found["interval"]) < 0]
    return [f"But {one['name']} alone is better than the whole teacher ({mean_of(one, metric):.4f} against "
            f"{mean_of(teacher, metric):.4f}): let it teach alone, or weigh the members." for one in better[:1]]


def weak_control(report: Mapping[str, Any], student: Mapping[str, Any], metric: str) -> list[str]:
    """What makes a control too easy to beat: it was cut short, or is worse than what needs no training."""
    control = model_named(report, student.get("control"))
    if control is None:
        return []
    found = []
    curves: dict[int, list[Mapping[str, Any]]] = {}
    for point in control.get("curves", ()):
        if point["valid"] is not None:
            curves.setdefault(point["seed"], []).append(point)
    rises = [rise for curve in curves.values() if (rise := _late_rise(curve, metric)) is not None]
    if rises and (rise := sum(rises) / len(rises)) > _LATE:
        found.append(f"But the control was still getting better when its training ended (by {rise:.0%} on validation "
                     "at the end): train both longer before you believe this.")
    if (below := below_popularity(report, student, metric)) is not None:
        found.append(f"But the control is worse than popularity ({below[0]:.4f} against {below[1]:.4f}), so it was not "
                     "trained well, and whoever beats it shows nothing: hence no verdict to distill.")
    return found


def below_popularity(report: Mapping[str, Any], student: Mapping[str, Any], metric: str) -> tuple[float, float] | None:
    """(control, popularity) where the student's control is the worse one."""
    control, popular = model_named(report, student.get("control")), model_named(report, "popularity")
    own, theirs = (None if one is None else mean_of(one, metric) for one in (control, popular))
    if own is None or theirs is None or (own <= theirs if is_lower_better(metric) else own >= theirs):
        return None
    return own, theirs


def _late_rise(curve: list[Mapping[str, Any]], metric: str) -> float | None:
    """By which share the validation value got better after four fifths of a training; None where nobody looked shortly
    before that, 0 where the best one is not the last: then the training ended by itself.

    metric: that of the report, where the points do not say by which they were chosen.
    """
    sign = -1 if is_lower_better(curve[0].get("metric", metric)) else 1
    end = curve[-1]["step"]
    early = [sign * point["valid"] for point in curve if point["step"] <= 0.8 * end]
    seldom = not any(0.5 * end <= point["step"] <= 0.8 * end for point in curve)
    if not early or not max(early) or seldom:
        return None
    last = sign * curve[-1]["valid"]
    return (last - max(early)) / abs(max(early)) if last >= max(sign * point["valid"] for point in curve) else 0.0
