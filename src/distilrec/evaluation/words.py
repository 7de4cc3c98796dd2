"""A report in words and short numbers, for all its views: terminal, page and card say the same thing."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from distilrec.evaluation.doubts import better_members, weak_control
from distilrec.evaluation.lookup import comparison_of, mean_of, model_named, of_role
from distilrec.evaluation.pointwise import CHANCE, base_name
from distilrec.evaluation.verdict import is_lower_better, room

__all__ = [
    "class_groups", "column_title", "comparison_of", "gain_of", "head_metrics", "headline", "human_bytes",
    "human_count", "human_metric", "human_ms", "human_p", "human_percent", "human_seconds", "human_signed", "is_rows",
    "kept_share", "lead_metric", "main_student", "mean_of", "model_named", "of_role", "size_of", "unit_of",
    "verdict_sentences",
]

_METRIC_NAMES = {
    "ndcg": "NDCG", "hit_rate": "hit rate", "recall": "recall", "precision": "precision", "f1": "F1", "mrr": "MRR",
    "map": "MAP", "coverage": "coverage", "gini": "Gini", "novelty": "novelty", "diversity": "diversity",
    "auc": "AUC", "gauc": "GAUC", "uauc": "UAUC", "rmse": "RMSE", "mae": "MAE", "hit": "hit rate",
    "micro_f1": "micro F1", "macro_f1": "macro F1",
}
_LEADING = ("auc", "rmse", "micro_f1", "log_loss")  # of a head, whatever the main metric of the report is
_HEADLINES = {
    "distill": "Distill", "do not distill": "Do not distill", "undecided": "Undecided", None: "No verdict",
}


def main_student(report: Mapping[str, Any]) -> dict[str, Any] | None:
    """The first student of the report: the one that the verdict is about."""
    return next(iter(of_role(report, "student")), None)


def _no_gap(report: Mapping[str, Any], teacher: str, control: str, metric: str) -> str:
    """Why no share of a gap is given: the teacher is worse than the control, or not surely better."""
    found = comparison_of(report, teacher, control, metric)
    low, high = found["interval"] if found else (0.0, 0.0)
    worse = low > 0 if is_lower_better(metric) else high < 0
    how = "is worse than" if worse else "is not surely better than"
    return f"The teacher {how} the control, so no share of a gap is given."


def headline(report: Mapping[str, Any]) -> str:
    """"Distill", "Do not distill", "Undecided" or "No verdict"."""
    student = main_student(report)
    return _HEADLINES[student["verdict"] if student else None]


def verdict_sentences(report: Mapping[str, Any]) -> list[str]:
    """What a manager needs: is the student better for having had a teacher, what was kept, what it costs."""
    student, metric = main_student(report), report["metric"]
    if student is None:
        return ["This run has no student, so there is nothing to decide."]
    if mean_of(student, metric) is None:
        return [f"{human_metric(metric)} is not defined on the test part, so nothing can be decided."]
    sentences = [_against_control(report, student, metric)]
    teacher = next(iter(of_role(report, "teacher")), None)
    if teacher is not None:
        sentences.append(_against_teacher(student, teacher, metric))
        sentences += better_members(report, teacher, metric)
    if student["gap_closed"] is not None:
        sentences.append(_gap(student["gap_closed"]))
    elif teacher is not None and model_named(report, student.get("control")) is not None:
        sentences.append(_no_gap(report, teacher["name"], str(student["control"]), metric))
    sign = -1 if is_lower_better(metric) else 1
    best = max(of_role(report, "baseline"), key=lambda model: sign * (mean_of(model, metric) or 0.0), default=None)
    if best is not None and sign * (mean_of(best, metric) or 0.0) > sign * (mean_of(student, metric) or 0.0):
        what = "a plain baseline" if is_rows(report) else "which needs no training"  # a logistic regression needs some
        found = comparison_of(report, student["name"], best["name"], metric)
        span = found["interval"] if found else None
        unsure = span is not None and span[0] <= 0 <= span[1]
        verb = "is ahead of the student, though not surely" if unsure else "is better than the student"
        sentences.append(f"But {best['name']}, {what}, {verb}: "
                         f"{mean_of(best, metric):.4f} against {mean_of(student, metric):.4f}.")
    return [*sentences, *_calibration(report, student, teacher), *weak_control(report, student, metric)]


def _against_control(report: Mapping[str, Any], student: Mapping[str, Any], metric: str) -> str:
    control = model_named(report, student.get("control"))
    found = comparison_of(report, student["name"], control["name"], metric) if control else None
    if control is None or found is None:
        return ("No control was trained (the same student without the teacher), so nobody can say whether "
                "distillation helped.")
    name, gain, span = human_metric(metric), found["relative"], found["relative_interval"]
    values = f"{mean_of(student, metric):.4f} against {mean_of(control, metric):.4f}"
    if is_lower_better(metric):
        values += ", lower is better"
    elif base_name(metric) in CHANCE:  # .7731 against .7712 is little of .77 and something of what is above .5
        values += ", counted above the .5 of guessing"
        gain, span = found["gain"], found["gain_interval"]
    change = "" if gain is None else f"{abs(gain):.1%} "
    side = f"{change}higher than" if found["difference"] > 0 else f"{change}lower than"
    side = side if found["difference"] else "equal to"
    interval = "" if span is None else f"95% interval {human_percent(span[0])} to {human_percent(span[1])}, "
    start = {
        "distill": "The teacher pays off",
        "do not distill": "The teacher does not pay off",
        "undecided": "The data do not decide",
    }[student["verdict"]]
    return (f"{start}: {name} of the distilled student is {side} that of the same model trained without the teacher "
            f"({values}; {interval}p\u00a0{human_p(found['p_value'])}, {found['n']:,} {unit_of(report)}).")


def _gap(closed: float) -> str:
    if closed < 0:
        return "It ends below its control, although the teacher is above it."
    return "It ends above its teacher." if closed > 1 else f"It closes {closed:.0%} of the gap from control to teacher."


def _against_teacher(student: Mapping[str, Any], teacher: Mapping[str, Any], metric: str) -> str:
    own, best = mean_of(student, metric), mean_of(teacher, metric)
    share, name = kept_share(metric, own, best), human_metric(metric)
    if is_lower_better(metric) and own is not None and best:
        start = f"Its {name} is {own:.4f} where the teacher's is {best:.4f} ({human_percent(own / best - 1)})"
    elif share is None:
        start = "It keeps its quality"
    else:
        above = " above guessing" if base_name(metric) in CHANCE else ""
        start = f"It keeps {share:.0%} of the teacher's {name}{above}"
    ratio = student.get("compression_ratio")
    times = f"{ratio:,.1f} times fewer" if ratio and ratio >= 1 else f"{1 / ratio:,.1f} times more" if ratio else ""
    small = f" with {human_count(student['parameters'])} parameters, {times}" if times else ""
    speed = student["latency_ms"]
    answer = f", and answers a request in {human_ms(speed['p50'])} (median, one core)" if speed else ""
    return f"{start}{small}{answer}."


def _calibration(
    report: Mapping[str, Any], student: Mapping[str, Any], teacher: Mapping[str, Any] | None
) -> list[str]:
    """Whether the numbers of the main head can be taken as probabilities."""
    head = report["metric"].rpartition(".")[0]
    prefix = f"{head}." if head else ""
    error, mean, ratio = (mean_of(student, prefix + name) for name in (
        "calibration_error", "mean_prediction", "calibration_ratio"))
    if error is None or mean is None or not ratio:
        return []
    theirs = mean_of(teacher, f"{prefix}calibration_error") if teacher else None
    beside = "" if theirs is None else f", the teacher's {theirs:.4f}"
    return [f"It predicts {mean:.1%} on average where {mean / ratio:.1%} happens; its calibration error is "
            f"{error:.4f}{beside}."]


def is_rows(report: Mapping[str, Any]) -> bool:
    """Whether the report is of rows (predict, tag) and not of ranked lists."""
    return report["task"] in ("predict", "tag")


def unit_of(report: Mapping[str, Any]) -> str:
    """What the intervals speak of: "users", or "groups" or "rows" of a table."""
    return str(report["dataset"].get("unit", "users"))


def size_of(report: Mapping[str, Any]) -> list[str]:
    """["6,040 users", "3,706 items", ...], or the rows and groups of a table."""
    data = report["dataset"]
    if not is_rows(report):
        return [f"{data['users']:,} users", f"{data['items']:,} items", f"{data['interactions']:,} interactions"]
    groups = [f"{data['users']:,} groups"] if data["users"] else []
    return [f"{data['interactions']:,} rows", *groups]


def head_metrics(report: Mapping[str, Any]) -> dict[str, list[str]]:
    """Head -> the names of its metrics that were measured, in the order of the report."""
    heads = list(report["dataset"].get("heads", {}))
    measured = dict.fromkeys(name for model in report["models"] for name in model["metrics"]["test"])
    if len(heads) == 1:
        return {heads[0]: list(measured)}
    return {head: [name for name in measured if name.rpartition(".")[0] == head] for head in heads}


def lead_metric(report: Mapping[str, Any], head: str) -> str | None:
    """The metric by which a head is looked at: the main one where it is the head's, otherwise AUC, RMSE or micro F1."""
    names = head_metrics(report)[head]
    if report["metric"] in names:
        return str(report["metric"])
    return next((name for wanted in _LEADING for name in names if base_name(name) == wanted), None)


