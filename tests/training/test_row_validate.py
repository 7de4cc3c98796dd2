"""The metrics that select weights are those that the report gives."""

from __future__ import annotations

import numpy as np
import pytest

from distilrec.errors import RecipeError, TrainingError
from distilrec.evaluation import pointwise
from distilrec.training.row_validate import parse_row_metric, row_metric
from distilrec.types_rows import Head, Outputs

pytestmark = pytest.mark.req("A5")

HEADS = (Head("click"), Head("rating", "number"), Head("tags", "tags", ("a", "b", "c")))
OUTPUTS = Outputs(HEADS)


def answers(n: int = 300, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(predictions with ties, labels with gaps, groups)."""
    rng = np.random.default_rng(seed)
    predictions = rng.normal(size=(n, 5)).round(1).astype(np.float32)
    labels = (rng.random((n, 5)) < 1 / (1 + np.exp(-predictions))).astype(np.float32)
    labels[:, 1] = predictions[:, 1] + rng.normal(size=n)
    labels[rng.random(n) < 0.3, 1] = np.nan
    return predictions, labels, rng.integers(20, size=n).astype(np.int32)


@pytest.mark.parametrize("metric", ["click.auc", "click.gauc", "click.log_loss", "rating.rmse", "rating.mae"])
def test_they_agree_with_the_evaluation_room(metric: str) -> None:
    predictions, labels, groups = answers()
    column = {"click": 0, "rating": 1}[metric.split(".")[0]]
    known = ~np.isnan(labels[:, column])
    z, y = predictions[known, column], labels[known, column]
    function = getattr(pointwise, metric.split(".")[1])
    expected = function(z, y, groups[known]) if "gauc" in metric else function(z, y)
    assert row_metric(metric, OUTPUTS, predictions, labels, groups) == pytest.approx(expected, abs=1e-9)


def test_micro_f1_is_that_of_the_best_threshold() -> None:
    predictions, labels, _ = answers(120)
    z, y = predictions[:, 2:].ravel(), labels[:, 2:].ravel()
    best = 0.0
    for threshold in np.unique(z):
        chosen = z >= threshold
        best = max(best, 2 * (chosen & (y == 1)).sum() / (chosen.sum() + (y == 1).sum()))
    assert row_metric("micro_f1", Outputs((HEADS[2],)), predictions[:, 2:], labels[:, 2:]) == pytest.approx(best)


def test_without_a_head_it_is_the_mean_over_those_that_have_it() -> None:
    predictions, labels, _ = answers()
    both = row_metric("auc", OUTPUTS, predictions, labels)
    each = [row_metric(f"{head}.auc", OUTPUTS, predictions, labels) for head in ("click", "tags")]
    assert both == pytest.approx(np.mean(each))
    assert [head.name for head in parse_row_metric("auc", HEADS)[1]] == ["click", "tags"]


@pytest.mark.parametrize(("metric", "told"), [
    ("acu", "did you mean 'auc'"), ("clik.auc", "did you mean 'click'"), ("rating.auc", "no head has the metric"),
    ("ndcg@10", "cannot validate on"),
])
def test_a_metric_that_is_not_there_is_refused(metric: str, told: str) -> None:
    with pytest.raises(RecipeError, match=told):
        parse_row_metric(metric, HEADS)


def test_one_class_only_and_no_label_and_nan_are_told() -> None:
    predictions, labels, groups = answers()
    labels[:, 0] = 1
    with pytest.raises(TrainingError, match="all of one class"):
        row_metric("click.auc", OUTPUTS, predictions, labels)
    with pytest.raises(TrainingError, match="all of one class"):
        row_metric("click.gauc", OUTPUTS, predictions, labels, groups)
    labels[:, 1] = np.nan
    with pytest.raises(TrainingError, match="no validation row has a label"):
        row_metric("rating.rmse", OUTPUTS, predictions, labels)
    predictions[3, 0] = np.nan
    with pytest.raises(TrainingError, match="NaN"):
        row_metric("click.log_loss", OUTPUTS, predictions, labels)


@pytest.mark.parametrize("metric", ["click.auc", "tags.auc", "click.gauc", "click.log_loss", "rating.rmse",
                                    "rating.mae", "tags.micro_f1"])
def test_a_row_of_weight_3_counts_as_three(metric: str) -> None:
    predictions, labels, groups = answers()
    weights = np.random.default_rng(1).integers(0, 4, len(labels)).astype(np.float32)
    rows = np.repeat(np.arange(len(labels)), weights.astype(int) if "gauc" not in metric else 1)
    again = row_metric(metric, OUTPUTS, predictions[rows], labels[rows], groups[rows])
    assert row_metric(metric, OUTPUTS, predictions, labels, groups, weights) == pytest.approx(again, abs=1e-9)
    if metric != "tags.micro_f1" and metric != "tags.auc":  # of which evaluation has another definition
        room = pointwise.evaluate_rows(predictions, labels, groups, HEADS, weights=weights)
        assert room[metric] == pytest.approx(again, abs=1e-9)
