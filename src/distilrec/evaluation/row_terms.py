"""Pointwise metrics as sums over rows, so that a value and its bootstrap come from one definition.

Almost every metric of rows is a function of a few sums: log loss of two (losses, rows), F1 of three (true positives,
false positives, false negatives). `Terms` holds what each row adds to those sums. Weighting or repeating rows is then
one matrix product, which is what makes a thousand resamples cheap. Only the AUC over all rows is not of this kind.

z are predictions (logits, or values of a number head), y labels; NaN in y was not observed and adds nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

__all__ = [
    "BINS", "Terms", "bins_of", "binary_terms", "group_auc", "number_terms", "probability", "tag_terms",
    "threshold_terms",
]

BINS = 15  # of the calibration error and its curve


class Terms(NamedTuple):
    """sums float64 [n, K]: what each row adds; finish: sums [..., K] -> metric [...], NaN where undefined."""

    sums: np.ndarray
    finish: Callable[[np.ndarray], np.ndarray]

    def of(self, weights: np.ndarray | None = None) -> np.ndarray:
        """The metric with rows weighted by `weights` [..., n]; a single number without them."""
        totals = self.sums.sum(axis=0) if weights is None else weights @ self.sums
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.asarray(self.finish(totals))

    def counted(self, counts: np.ndarray) -> Terms:
        """The same metric where row i stands for counts[i] rows, float [n]."""
        return Terms(self.sums * counts[:, None], self.finish)


def probability(logits: np.ndarray) -> np.ndarray:
    """float64: 1 / (1 + exp(-z)), without overflow."""
    return np.exp(-np.logaddexp(0.0, -np.asarray(logits, dtype=np.float64)))


def binary_terms(z: np.ndarray, y: np.ndarray, groups: np.ndarray | None = None) -> dict[str, Terms]:
    """Metrics of one binary column that need no threshold, but the AUC. z, y [n] (or flattened tags)."""
    known, p = ~np.isnan(y), probability(z)
    loss = np.logaddexp(0.0, z.astype(np.float64)) - np.nan_to_num(y) * z
    terms = {}
    if groups is not None:
        aucs, inverse, counts = group_auc(z, y, groups)
        mine = aucs[inverse]
        defined = known & ~np.isnan(mine)
        # each row of a group carries its AUC: the mean over rows weighs groups by rows, over rows / size by one each
        terms["gauc"] = _terms(defined, mine)
        share = 1.0 / np.maximum(counts[inverse], 1)
        terms["uauc"] = Terms(_columns(defined, mine * share, share), _ratio)
    return terms | {
        "log_loss": _terms(known, loss),
        "normalized_entropy": Terms(_columns(known, loss, y, 1.0), _normalized_entropy),
        "calibration_error": _calibration_error(p, y, known),
        **_level_terms(p, y, known),
    }


def threshold_terms(z: np.ndarray, y: np.ndarray, threshold: float) -> dict[str, Terms]:
    """accuracy, precision, recall and f1 of one binary column, predicted positive where z >= threshold."""
    known, positive, predicted = ~np.isnan(y), y == 1, z >= threshold
    counts = _columns(known, positive & predicted, predicted & ~positive, positive & ~predicted)
    return {
        "accuracy": _terms(known, positive == predicted),
        "precision": Terms(counts, _precision), "recall": Terms(counts, _recall), "f1": Terms(counts, _f1),
    }


def number_terms(z: np.ndarray, y: np.ndarray) -> dict[str, Terms]:
    """rmse, mae and level of one number column."""
    known, error = ~np.isnan(y), z.astype(np.float64) - y
    return {
        "rmse": Terms(_columns(known, error**2, 1.0), lambda s: np.sqrt(_ratio(s))),
        "mae": _terms(known, np.abs(error)), **_level_terms(z, y, known),
    }


def tag_terms(z: np.ndarray, y: np.ndarray, thresholds: np.ndarray | None, k: Sequence[int]) -> dict[str, Terms]:
    """Metrics of a tags head. z, y [n, C]; thresholds [C]; cuts k.

    Macro means are over the classes that occur among the labels. hit@k, precision@k: over rows with a true tag; of
    equal scores the earlier class counts as the higher; classes that were not observed are not ranked.
    """
    n, classes = y.shape
    known, positive = ~np.isnan(y), y == 1
    p = probability(z)
    cells = np.logaddexp(0.0, z.astype(np.float64)) - np.nan_to_num(y) * z
    flat_error = _calibration_error(p.ravel(), y.ravel(), known.ravel())
    error = Terms(flat_error.sums.reshape(n, classes, -1).sum(axis=1), flat_error.finish)
    totals = np.where(known, p, 0.0).sum(1), np.nan_to_num(y).sum(1, dtype=np.float64), known.sum(1)
    terms = {
        "log_loss": Terms(np.stack([np.where(known, cells, 0.0).sum(1), totals[2]], 1), _ratio),
        "calibration_error": error,
        "mean_prediction": Terms(np.stack([totals[0], totals[2]], 1), _ratio),
        "calibration_ratio": Terms(np.stack(totals[:2], 1), _ratio),
    }
    if thresholds is not None:
        predicted = (z >= thresholds) & known
        counts = np.concatenate([positive & predicted, predicted & ~positive, positive & ~predicted], 1).astype(float)
        for name, finish in (("precision", _precision), ("recall", _recall), ("f1", _f1)):
            terms[f"micro_{name}"] = Terms(counts, _micro(finish, classes))
            terms[f"macro_{name}"] = Terms(counts, _macro(finish, classes))
    order = np.argsort(np.where(known, -z, np.inf), axis=1, kind="stable")
    ranked, some = np.take_along_axis(positive, order, axis=1), positive.any(1)
    for cut in (cut for cut in k if cut < classes):
        found = ranked[:, :cut].sum(1)
        terms[f"hit@{cut}"] = _terms(some, found > 0)
        terms[f"precision@{cut}"] = _terms(some, found / cut)
    return terms


def group_auc(z: np.ndarray, y: np.ndarray, groups: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The AUC inside each group: (aucs [G], group of each row [n], observed rows [G]); NaN for groups of one class."""
    names, inverse = np.unique(groups, return_inverse=True)
    size, rows = len(names), np.flatnonzero(~np.isnan(y))
    rows = rows[np.lexsort((z[rows], inverse[rows]))]
    if len(rows) == 0:
        return np.full(size, np.nan), inverse, np.zeros(size)
    group, score, positive = inverse[rows], z[rows], (y[rows] == 1).astype(np.float64)
    starts = np.flatnonzero(np.r_[True, (group[1:] != group[:-1]) | (score[1:] != score[:-1])])  # blocks of ties
    above, below = np.add.reduceat(positive, starts), np.add.reduceat(1.0 - positive, starts)
    positives, negatives = (np.bincount(group[starts], side, size) for side in (above, below))
    earlier = np.cumsum(negatives) - negatives  # negatives of the groups before
    beaten = np.cumsum(below) - below / 2 - earlier[group[starts]]
    won = np.bincount(group[starts], above * beaten, size)
    pairs = positives * negatives
    return np.divide(won, pairs, out=np.full(size, np.nan), where=pairs > 0), inverse, positives + negatives


