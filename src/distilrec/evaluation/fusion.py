"""Teacher and student together: fusion of their answers, and the cascade in which one proposes and the other re-ranks.

Everything here answers like a bundle, by `recommend_ids`, so that it is measured and timed like one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from math import comb
from typing import Any, Literal

import numpy as np

from distilrec.errors import DataError, nearest, problem
from distilrec.evaluation.metrics import evaluate_lists
from distilrec.numerics import log_softmax, top_k
from distilrec.types import Histories, Lister, Ranker, Recommendations, Split

__all__ = ["FUSIONS", "SCALES", "Cascade", "Fusion", "cascade", "fuse", "fused_scores", "learn_weights",
           "reciprocal_ranks", "weight_grid"]

FUSIONS = ("weighted", "rrf", "learned")
SCALES = ("log_softmax", "standard")
_POINTS = 100  # weightings that are tried on validation, at most
_ROWS = 256  # histories of one call

Source = Ranker | Lister
Scale = Literal["log_softmax", "standard"]


def fuse(
    sources: Sequence[Any], method: str = "weighted", *, weights: Sequence[float] | np.ndarray | None = None,
    split: Split | None = None, metric: str = "ndcg@10", seen: str = "drop", scale: Scale = "log_softmax",
    depth: int = 1000, constant: float = 60.0, name: str = "fusion",
) -> Fusion:
    """Several rankers, students or bundles as one that answers `recommend_ids`.

    Args:
        method: "weighted", the weighted mean of their scores brought to one `scale`; "rrf", reciprocal rank fusion;
            "learned", "weighted" with the weights that are best on the validation part of `split`.
        weights: one for each, not negative; equal by default.
        depth, constant: of "rrf": how many of each list count, and what is added to every rank.
    Raises:
        DataError: an unknown method or scale, weights that do not fit, "learned" without a split that has a
            validation part.
    """
    if method not in FUSIONS:
        raise DataError(problem(f"fusion {method!r}{nearest(method, FUSIONS)}", ", ".join(FUSIONS)))
    if method == "learned":
        if split is None or weights is not None:
            raise DataError(problem("learned fusion " + ("without a split" if split is None else "with given weights"),
                                    "a split with a validation part, and no weights"))
        weights = learn_weights(sources, split, metric=metric, seen=seen, scale=scale)
    shares = np.ones(len(sources)) if weights is None else np.asarray(weights, dtype=float)
    return Fusion(name, [_own(one) for one in sources], shares, scale, depth if method == "rrf" else None, constant)


@dataclass(frozen=True, eq=False)
class Fusion:
    """Several sources as one; made by `fuse`."""

    name: str
    sources: Sequence[Any]
    weights: np.ndarray  # [S]
    scale: Scale = "log_softmax"
    depth: int | None = None  # None: scores are fused, else so many ranks
    constant: float = 60.0

    def __post_init__(self) -> None:
        weights = np.asarray(self.weights)
        if weights.shape != (len(self.sources),) or not (np.isfinite(weights) & (weights >= 0)).all() \
                or not weights.any():
            raise DataError(problem(f"{len(self.sources)} sources with weights {weights.tolist()}",
                                    "one for each, none negative, not all 0"))
        if self.scale not in SCALES:
            raise DataError(problem(f"scale {self.scale!r}{nearest(self.scale, SCALES)}", " | ".join(SCALES)))
        if (self.depth is not None and self.depth < 1) or self.constant < 0:
            raise DataError(problem(f"depth {self.depth}, constant {self.constant}", "a depth of 1 or more, 0 or more"))

    @property
    def parameters(self) -> int:
        """Of all sources together: each of them is asked."""
        return sum(source.parameters for source in self.sources)

    def recommend_ids(self, histories: Histories, exclude: Histories, k: int) -> Recommendations:
        """The k best items of each history without those of `exclude`; scores are those of the fusion."""
        if self.depth is None:
            scores = fused_scores([_scores(one, histories) for one in self.sources], self.weights, self.scale)
            return _best(scores, histories, exclude, k)
        lists = [_listed(one, histories, exclude, max(k, self.depth)) for one in self.sources]
        ids = [one.items[:, : self.depth] for one in lists]
        return _best(reciprocal_ranks(ids, self.weights, self.constant), histories, None, k)


def fused_scores(scores: Sequence[np.ndarray], weights: np.ndarray, scale: Scale = "log_softmax") -> np.ndarray:
    """[B, I] each -> float32 [B, I], their weighted mean.

    scale: "log_softmax" takes each row as the log-probabilities that its scores stand for; "standard" gives each row
        mean 0 and standard deviation 1 over the items that the source knows, for scores that are no logits.
    An item that a source of weight above 0 rules out (-inf) is ruled out.
    """
    total = np.zeros(np.shape(scores[0]), dtype=np.float32)
    for rows, weight in zip(scores, weights / weights.sum(), strict=True):
        if weight:
            total += np.float32(weight) * _scaled(rows, scale)
    return total


def reciprocal_ranks(lists: Sequence[np.ndarray], weights: np.ndarray, constant: float = 60.0) -> np.ndarray:
    """int32 [B, n] each, best first, -1 where a list ended -> float32 [B, 1 + largest item]: the sum of weight /
    (constant + rank), rank 1 the best, -inf for items that no list holds.

    Source: Cormack, Clarke & Büttcher, "Reciprocal Rank Fusion outperforms Condorcet and individual Rank Learning
    Methods", SIGIR 2009, whose constant is 60.
    """
    width = 1 + max((int(ids.max(initial=-1)) for ids in lists), default=-1)
    total = np.zeros((len(lists[0]), max(1, width)))
    for ids, weight in zip(lists, weights, strict=True):
        rows, places = np.nonzero(ids >= 0)
        total[rows, ids[rows, places]] += weight / (constant + 1.0 + places)
    return np.where(total > 0, total, -np.inf).astype(np.float32)


def learn_weights(
    sources: Sequence[Any], split: Split, *, metric: str = "ndcg@10", seen: str = "drop",
    scale: Scale = "log_softmax",
) -> np.ndarray:
    """[S] shares that sum to 1: of all those on a regular grid the best by `metric` on the validation part, the most
    equal ones of several equally good. The test part is not read.

    All weightings are measured in one pass over the users, whose scores are computed once. Raises DataError for a split
    without a validation part.
    """
    queries, grid, sources = split.queries("valid"), weight_grid(len(sources)), [_own(one) for one in sources]
    if not len(queries):
        raise DataError(problem("learned fusion on a split without validation events", "at least one",
                                "use 'weighted' or 'rrf', or a split that keeps some"))
    cut = int(metric.rpartition("@")[2])
    items = np.full((len(grid), len(queries), cut), -1, dtype=np.int32)
    for begin in range(0, len(queries), _ROWS):
        rows = slice(begin, min(begin + _ROWS, len(queries)))
        histories = split.histories(queries.take(np.arange(rows.start, rows.stop)))
        scaled = [_scaled(_scores(one, histories), scale) for one in sources]
        for number, weights in enumerate(grid):
            total = sum(np.float32(w) * s for w, s in zip(weights, scaled, strict=True) if w)
            listed = _best(np.asarray(total), histories, histories if seen == "drop" else None, cut)
            items[number, rows] = listed.items
    quality = [float(np.nanmean(evaluate_lists(Recommendations(queries.users, one, np.zeros(one.shape, np.float32)),
                                               split, "valid", [cut])[metric])) for one in items]
    evenness = -np.square(grid - 1 / len(sources)).sum(1)
    return grid[int(np.lexsort((evenness, quality))[-1])]


def weight_grid(sources: int) -> np.ndarray:
    """[n, S] shares that sum to 1, in steps of 1/20, for more than two so coarse that there are at most 100.

    Raises DataError for more sources than that leaves a step for.
    """
    steps = next((n for n in range(20, 0, -1) if comb(n + sources - 1, sources - 1) <= _POINTS), None)
    if sources < 1 or steps is None:
        raise DataError(problem(f"weights for {sources} sources", f"1 to {_POINTS}"))
    # stars and bars: where the walls stand among the stars
    walls = np.array(list(combinations(range(steps + sources - 1), sources - 1)), dtype=np.int64)
    walls = walls.reshape(len(walls), sources - 1)
    ends = np.full((len(walls), 1), steps + sources - 1)
    return (np.diff(np.concatenate([-np.ones_like(ends), walls, ends], axis=1)) - 1) / steps


def cascade(student: Any, teacher: Any, depth: int = 50, *, name: str = "cascade") -> Cascade:
    """The student retrieves, the teacher re-ranks the best `depth` items of its list.

    Args:
        student: a `Student`, a trained model, a bundle, or any ranker. teacher: any ranker.
    Raises:
        DataError: a depth below 1.

    >>> cascade(bundle, teacher, depth=50).recommend_ids(histories, exclude=histories, k=10)  # doctest: +SKIP
    """
    return Cascade(_own(student), _own(teacher), depth, name)


@dataclass(frozen=True, eq=False)
class Cascade:
    """Made by `cascade`: `first` retrieves, `second` re-ranks the best `depth` of its list, the rest keeps its order.

    `second` scores the candidates only if it has `pair_scorer` (a trained model), else the whole catalog at any depth.
    """

    first: Any
    second: Any
    depth: int
    name: str = "cascade"

    def __post_init__(self) -> None:
        if self.depth < 1:
            raise DataError(problem(f"a cascade of depth {self.depth}", "1 or more"))

    @property
    def parameters(self) -> int:
        return self.first.parameters + self.second.parameters

    @cached_property
    def _scorer(self) -> Callable[[Histories, np.ndarray], np.ndarray]:
        make = getattr(self.second, "pair_scorer", None)
        if make is not None:
            return make()
        return lambda histories, items: np.take_along_axis(self.second.scores(histories), np.maximum(items, 0), axis=1)

    def recommend_ids(self, histories: Histories, exclude: Histories, k: int) -> Recommendations:
        """The k best items of each history. Scores are those of `second`; items that it does not know and those beyond
        `depth` follow in the order of `first`, each with a score 1 less than the one before."""
        found = _listed(self.first, histories, exclude, max(k, self.depth))
        head = found.items[:, : self.depth]
        scores = np.where(head < 0, -np.inf, self._scorer(histories, head)).astype(np.float32)
        if np.isnan(scores).any():
            raise DataError(problem(f"{getattr(self.second, 'name', 'the second model')} scored items with NaN",
                                    "finite numbers, or -inf for items that it does not know"))
        place = np.broadcast_to(np.arange(head.shape[1]), head.shape)
        order = np.lexsort((np.where(np.isneginf(scores), place, head), -scores), axis=1)
        items = np.full((len(head), k), -1, dtype=np.int32)
        all_of_it = np.concatenate([np.take_along_axis(head, order, axis=1), found.items[:, self.depth :]], axis=1)
        items[:, : all_of_it.shape[1]] = all_of_it[:, :k]
        return Recommendations(histories.users, items, _falling(np.take_along_axis(scores, order, axis=1), items))


def _falling(known: np.ndarray, items: np.ndarray) -> np.ndarray:
    """Scores [B, k] of re-ranked items and, below them, of those that were not; -inf where there is no item."""
    out = np.full(items.shape, -np.inf, dtype=np.float32)
    width = min(known.shape[1], items.shape[1])
    out[:, :width] = known[:, :width]
    finite = np.isfinite(out)
    lowest = np.where(finite, out, np.inf).min(axis=1, initial=np.inf)
    lowest = np.where(np.isfinite(lowest), lowest, 0.0)
    behind = np.arange(items.shape[1]) - finite.sum(1, keepdims=True) + 1
    return np.where(finite | (items < 0), out, lowest[:, None] - behind).astype(np.float32)


def _own(one: Any) -> Any:
    """What answers: of a `Student` its model."""
    return one if isinstance(one, Ranker | Lister) else getattr(one, "model", one)


def _scaled(scores: np.ndarray, scale: Scale) -> np.ndarray:
    rows = np.asarray(scores, dtype=np.float32)
    if scale == "log_softmax":
        return log_softmax(rows)
    known = np.isfinite(rows)
    values = np.where(known, rows, 0.0).astype(np.float64)
    count = np.maximum(known.sum(1, keepdims=True), 1)
    mean = values.sum(1, keepdims=True) / count
    spread = np.sqrt((np.where(known, values - mean, 0.0) ** 2).sum(1, keepdims=True) / count)
    return np.where(known, (values - mean) / np.where(spread > 0, spread, 1.0), -np.inf).astype(np.float32)


def _scores(source: Any, histories: Histories) -> np.ndarray:
    """float32 [B, I]; a bundle is asked for the whole catalog."""
    if isinstance(source, Ranker):
        return source.scores(histories)
    if not hasattr(source, "n_items"):
        raise DataError(problem(f"{getattr(source, 'name', 'a source')} gives lists and no scores",
                                "a ranker or a bundle", "fuse ranks: method 'rrf'"))
    found = source.recommend_ids(histories, _nothing(histories), source.n_items)
    scores = np.full((len(histories), source.n_items), -np.inf, dtype=np.float32)
    rows, places = np.nonzero(found.items >= 0)
    scores[rows, found.items[rows, places]] = found.scores[rows, places]
    return scores


def _listed(source: Any, histories: Histories, exclude: Histories, k: int) -> Recommendations:
    if isinstance(source, Ranker):
        return _best(np.array(source.scores(histories), dtype=np.float32), histories, exclude, k)
    return source.recommend_ids(histories, exclude, min(k, getattr(source, "n_items", k)))


def _best(scores: np.ndarray, histories: Histories, exclude: Histories | None, k: int) -> Recommendations:
    """The best k; `scores` [B, I] is written to."""
    if exclude is not None:
        scores[np.repeat(np.arange(len(scores)), exclude.lengths), exclude.items] = -np.inf
    return Recommendations(histories.users, *top_k(scores, k))


def _nothing(histories: Histories) -> Histories:
    return Histories(histories.users, np.empty(0, dtype=np.int32), np.zeros(len(histories) + 1, dtype=np.int64))
