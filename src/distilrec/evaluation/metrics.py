"""Ranking metrics: one float64 value per query, so that every difference can be tested over users.

All functions of `METRICS` share one signature:

    metric(recommended int32 [Q, >= k], targets int32 [sum], offsets int64 [Q + 1], k) -> float64 [Q]

Row q of `recommended` is best first, -1 where the list ended early; the targets of query q are
`targets[offsets[q]:offsets[q + 1]]`, taken as a set. A query without targets has no answer and gets NaN:
it keeps its place, so that two models stay aligned, and is left out of means.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from distilrec.errors import DataError, nearest, problem
from distilrec.types import Part, Recommendations, Split

__all__ = [
    "METRICS",
    "average_precision",
    "evaluate_groups",
    "evaluate_lists",
    "f1",
    "hit_rate",
    "hits",
    "mrr",
    "ndcg",
    "precision",
    "recall",
    "tail_items",
]

Metric = Callable[[np.ndarray, np.ndarray, np.ndarray, int], np.ndarray]


def hits(recommended: np.ndarray, targets: np.ndarray, offsets: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """(bool [Q, k] where a target stands, int64 [Q] number of distinct targets).

    Raises DataError for lists shorter than k, offsets that do not fit, or an item twice in one list (it would
    count twice).
    """
    if k < 1 or recommended.ndim != 2 or recommended.shape[1] < k:
        raise DataError(problem(
            f"lists of shape {recommended.shape} for a metric at {k}", "at least k >= 1 items per list",
            "rank with a larger k, or measure at a smaller one",
        ))
    n = len(recommended)
    if len(offsets) != n + 1 or offsets[0] != 0 or offsets[-1] != len(targets):
        raise DataError(problem(
            f"{n} lists, {len(offsets)} offsets, {len(targets)} targets", "Q lists, Q + 1 offsets from 0 to the end",
            "take lists and targets from the same queries",
        ))
    top = recommended[:, :k].astype(np.int64)
    width = int(max(top.max(initial=0), targets.max(initial=0))) + 1
    # (query, item) as one number, so that all queries are looked up in one sorted array
    wanted = np.unique(np.repeat(np.arange(n, dtype=np.int64), np.diff(offsets)) * width + targets)
    counts = np.bincount(wanted // width, minlength=n)
    if len(wanted) == 0:
        return np.zeros((n, k), dtype=bool), counts
    keys = np.arange(n, dtype=np.int64)[:, None] * width + top
    place = np.minimum(np.searchsorted(wanted, keys), len(wanted) - 1)
    found = (wanted[place] == keys) & (top >= 0)
    # only a list with more hits than targets, or with a repeated hit, can cheat; look at hits alone, they are few
    flat = np.sort(keys[found])
    if (flat[1:] == flat[:-1]).any():
        raise DataError(problem(
            "an item occurs twice in one list of recommendations", "distinct items per list",
            "drop the duplicates before measuring",
        ))
    return found, counts


def _share(numerator: np.ndarray, denominator: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """numerator / denominator, 0 where both are 0, NaN for queries without targets."""
    value = np.divide(numerator, denominator, out=np.zeros(len(counts)), where=denominator > 0)
    return np.where(counts > 0, value, np.nan)


def hit_rate(recommended: np.ndarray, targets: np.ndarray, offsets: np.ndarray, k: int) -> np.ndarray:
    """1 if any target is among the first k, else 0."""
    found, counts = hits(recommended, targets, offsets, k)
    return np.where(counts > 0, found.any(axis=1).astype(np.float64), np.nan)


def recall(recommended: np.ndarray, targets: np.ndarray, offsets: np.ndarray, k: int) -> np.ndarray:
    """Share of the targets that are among the first k."""
    found, counts = hits(recommended, targets, offsets, k)
    return _share(found.sum(axis=1), counts, counts)


def precision(recommended: np.ndarray, targets: np.ndarray, offsets: np.ndarray, k: int) -> np.ndarray:
    """Share of the k places that hold a target (k is the divisor also when the list ended early)."""
    found, counts = hits(recommended, targets, offsets, k)
    return np.where(counts > 0, found.sum(axis=1) / k, np.nan)


def f1(recommended: np.ndarray, targets: np.ndarray, offsets: np.ndarray, k: int) -> np.ndarray:
    """Harmonic mean of precision and recall at k, per query: 2 hits / (k + targets)."""
    found, counts = hits(recommended, targets, offsets, k)
    return np.where(counts > 0, 2.0 * found.sum(axis=1) / (k + counts), np.nan)


def ndcg(recommended: np.ndarray, targets: np.ndarray, offsets: np.ndarray, k: int) -> np.ndarray:
    """Sum of 1 / log2(rank + 1) over the hits, divided by its best possible value (binary relevance).

    Järvelin and Kekäläinen, ACM TOIS 2002.
    """
    found, counts = hits(recommended, targets, offsets, k)
    discount = 1.0 / np.log2(np.arange(2, k + 2))
    ideal = np.concatenate([[0.0], np.cumsum(discount)])[np.minimum(counts, k)]
    return _share(found @ discount, ideal, counts)


def mrr(recommended: np.ndarray, targets: np.ndarray, offsets: np.ndarray, k: int) -> np.ndarray:
    """1 / rank of the first hit, 0 without a hit among the first k (Voorhees, TREC 1999)."""
    found, counts = hits(recommended, targets, offsets, k)
    value = np.where(found.any(axis=1), 1.0 / (found.argmax(axis=1) + 1), 0.0)
    return np.where(counts > 0, value, np.nan)


def average_precision(recommended: np.ndarray, targets: np.ndarray, offsets: np.ndarray, k: int) -> np.ndarray:
    """Precision at the rank of each hit, summed and divided by the number of targets; its mean is MAP.

    The divisor is that of trec_eval's map_cut: all targets, also when they are more than k.
    """
    found, counts = hits(recommended, targets, offsets, k)
    ranks = np.arange(1, k + 1)
    total = (np.cumsum(found, axis=1) / ranks * found).sum(axis=1)
    return _share(total, counts, counts)


METRICS: dict[str, Metric] = {
    "ndcg": ndcg,
    "hit_rate": hit_rate,
    "recall": recall,
    "precision": precision,
    "f1": f1,
    "mrr": mrr,
    "map": average_precision,
}


def evaluate_lists(
    recommendations: Recommendations,
    split: Split,
    part: Part,
    k: Sequence[int] = (10, 20),
    metrics: Sequence[str] | None = None,
) -> dict[str, np.ndarray]:
    """{"ndcg@10": float64 [Q], ...}: every metric at every k, one value per query of `split.queries(part)`.

    Raises DataError for an unknown metric, lists shorter than the largest k, or lists of other queries.
    """
    targets, offsets = _targets(recommendations, split, part)
    return {
        f"{name}@{cut}": METRICS[name](recommendations.items, targets, offsets, cut)
        for cut in k for name in _known(metrics)
    }


def evaluate_groups(
    recommendations: Recommendations,
    split: Split,
    part: Part,
    k: Sequence[int] = (10, 20),
    metrics: Sequence[str] | None = ("ndcg", "recall"),
    share: float = 0.2,
) -> dict[str, dict[str, np.ndarray]]:
    """{"head": {metric@k: float64 [Q]}, "tail": {...}}: the same lists, but only targets of the group count.

    NaN where a query has no target in the group. `share` as in `tail_items`.
    """
    targets, offsets = _targets(recommendations, split, part)
    tail = tail_items(split.train_counts, share)
    owner = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    groups: dict[str, dict[str, np.ndarray]] = {}
    for group, members in (("head", ~tail), ("tail", tail)):
        inside = members[targets]
        counts = np.bincount(owner[inside], minlength=len(offsets) - 1)
        bounds = np.concatenate([[0], np.cumsum(counts)])
        groups[group] = {
            f"{name}@{cut}": METRICS[name](recommendations.items, targets[inside], bounds, cut)
            for cut in k for name in _known(metrics)
        }
    return groups


def tail_items(train_counts: np.ndarray, share: float = 0.2) -> np.ndarray:
    """bool [I]: the least popular items that together hold at most the last `share` of the train interactions.

    Items without any train interaction belong to the tail. Among equally popular items the larger id is the
    less popular one.

    >>> tail_items(np.array([5, 1, 3, 1, 0])).tolist()
    [False, True, False, True, True]
    """
    if not 0.0 < share < 1.0:
        raise DataError(problem(f"tail share {share}", "a number between 0 and 1", "0.2 is the usual choice"))
    counts = np.asarray(train_counts, dtype=np.int64)
    rising = np.lexsort((-np.arange(len(counts)), counts))
    tail = np.zeros(len(counts), dtype=bool)
    # the tolerance keeps an exact share (2 of 10 interactions at 0.2) from being lost to rounding
    tail[rising] = np.cumsum(counts[rising]) <= share * counts.sum() * (1 + 1e-12)
    return tail


def _known(metrics: Sequence[str] | None) -> Sequence[str]:
    names = list(METRICS) if metrics is None else list(metrics)
    for name in names:
        if name not in METRICS:
            raise DataError(problem(
                f"unknown metric {name!r}{nearest(name, METRICS)}", ", ".join(METRICS), "name metrics without '@k'",
            ))
    return names


def _targets(recommendations: Recommendations, split: Split, part: Part) -> tuple[np.ndarray, np.ndarray]:
    queries = split.queries(part)
    if not np.array_equal(recommendations.users, queries.users):
        raise DataError(problem(
            f"recommendations for {len(recommendations)} users that are not those of the {part} queries",
            f"the {len(queries)} users with {part} events, in the order of split.queries({part!r})",
            "rank the same split and part that you measure",
        ))
    return split.targets(queries)
