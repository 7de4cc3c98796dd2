"""Pointwise metrics: how good are the numbers that a model gives to rows (predict and tag tasks).

Predictions are logits for binary and tags heads and values for number heads, as `Predictor.predict` gives them; labels
are 0 or 1 (or values), NaN where not observed, and such cells are left out everywhere. A metric that the labels do
not define (an AUC of one class, ...) is NaN, never an error. A metric is named `[head.]metric[@k]`, without the head
where there is only one.

A table whose rows were drawn with unequal chances has a weight for each row. Metrics are then those of the whole that
the rows stand for: means over rows are weighted, the AUC counts weighted pairs. gauc and uauc alone take rows as they
are: a chance that depends on the label alone changes no order. Bins of the calibration error hold as many rows each.

    auc, gauc, uauc          order: over all rows; inside each group, weighted by rows; the same, each group once
    log_loss, normalized_entropy    the probabilities themselves; the second in units of the base rate's entropy
    calibration_error, calibration_ratio, mean_prediction     does 0.2 happen in 20 of 100 cases?
    accuracy, precision, recall, f1         decisions at a threshold chosen on validation; tags: micro_ and macro_
    hit@k, precision@k       tags: the k highest classes of a row
    rmse, mae                numbers
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from distilrec.errors import DataError, problem
from distilrec.evaluation.row_terms import (
    BINS,
    Terms,
    binary_terms,
    bins_of,
    number_terms,
    probability,
    tag_terms,
    threshold_terms,
)
from distilrec.types_rows import Head, Outputs

__all__ = [
    "CHANCE", "LOWER", "NEUTRAL", "UNWEIGHTED", "Ranked", "Statistic", "auc", "base_name", "calibration_curve",
    "calibration_error", "check_rows", "choose_threshold", "choose_thresholds", "evaluate_classes", "evaluate_rows",
    "gauc", "log_loss", "mae", "metric_names", "normalized_entropy", "probability", "rmse", "row_statistics", "uauc",
]

LOWER = frozenset({"log_loss", "normalized_entropy", "rmse", "mae", "calibration_error"})  # lower is better
NEUTRAL = frozenset({"mean_prediction", "calibration_ratio"})  # best at a value, so neither
UNWEIGHTED = frozenset({"gauc", "uauc"})  # of rows as they are, whatever their weights
CHANCE = {"auc": 0.5, "gauc": 0.5, "uauc": 0.5}  # what guessing reaches; elsewhere 0

Thresholds = Mapping[str, Any]  # head -> logit, or one for each class of tags


class Ranked:
    """The AUC over all rows: sorted once, then O(n) for any weights.

    The share of (positive, negative) pairs in which the positive is scored higher, ties counted half.
    """

    def __init__(self, scores: np.ndarray, labels: np.ndarray) -> None:
        positive, negative = (rows[np.argsort(scores[rows], kind="stable")] for rows in (
            np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)))
        self.positive, self.negative = positive, negative  # rows by rising score
        # how many negatives are below each positive, and how many are not above it
        self.below, self.upto = (np.searchsorted(scores[negative], scores[positive], side=side)
                                 for side in ("left", "right"))  # type: ignore[call-overload]
        self.tied = bool((self.below != self.upto).any())
        self.counts: tuple[np.ndarray, np.ndarray] | None = None  # of positives and negatives; one each without

    def counted(self, counts: np.ndarray) -> Ranked:
        """The same where row i stands for counts[i] rows, float [n]; to be called before `through`."""
        other = copy.copy(self)
        other.counts = counts[self.positive], counts[self.negative]
        return other

    def through(self, groups: np.ndarray) -> Ranked:
        """The same, to be asked with a weight for each group [G] instead of each row."""
        other = copy.copy(self)
        other.positive, other.negative = groups[self.positive], groups[self.negative]
        return other

    def of(self, weights: np.ndarray | None = None) -> np.ndarray:
        """The AUC with rows weighted by `weights` [..., n]; a single number without them."""
        if weights is None:
            weights = np.ones(1 + max(self.positive.max(initial=0), self.negative.max(initial=0)))
        above, below = weights[..., self.positive], weights[..., self.negative]
        if self.counts is not None:
            above, below = above * self.counts[0], below * self.counts[1]
        beaten = np.zeros((*below.shape[:-1], below.shape[-1] + 1))
        np.cumsum(below, axis=-1, out=beaten[..., 1:])
        won = np.einsum("...i,...i->...", above, beaten[..., self.below])
        if self.tied:
            won = (won + np.einsum("...i,...i->...", above, beaten[..., self.upto])) / 2
        pairs = above.sum(-1) * beaten[..., -1]
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(np.where(pairs > 0, won / pairs, np.nan))


Statistic = Terms | Ranked


def auc(scores: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Area under the ROC curve, the chance that a positive is scored above a negative. All arguments [n]."""
    return float(Ranked(scores, labels).of(weights))


