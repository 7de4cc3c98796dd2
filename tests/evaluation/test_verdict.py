"""The two rules, at their edges."""

from __future__ import annotations

import pytest

from distilrec.evaluation.significance import Comparison
from distilrec.evaluation.verdict import decide, gain, gap_closed


def comparison(difference: float, low: float, high: float, control: float = 1.0, n: int = 100) -> Comparison:
    return Comparison(control + difference, control, difference, (low, high), 0.5, n, "test")


@pytest.mark.parametrize(("difference", "low", "high", "expected"), [
    (0.05, 0.01, 0.09, "distill"),
    (0.01, 0.001, 0.02, "distill"),  # exactly 1 % is enough
    (0.009, 0.001, 0.02, "undecided"),  # sure, but maybe too small to pay
    (0.05, 0.0, 0.1, "undecided"),  # the lower end must be above 0
    (0.05, -0.01, 0.11, "undecided"),
    (0.005, 0.004, 0.0099, "do not distill"),  # surely better, by less than 1 %
    (0.005, 0.0, 0.01, "undecided"),  # the upper end must be below 1 %
    (-0.05, -0.1, -0.01, "do not distill"),
])
def test_verdict(difference: float, low: float, high: float, expected: str) -> None:
    assert decide(comparison(difference, low, high)) == expected
    # the rule is relative to the control
    assert decide(comparison(difference * 0.04, low * 0.04, high * 0.04, control=0.04)) == expected


def test_verdict_with_a_control_that_never_hits_and_with_few_users() -> None:
    assert decide(comparison(0.01, 0.001, 0.02, control=0.0)) == "distill"
    assert decide(comparison(0.0, 0.0, 0.0, control=0.0)) == "do not distill"
    assert decide(comparison(0.5, 0.4, 0.6, n=9)) == "undecided"
    assert decide(comparison(0.5, 0.4, 0.6, n=10)) == "distill"


def test_gap_closed_only_where_there_is_a_gap() -> None:
    lead = comparison(0.2, 0.1, 0.3)
    assert gap_closed(1.15, 1.0, lead) == pytest.approx(0.75)
    assert gap_closed(1.3, 1.0, lead) == pytest.approx(1.5)
    assert gap_closed(0.9, 1.0, lead) == pytest.approx(-0.5)
    assert gap_closed(1.15, 1.0, comparison(0.2, 0.0, 0.3)) is None
    assert gap_closed(1.15, 1.0, comparison(-0.2, -0.3, -0.1)) is None


@pytest.mark.parametrize(("metric", "control", "difference", "low", "high", "expected"), [
    ("auc", 0.75, 0.004, 0.001, 0.007, "distill"),  # 1.6 % of the .25 above chance
    ("click.gauc", 0.75, 0.0024, 0.001, 0.004, "undecided"),  # .96 %
    ("auc", 0.75, 0.001, 0.0005, 0.002, "do not distill"),
    ("auc", 0.5, 0.001, 0.0005, 0.002, "distill"),  # no room above chance: any sure gain counts
    ("auc", 0.45, 0.0, -0.1, 0.0, "do not distill"),
    ("f1", 0.75, 0.004, 0.001, 0.007, "do not distill"),  # chance reaches nothing in particular
    ("log_loss", 0.4, -0.005, -0.009, -0.001, "distill"),  # less is better
    ("log_loss", 0.4, 0.005, 0.001, 0.009, "do not distill"),
    ("rating.rmse", 0.9, -0.005, -0.012, -0.001, "undecided"),
    ("calibration_error", 0.01, -0.002, -0.003, -0.001, "distill"),
])
def test_verdict_of_pointwise_metrics(
    metric: str, control: float, difference: float, low: float, high: float, expected: str
) -> None:
    assert decide(comparison(difference, low, high, control), metric) == expected


def test_gain_and_gap_have_the_sign_of_better() -> None:
    for one, metric, expected in ((comparison(-0.02, -0.04, -0.01, 0.4), "log_loss", (0.05, 0.025, 0.1)),
                                  (comparison(0.01, -0.02, 0.04, 0.7), "auc", (0.05, -0.1, 0.2))):
        middle, span = gain(one, metric)
        assert (middle, *span) == pytest.approx(expected)
    assert gain(comparison(0.01, -0.02, 0.04, 0.5), "auc") is None
    less = comparison(-0.2, -0.3, -0.1)
    assert gap_closed(0.85, 1.0, less, "rmse") == pytest.approx(0.75)
    assert gap_closed(0.85, 1.0, less, "auc") is None, "such a teacher is worse"
    assert gap_closed(1.15, 1.0, comparison(0.2, 0.1, 0.3), "rmse") is None
