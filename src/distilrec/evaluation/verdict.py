"""Two rules that turn comparisons into words; both read the recipe's main metric only."""

from __future__ import annotations

from typing import Literal

from distilrec.evaluation.significance import Comparison

__all__ = ["WORTH_IT", "Verdict", "decide", "gap_closed"]

Verdict = Literal["distill", "do not distill", "undecided"]

WORTH_IT = 0.01  # a gain below 1 % of the control does not pay for a teacher
_FEW_USERS = 10  # resampling fewer users than this cannot carry a decision either way


def decide(student_control: Comparison) -> Verdict:
    """"distill" if the student is surely better than its control and by at least 1 % on average; "do not distill" if
    even the upper end of the interval is a gain below 1 %; otherwise "undecided".
    """
    low, high = student_control.interval
    if student_control.n < _FEW_USERS:
        return "undecided"
    least = WORTH_IT * student_control.mean_b
    if low > 0 and student_control.difference >= least:
        return "distill"
    # a control that never hits has no 1 %: then any sure gain decides above, and only a sure absence of gain here
    if high < least or (least == 0 and high <= 0):
        return "do not distill"
    return "undecided"


def gap_closed(student: float, control: float, teacher_control: Comparison) -> float | None:
    """(student - control) / (teacher - control): the share of the teacher's lead that the student took over.

    None unless the teacher leads the control for sure (the whole interval above 0): a share of a gap that may not
    exist means nothing.
    """
    if teacher_control.interval[0] <= 0:
        return None
    return (student - control) / teacher_control.difference