def class_groups(report: Mapping[str, Any], head: str) -> dict[str, str]:
    """Class of a tags head -> its name among the groups of a model."""
    return {name: f"{head}: {name}" for name in report["dataset"]["heads"][head].get("classes", {})}


def gain_of(comparison: Mapping[str, Any]) -> tuple[float | None, list[float] | None]:
    """The difference as a share of what the second model has made, and its interval; positive is better."""
    if "gain" in comparison:
        return comparison["gain"], comparison["gain_interval"]
    return comparison.get("relative"), comparison.get("relative_interval")


def kept_share(metric: str, own: float | None, best: float | None) -> float | None:
    """What a student keeps of its teacher's quality, above chance; None for losses, which are not kept.

    >>> kept_share("auc", 0.74, 0.75), kept_share("ndcg@10", 0.09, 0.1), kept_share("rmse", 0.9, 0.8)
    (0.96, 0.9, None)
    """
    if own is None or not best or is_lower_better(metric) or not room(best, metric):
        return None
    return round(room(own, metric) / room(best, metric), 12)


def column_title(metric: str) -> str:
    """
    >>> column_title("auc"), column_title("click.log_loss")
    ('AUC', 'click log loss ↓')
    """
    return human_metric(metric) + (" ↓" if is_lower_better(metric) else "")


