"""The validation metric of the pointwise tasks during training.

A handful of metrics, computed without the evaluation room; tests/training/test_row_validate.py holds them against it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from distilrec.errors import RecipeError, TrainingError, nearest, problem
from distilrec.training.settings import ROW_SELECTION_METRICS
from distilrec.types_rows import Head, Outputs

__all__ = ["parse_row_metric", "row_metric"]

_OF_KIND = {"auc": ("binary", "tags"), "gauc": ("binary",), "log_loss": ("binary", "tags"), "rmse": ("number",),
            "mae": ("number",), "micro_f1": ("tags", "binary")}


def parse_row_metric(metric: str, heads: tuple[Head, ...]) -> tuple[str, tuple[Head, ...]]:
    """(name, the heads it is averaged over) of "click.auc", or of "auc" for all heads that have it.

    Raises:
        RecipeError: not a metric, not a head, or a metric that the head does not have.
    """
    head_name, _, name = metric.rpartition(".")
    if name not in ROW_SELECTION_METRICS:
        raise RecipeError(problem(f"cannot validate on {metric!r}{nearest(name, ROW_SELECTION_METRICS)}",
                                  f"[head.]name, the name one of {', '.join(ROW_SELECTION_METRICS)}"))
    names = [head.name for head in heads]
    if head_name and head_name not in names:
        raise RecipeError(problem(f"metric {metric!r} names head {head_name!r}{nearest(head_name, names)}",
                                  ", ".join(names)))
    chosen = tuple(h for h in heads if h.kind in _OF_KIND[name] and (not head_name or h.name == head_name))
    if not chosen:
        kinds = ", ".join(f"{head.name} ({head.kind})" for head in heads)
        raise RecipeError(problem(f"no head has the metric {metric!r}: the heads are {kinds}",
                                  f"a head of kind {' or '.join(_OF_KIND[name])}"))
    return name, chosen


def row_metric(
    metric: str, outputs: Outputs, predictions: np.ndarray, labels: np.ndarray, groups: np.ndarray | None = None,
    weights: np.ndarray | None = None,
) -> float:
    """The metric from predictions float32 [n, O] (logits, values) and labels [n, O] (NaN where not observed).

    Without a head's name it is the mean over the heads that have it. `micro_f1` is that of the best threshold. weights
    [n]: how much each row counts, in all but `gauc`.

    Raises:
        TrainingError: no observed label, one class only, or predictions that are not finite.
    """
    name, heads = parse_row_metric(metric, outputs.heads)
    if not np.isfinite(predictions).all():
        raise TrainingError(problem("the model answers rows with NaN or infinite numbers", "finite numbers",
                                    "lower learning_rate, or set gradient_clip: 1.0"))
    values = []
    for head in heads:
        where = outputs.slices[head.name]
        z, y = predictions[:, where].astype(np.float64), labels[:, where]
        known = ~np.isnan(y)
        counts = None if weights is None else np.broadcast_to(weights.astype(np.float64)[:, None], y.shape)
        if not known.any():
            raise TrainingError(problem(f"no validation row has a label of {head.name!r}", "at least one of each class",
                                        "look at the counts that `distilrec prepare` printed"))
        if name == "gauc":
            value = _gauc(z[:, 0], y[:, 0], groups)
        elif name == "auc":  # tags: the mean over the classes that have both
            each = [_auc(z[k, c], y[k, c]) if counts is None else _weighted_auc(z[k, c], y[k, c], counts[k, c])
                    for c, k in enumerate(known.T)]
            value = float(np.nanmean(each)) if not np.isnan(each).all() else np.nan
        else:
            value = _SIMPLE[name](z[known], y[known], None if counts is None else counts[known])
        if np.isnan(value):
            raise TrainingError(problem(f"{name} of {head.name!r} on validation: the labels are all of one class",
                                        "both classes", "choose another split, or validate on log_loss"))
        values.append(value)
    return float(np.mean(values))


def _auc(z: np.ndarray, y: np.ndarray) -> float:
    """The share of (positive, negative) pairs in the right order, ties one half; NaN for one class only."""
    positive = y > 0.5
    n, m = int(positive.sum()), int((~positive).sum())
    if not n or not m:
        return float("nan")
    _, place, counts = np.unique(z, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(counts) - (counts - 1) / 2)[place]
    return float((ranks[positive].sum() - n * (n + 1) / 2) / (n * m))


def _weighted_auc(z: np.ndarray, y: np.ndarray, w: np.ndarray) -> float:
    """The same of weighted pairs; NaN where one class has no weight."""
    positive = y > 0.5
    values, place = np.unique(z, return_inverse=True)
    above, below = (np.bincount(place[side], w[side], len(values)) for side in (positive, ~positive))
    pairs = above.sum() * below.sum()
    return float((above * (np.cumsum(below) - below / 2)).sum() / pairs) if pairs > 0 else float("nan")


def _gauc(z: np.ndarray, y: np.ndarray, groups: np.ndarray | None) -> float:
    """AUC within each group, weighted by its rows; groups of one class say nothing (Zhu et al., KDD 2017)."""
    if groups is None:
        raise RecipeError(problem("gauc needs groups", "the key `group`: the column of the user or the request",
                                  "name it in the recipe, or validate on auc"))
    known = ~np.isnan(y)
    z, y, groups = z[known], y[known], groups[known]
    order = np.argsort(groups, kind="stable")
    edges = np.flatnonzero(np.diff(groups[order])) + 1
    pairs = [(_auc(z[rows], y[rows]), len(rows)) for rows in np.split(order, edges)]
    pairs = [(value, size) for value, size in pairs if not np.isnan(value)]
    return float(np.average([v for v, _ in pairs], weights=[n for _, n in pairs])) if pairs else float("nan")


def _log_loss(z: np.ndarray, y: np.ndarray, w: np.ndarray | None) -> float:
    return _mean(np.logaddexp(0, z) - y * z, w)


def _rmse(z: np.ndarray, y: np.ndarray, w: np.ndarray | None) -> float:
    return float(np.sqrt(_mean(np.square(z - y), w)))


def _mae(z: np.ndarray, y: np.ndarray, w: np.ndarray | None) -> float:
    return _mean(np.abs(z - y), w)


def _mean(values: np.ndarray, w: np.ndarray | None) -> float:
    if w is None:
        return float(values.mean())
    return float(np.average(values, weights=w)) if w.sum() > 0 else float("nan")


def _micro_f1(z: np.ndarray, y: np.ndarray, w: np.ndarray | None) -> float:
    """The best F1 that one threshold for all classes reaches."""
    order = np.argsort(-z, kind="stable")
    w = np.ones(len(z)) if w is None else w
    hits, said = np.cumsum((w * y)[order]), np.cumsum(w[order])
    f1 = 2 * hits / np.maximum(said + max(1e-9, hits[-1]), 1e-9)
    last_of_tie = np.append(np.diff(z[order]) != 0, True)
    return float(f1[last_of_tie].max())


_SIMPLE: dict[str, Callable[[np.ndarray, np.ndarray, np.ndarray | None], float]] = {
    "log_loss": _log_loss, "rmse": _rmse, "mae": _mae, "micro_f1": _micro_f1,
}