def bins_of(p: np.ndarray, bins: int = BINS) -> np.ndarray:
    """int64 [n]: bins of equal numbers of rows by rising prediction; equal predictions share a bin."""
    order = np.sort(p)
    return np.searchsorted(order, p, side="left") * bins // max(len(p), 1)


def _calibration_error(p: np.ndarray, y: np.ndarray, known: np.ndarray) -> Terms:
    """Of bins that stay as they are on all rows, whatever the weights."""
    sums = np.zeros((len(p), BINS + 1))
    rows = np.flatnonzero(known)
    sums[rows, bins_of(p[rows])] = p[rows] - y[rows]
    sums[rows, BINS] = 1.0
    return Terms(sums, lambda s: np.abs(s[..., :BINS]).sum(-1) / s[..., BINS])


def _level_terms(values: np.ndarray, y: np.ndarray, known: np.ndarray) -> dict[str, Terms]:
    return {"mean_prediction": _terms(known, values),
            "calibration_ratio": Terms(_columns(known, values, y), _ratio)}


def _terms(known: np.ndarray, values: np.ndarray) -> Terms:
    """The mean of `values` over the known rows."""
    return Terms(_columns(known, values, 1.0), _ratio)


def _columns(known: np.ndarray, *values: np.ndarray | float) -> np.ndarray:
    return np.stack([np.where(known, np.asarray(value, dtype=np.float64), 0.0) for value in values], axis=1)


def _ratio(s: np.ndarray) -> np.ndarray:
    return np.asarray(np.where(s[..., 1] != 0, s[..., 0] / s[..., 1], np.nan))


def _normalized_entropy(s: np.ndarray) -> np.ndarray:
    rate = s[..., 1] / s[..., 2]
    entropy = -(rate * np.log(rate) + (1 - rate) * np.log1p(-rate))
    return np.asarray(s[..., 0] / s[..., 2] / entropy)


def _precision(s: np.ndarray) -> np.ndarray:
    """0 where nothing was predicted positive, NaN where nothing is positive, as the two below."""
    predicted = s[..., 0] + s[..., 1]
    value = np.where(predicted > 0, s[..., 0] / np.where(predicted > 0, predicted, 1.0), 0.0)
    return np.where(s[..., 0] + s[..., 2] > 0, value, np.nan)


def _recall(s: np.ndarray) -> np.ndarray:
    positives = s[..., 0] + s[..., 2]
    return np.where(positives > 0, s[..., 0] / positives, np.nan)


def _f1(s: np.ndarray) -> np.ndarray:
    value = 2 * s[..., 0] / (2 * s[..., 0] + s[..., 1] + s[..., 2])
    return np.where(s[..., 0] + s[..., 2] > 0, value, np.nan)


def _micro(finish: Callable[[np.ndarray], np.ndarray], classes: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda s: finish(s.reshape(*s.shape[:-1], 3, classes).sum(-1))


def _macro(finish: Callable[[np.ndarray], np.ndarray], classes: int) -> Callable[[np.ndarray], np.ndarray]:
    def mean(s: np.ndarray) -> np.ndarray:
        each = finish(np.moveaxis(s.reshape(*s.shape[:-1], 3, classes), -2, -1))
        some = ~np.isnan(each)
        return np.where(some.any(-1), np.where(some, each, 0.0).sum(-1) / some.sum(-1), np.nan)
    return mean