def human_metric(metric: str) -> str:
    """
    >>> human_metric("ndcg@10"), human_metric("click.hit_rate@5")
    ('NDCG@10', 'click hit rate@5')
    """
    match = re.fullmatch(r"(?:([\w -]+)\.)?(\w+)(@\d+)?", metric)
    if match is None:
        return metric
    head, name, cut = match.groups()
    return f"{head + ' ' if head else ''}{_METRIC_NAMES.get(name, name.replace('_', ' '))}{cut or ''}"


def human_count(value: float | None) -> str:
    """
    >>> [human_count(v) for v in (None, 950, 43_210, 1_234_567, 7e9)]
    ['–', '950', '43 k', '1.23 M', '7.00 B']
    """
    if value is None:
        return "–"
    for limit, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if value >= limit * (0.9995 if limit > 1e3 else 1):
            return f"{value / limit:.0f} k" if unit == "k" else f"{value / limit:.2f} {unit}"
    return f"{value:.0f}"


def human_bytes(value: float | None) -> str:
    """
    >>> [human_bytes(v) for v in (None, 512, 1_640_000)]
    ['–', '512 B', '1.6 MB']
    """
    if value is None:
        return "–"
    for limit, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= limit:
            return f"{value / limit:.1f} {unit}"
    return f"{value:.0f} B"


def human_ms(value: float | None) -> str:
    """
    >>> [human_ms(v) for v in (None, 0.0534, 1.72, 123.4)]
    ['–', '0.053 ms', '1.7 ms', '123 ms']
    """
    if value is None:
        return "–"
    return f"{value:.3f} ms" if value < 1 else f"{value:.1f} ms" if value < 100 else f"{value:.0f} ms"


def human_seconds(value: float | None) -> str:
    """
    >>> [human_seconds(v) for v in (None, 4.21, 75, 7300)]
    ['–', '4.2 s', '1 min 15 s', '2 h 1 min']
    """
    if value is None:
        return "–"
    if value < 60:
        return f"{value:.1f} s"
    minutes, seconds = divmod(round(value), 60)
    return f"{minutes} min {seconds} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def human_percent(value: float | None) -> str:
    """
    >>> human_percent(0.0312), human_percent(-0.005), human_percent(None)
    ('+3.1%', '−0.5%', '–')
    """
    if value is None:
        return "–"
    return f"{'−' if value < 0 else '+'}{abs(value) * 100:.1f}%"


def human_p(value: float) -> str:
    """
    >>> human_p(0.00002).split(), human_p(0.034).split()
    (['<', '.001'], ['=', '.034'])
    """
    return "<\u00a0.001" if value < 0.001 else f"=\u00a0{value:.3f}".replace("0.", ".", 1)


def human_signed(value: float) -> str:
    """
    >>> human_signed(0.00312), human_signed(-0.5)
    ('+0.0031', '−0.5000')
    """
    return f"{'−' if value < 0 else '+'}{abs(value):.4f}"
