"""Two rules that turn comparisons into words; both read the recipe's main metric only."""

from __future__ import annotations

from typing import Literal

from distilrec.evaluation.pointwise import CHANCE, LOWER, base_name
from distilrec.evaluation.significance import Comparison

__all__ = ["WORTH_IT", "Verdict", "decide", "gain", "gap_closed", "is_lower_better", "room"]

Verdict = Literal["distill", "do not distill", "undecided"]

WORTH_IT = 0.01  # a gain below 1 % of the control does not pay for a teacher
_FEW_USERS = 10  # resampling fewer users than this cannot carry a decision either way


def decide(student_control: Comparison, metric: str = "") -> Verdict:
    """"distill" if the student is surely better than its control and by at least 1 % on average; "do not distill" if
    even the upper end of the interval is a gain below 1 %; otherwise "undecided".

    The 1 % is of the control's `room`, and differences of a metric of which less is better are turned around.
    """
    difference, low, high = _turned(student_control, metric)
    if student_control.n < _FEW_USERS:
        return "undecided"
    least = WORTH_IT * room(student_control.mean_b, metric)
    if low > 0 and difference >= least:
        return "distill"
    # a control that never hits has no 1 %: then any sure gain decides above, and only a sure absence of gain here
    if high < least or (least == 0 and high <= 0):
        return "do not distill"
    return "undecided"


def gap_closed(student: float, control: float, teacher_control: Comparison, metric: str = "") -> float | None:
    """(student - control) / (teacher - control): the share of the teacher's lead that the student took over.

    None unless the teacher leads the control for sure (the whole interval on the better side of 0): a share of a gap
    that may not exist means nothing.
    """
    if _turned(teacher_control, metric)[1] <= 0:
        return None
    return (student - control) / teacher_control.difference


def room(control: float, metric: str) -> float:
    """What a control has made: its distance from chance where chance reaches something, otherwise its value.

    >>> room(0.75, "auc"), room(0.4, "click.log_loss"), room(0.45, "auc")
    (0.25, 0.4, 0.0)
    """
    return max(0.0, control - CHANCE[base_name(metric)]) if base_name(metric) in CHANCE else control


def gain(comparison: Comparison, metric: str) -> tuple[float, tuple[float, float]] | None:
    """The difference and its interval as shares of the room of b, positive where a is better; None without room."""
    whole = room(comparison.mean_b, metric)
    if not whole:
        return None
    difference, low, high = _turned(comparison, metric)
    return difference / whole, (low / whole, high / whole)


def is_lower_better(metric: str) -> bool:
    """
    >>> is_lower_better("click.log_loss"), is_lower_better("ndcg@10")
    (True, False)
    """
    return base_name(metric) in LOWER


def _turned(comparison: Comparison, metric: str) -> tuple[float, float, float]:
    """(difference, low, high), positive where a is better."""
    low, high = comparison.interval
    if is_lower_better(metric):
        return -comparison.difference, -high, -low
    return comparison.difference, low, high
