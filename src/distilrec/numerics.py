"""Numpy functions that more than one room needs."""

from __future__ import annotations

import numpy as np

from distilrec.errors import DataError, problem

__all__ = ["block_rows", "log_softmax", "popularity_groups", "top_k"]

_BLOCK_BYTES = 4 << 20  # scores that are copied, masked and partitioned at a time: small enough for the cache


def block_rows(width: int) -> int:
    """How many rows of `width` float32 numbers to work on at a time; at least one."""
    return max(1, _BLOCK_BYTES // (4 * max(1, width)))


def top_k(scores: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    """(items int32 [B, k], scores float32 [B, k]) of the k best columns of `scores` [B, I] in each row.

    Score descending, then smaller column. Neither numpy.argpartition nor torch.topk promises that, so the k-th score
    is found first, and then who is above it and who ties with it. Columns at -inf are never given; -1 and -inf fill
    what is missing. `scores` is not changed, and beside the answer no more than a few blocks of it are held.

    Raises DataError where a score is NaN.
    """
    if scores.ndim != 2 or k < 1:
        raise DataError(problem(f"scores of shape {scores.shape}, k = {k}", "scores [B, I] and k >= 1"))
    items = np.full((len(scores), k), -1, dtype=np.int32)
    best = np.full((len(scores), k), -np.inf, dtype=np.float32)
    step = block_rows(scores.shape[1])
    for start in range(0, len(scores), step) if scores.shape[1] else ():
        block = np.asarray(scores[start:start + step], dtype=np.float32)
        _top_of_block(block, items[start:start + step], best[start:start + step])
    return items, best


def _top_of_block(block: np.ndarray, items: np.ndarray, best: np.ndarray) -> None:
    """Fill `items` and `best` [B, k] from `block` float32 [B, I]."""
    bad = np.isnan(block.max(axis=1))  # a maximum hands NaN on, and needs no mask as large as the scores
    if bad.any():
        raise DataError(problem(
            f"NaN among the scores of {int(bad.sum())} of {len(block)} queries",
            "finite scores, or -inf for items that the scorer does not know",
            "look for a diverged training or an empty history in the ranker",
        ))
    width, k = block.shape[1], min(items.shape[1], block.shape[1])
    kth = np.partition(block, width - k, axis=1)[:, width - k]
    passing = block >= kth[:, None]
    counts = passing.sum(axis=1)
    # a k-th score of -inf lets unknown items pass; they go, and the list ends early
    for row in np.flatnonzero(np.isneginf(kth)):
        passing[row] &= block[row] > -np.inf
    for row in np.flatnonzero((counts > k) & ~np.isneginf(kth)):
        tied = np.flatnonzero(block[row] == kth[row])
        passing[row, tied[len(tied) - (counts[row] - k):]] = False
    rows, columns = np.divmod(np.flatnonzero(passing), width)
    values = block[rows, columns]
    order = np.lexsort((columns, -values, rows))
    place = np.arange(len(rows)) - np.searchsorted(rows, rows)
    items[rows, place] = columns[order]
    best[rows, place] = values[order]


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """[N, K] -> log of the softmax of each row."""
    top = logits.max(1, keepdims=True)
    return logits - top - np.log(np.exp(logits - top).sum(1, keepdims=True))


def popularity_groups(counts: np.ndarray, groups: int) -> np.ndarray:
    """int64 [I]: groups of items that hold about the same number of events, 0 the most popular ones; ties by id."""
    order = np.argsort(-counts, kind="stable")
    before = np.cumsum(counts[order]) - counts[order]
    out = np.empty(len(counts), dtype=np.int64)
    out[order] = np.minimum(before * groups // max(1, counts.sum()), groups - 1)
    return out