def gauc(scores: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> float:
    """AUC inside each group, averaged by the group's rows; groups of one class are left out.

    Zhu et al., Optimized Cost per Click in Taobao Display Advertising, KDD 2017.
    """
    return _one(binary_terms(scores, labels, groups)["gauc"])


def uauc(scores: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> float:
    """AUC inside each group, averaged with every group alike; groups of one class are left out."""
    return _one(binary_terms(scores, labels, groups)["uauc"])


def log_loss(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean negative log-likelihood in nats, computed from logits: finite however sure the model is."""
    return _one(binary_terms(logits, labels)["log_loss"])


def normalized_entropy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Log loss divided by that of always predicting the base rate; 1 is useless, 0 perfect.

    He et al., Practical Lessons from Predicting Clicks on Ads at Facebook, ADKDD 2014.
    """
    return _one(binary_terms(logits, labels)["normalized_entropy"])


def calibration_error(logits: np.ndarray, labels: np.ndarray) -> float:
    """Expected calibration error: mean distance of predicted and observed rate over 15 bins of equal numbers of rows.

    Naeini et al., AAAI 2015, with bins of equal mass (Nguyen and O'Connor, EMNLP 2015), since click rates crowd near 0.
    """
    return _one(binary_terms(logits, labels)["calibration_error"])


def rmse(values: np.ndarray, labels: np.ndarray) -> float:
    """Root of the mean squared error."""
    return _one(number_terms(values, labels)["rmse"])


def mae(values: np.ndarray, labels: np.ndarray) -> float:
    """Mean absolute error."""
    return _one(number_terms(values, labels)["mae"])


def calibration_curve(
    predicted: np.ndarray, labels: np.ndarray, bins: int = BINS, weights: np.ndarray | None = None
) -> list[dict[str, float]]:
    """[{"prediction", "label", "rows"}] of bins by rising prediction: mean predicted, mean observed, number of rows.

    predicted: probabilities or values, any shape, as `labels` and, for weighted means, `weights`.
    """
    known = ~np.isnan(labels)
    p, y = predicted[known].astype(np.float64), labels[known].astype(np.float64)
    which, w = bins_of(p, bins), np.ones(len(p)) if weights is None else weights[known].astype(np.float64)
    rows, mass, sums, hits = (np.bincount(which, one, bins) for one in (np.ones(len(p)), w, w * p, w * y))
    return [{"prediction": float(sums[i] / mass[i]), "label": float(hits[i] / mass[i]), "rows": int(rows[i])}
            for i in np.flatnonzero(mass)]


def choose_threshold(predictions: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> float:
    """The logit from which F1 (of weighted rows) is highest when everything at or above it is called positive.

    Between two predictions, so that a rounding error of either decides nothing; the highest of equal ones. Without a
    positive label there is nothing to choose by: 0, a probability of one half.
    """
    known = ~np.isnan(labels)
    z, y = predictions[known].astype(np.float64), labels[known] == 1
    w = np.ones(len(y)) if weights is None else weights[known].astype(np.float64)
    if not (y & (w > 0)).any():
        return 0.0
    order = np.argsort(-z, kind="stable")
    z, found, said = z[order], np.cumsum((y * w)[order]), np.cumsum(w[order])
    ends = np.flatnonzero(np.r_[z[1:] != z[:-1], True])
    best = int(np.argmax(2 * found[ends] / (said[ends] + found[-1])))
    end = ends[best]
    return float(z[end] if end + 1 == len(z) else (z[end] + z[end + 1]) / 2)


def choose_thresholds(
    predictions: np.ndarray, labels: np.ndarray, heads: Sequence[Head], *, by_class: bool = True,
    weights: np.ndarray | None = None,
) -> dict[str, Any]:
    """`choose_threshold` of every binary and tags head: {head: logit, or [C] logits of tags}.

    by_class: one threshold for each class; a class without a positive label has the one of all classes together,
        which is every class's if False.
    weights: [n], how much each row counts.
    """
    outputs = Outputs(tuple(heads))
    chosen: dict[str, Any] = {}
    for head in heads:
        z, y = predictions[:, outputs.slices[head.name]], labels[:, outputs.slices[head.name]]
        if head.kind == "binary":
            chosen[head.name] = choose_threshold(z[:, 0], y[:, 0], weights)
        elif head.kind == "tags":
            common = choose_threshold(z.ravel(), y.ravel(), None if weights is None else weights.repeat(z.shape[1]))
            chosen[head.name] = np.array([
                choose_threshold(z[:, c], y[:, c], weights) if by_class and (y[:, c] == 1).any() else common
                for c in range(z.shape[1])])
    return chosen


def row_statistics(
    predictions: np.ndarray, labels: np.ndarray, groups: np.ndarray | None, heads: Sequence[Head],
    thresholds: Thresholds | None = None, *, k: Sequence[int] = (1, 3, 5), weights: np.ndarray | None = None,
) -> dict[str, Statistic]:
    """Every metric of `evaluate_rows` as something that can be asked again with other draws of the rows."""
    outputs, found = Outputs(tuple(heads)), {}
    for head in heads:
        z, y = predictions[:, outputs.slices[head.name]], labels[:, outputs.slices[head.name]]
        cut = None if thresholds is None else thresholds.get(head.name)
        of_head: dict[str, Statistic] = {}
        if head.kind == "tags":
            of_head.update(tag_terms(z, y, None if cut is None else np.broadcast_to(cut, z.shape[1]), k))
        elif head.kind == "number":
            of_head.update(number_terms(z[:, 0], y[:, 0]))
        else:
            of_head["auc"] = Ranked(z[:, 0], y[:, 0])
            of_head.update(binary_terms(z[:, 0], y[:, 0], groups))
            if cut is not None:
                of_head.update(threshold_terms(z[:, 0], y[:, 0], cut))
        prefix = f"{head.name}." if len(heads) > 1 else ""
        found.update({prefix + name: one for name, one in _counted(of_head, weights).items()})
    return found


def evaluate_rows(
    predictions: np.ndarray, labels: np.ndarray, groups: np.ndarray | None, heads: Sequence[Head],
    thresholds: Thresholds | None = None, *, k: Sequence[int] = (1, 3, 5), weights: np.ndarray | None = None,
) -> dict[str, float]:
    """Every metric of one model.

    Args:
        predictions: float32 [n, O]; labels: float32 [n, O]; groups: int32 [n], or None for no GAUC and UAUC.
        thresholds: head -> logit, of `choose_thresholds` on validation; without them no decisions are measured.
        k: cuts of hit@k and precision@k; those not below the number of classes are left out.
        weights: float [n], how many rows each row stands for (all but GAUC and UAUC), or None for one each.
    Raises:
        DataError: shapes that do not fit, predictions that are not finite, binary labels other than 0 and 1.
    """
    check_rows(predictions, labels, groups, heads)
    found = row_statistics(predictions, labels, groups, heads, thresholds, k=k, weights=weights)
    return {name: _one(one) for name, one in found.items()}


def metric_names(heads: Sequence[Head], grouped: bool, k: Sequence[int] = (1, 3, 5)) -> list[str]:
    """The names of all that `evaluate_rows` measures for these heads, with or without groups."""
    nothing = np.zeros((1, Outputs(tuple(heads)).size))
    cuts = {head.name: 0.0 for head in heads if head.kind != "number"}
    return list(row_statistics(nothing, nothing, np.zeros(1, np.int32) if grouped else None, heads, cuts, k=k))


def evaluate_classes(
    predictions: np.ndarray, labels: np.ndarray, heads: Sequence[Head], thresholds: Thresholds | None = None,
    weights: np.ndarray | None = None,
) -> dict[str, dict[str, float]]:
    """The metrics of every class of the tags heads: {"head: class": {"[head.]auc": ..., "[head.]f1": ...}}."""
    outputs, found = Outputs(tuple(heads)), {}
    for head in heads:
        prefix = f"{head.name}." if len(heads) > 1 else ""
        for c, name in enumerate(head.classes if head.kind == "tags" else ()):
            column = outputs.slices[head.name].start + c
            z, y = predictions[:, column], labels[:, column]
            values: dict[str, Statistic] = {"auc": Ranked(z, y), **binary_terms(z, y)}
            if thresholds is not None and head.name in thresholds:
                cut = np.broadcast_to(thresholds[head.name], len(head.classes))[c]
                values.update(threshold_terms(z, y, cut))
            found[f"{head.name}: {name}"] = {
                prefix + key: _one(one) for key, one in _counted(values, weights).items()}
    return found


def check_rows(
    predictions: np.ndarray, labels: np.ndarray, groups: np.ndarray | None, heads: Sequence[Head], name: str = "a model"
) -> None:
    """Raise DataError for arrays that do not fit each other, or that hold what no metric can read."""
    outputs = Outputs(tuple(heads))
    wanted = (len(labels), outputs.size)
    if predictions.shape != wanted or labels.shape != wanted or (groups is not None and groups.shape != wanted[:1]):
        raise DataError(problem(
            f"{name}: predictions {predictions.shape}, labels {labels.shape}, groups {getattr(groups, 'shape', None)}",
            f"one row each and {outputs.size} outputs", "predict the very rows that the labels are of"))
    if not np.isfinite(predictions).all():
        row, column = np.argwhere(~np.isfinite(predictions))[0]
        raise DataError(problem(f"{name}: prediction {predictions[row, column]} in row {row}, output {column}",
                                "finite logits or values", "train it again with a lower learning rate"))
    for head in heads:
        y = labels[:, outputs.slices[head.name]]
        wrong = y[~np.isnan(y) & (y != 0) & (y != 1)] if head.kind != "number" else y[np.isinf(y)]
        if len(wrong):
            raise DataError(problem(f"label {wrong[0]} of head {head.name!r}", "0, 1 or not observed (NaN)"
                                    if head.kind != "number" else "a finite number", "mend the labels of the recipe"))


def base_name(metric: str) -> str:
    """
    >>> base_name("click.auc"), base_name("tags.hit@3")
    ('auc', 'hit')
    """
    return metric.rpartition(".")[2].partition("@")[0]


def _counted(statistics: Mapping[str, Statistic], weights: np.ndarray | None) -> dict[str, Statistic]:
    """Statistics of one head with the weights of the rows, where there are any and the metric takes them."""
    if weights is None:
        return dict(statistics)
    counts = weights.astype(np.float64)
    return {name: one if name in UNWEIGHTED else one.counted(counts) for name, one in statistics.items()}


def _one(statistic: Statistic) -> float:
    return float(statistic.of())
