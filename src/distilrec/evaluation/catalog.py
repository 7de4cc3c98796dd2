"""What lists do to a catalog: coverage, concentration, novelty, diversity. No target is needed.

`recommended` is int32 [Q, >= k], best first, -1 where a list ended early.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from distilrec.errors import DataError, problem
from distilrec.types import Recommendations, Split

if TYPE_CHECKING:
    from scipy.sparse import csr_array

__all__ = ["co_occurrence_vectors", "coverage", "diversity", "evaluate_catalog", "gini", "novelty"]

_BATCH = 2048  # lists per step of `diversity`: bounds memory, changes no number


def coverage(recommended: np.ndarray, n_items: int, k: int) -> float:
    """Share of the catalog that is in at least one list."""
    return float((_exposure(recommended, n_items, k) > 0).mean()) if n_items else 0.0


def gini(recommended: np.ndarray, n_items: int, k: int) -> float:
    """Gini index of how often each item is shown: 0 = all items equally often, towards 1 = one item always."""
    shown = np.sort(_exposure(recommended, n_items, k))
    total = shown.sum()
    if total == 0:
        return 0.0
    rank = np.arange(1, n_items + 1)
    return float(((2 * rank - n_items - 1) * shown).sum() / (n_items * total))


def novelty(recommended: np.ndarray, train_counts: np.ndarray, k: int) -> np.ndarray:
    """float64 [Q]: mean self-information -log2 p(item) in bits; NaN for an empty list.

    p is the item's share of the train interactions with one added to every count, so that an item never seen
    in training is very novel, not infinitely so. Zhou et al., PNAS 2010.
    """
    counts = np.asarray(train_counts, dtype=np.float64) + 1.0
    bits = -np.log2(counts / counts.sum())
    top = recommended[:, :k]
    present = top >= 0
    sums = np.where(present, bits[np.where(present, top, 0)], 0.0).sum(axis=1)
    return _mean(sums, present.sum(axis=1))


def diversity(recommended: np.ndarray, vectors: np.ndarray | csr_array, k: int) -> np.ndarray:
    """float64 [Q]: intra-list distance, the mean of 1 - cosine over all pairs of a list.

    `vectors` [I, D], dense (item content) or sparse (`co_occurrence_vectors`). Items with a zero vector say nothing
    and are left out; NaN where fewer than two items remain. Ziegler et al., WWW 2005.
    """
    from scipy import sparse

    norms = np.sqrt(_row_squares(vectors))
    usable = norms > 0
    scale = np.divide(1.0, norms, out=np.zeros(len(norms)), where=usable)
    values = np.full(len(recommended), np.nan)
    for start in range(0, len(recommended), _BATCH):
        top = recommended[start:start + _BATCH, :k]
        present = (top >= 0) & usable[np.where(top >= 0, top, 0)]
        rows, columns = np.nonzero(present)
        items = top[rows, columns]
        pick = sparse.csr_array((scale[items], (rows, items)), shape=(len(top), len(norms)))
        # the sum of cosines over all ordered pairs is |sum of unit vectors|^2 minus the n pairs of an item with itself
        squares = _row_squares(pick @ vectors)
        n = present.sum(axis=1)
        pairs = n * (n - 1)
        values[start:start + len(top)] = 1.0 - _mean(squares - n, pairs)
    return np.where(np.isnan(values), np.nan, np.clip(values, 0.0, 2.0))


def co_occurrence_vectors(split: Split) -> csr_array:
    """Sparse float64 [I, U], 1 where a user has the item in train: two items are alike if the same users took them."""
    from scipy import sparse

    users, items, _ = split.events("train")
    matrix = sparse.csr_array((np.ones(len(items)), (items, users)), shape=(split.n_items, split.n_users))
    matrix.sum_duplicates()
    matrix.data[:] = 1.0
    return matrix


def evaluate_catalog(
    recommendations: Recommendations,
    split: Split,
    k: Sequence[int] = (10, 20),
    vectors: np.ndarray | csr_array | None = None,
) -> dict[str, float]:
    """{"coverage@10", "gini@10", "novelty@10", "diversity@10", ...}: one number each over all lists.

    Diversity by item `vectors` where given, otherwise by train co-occurrence; left out where no list has two
    comparable items.
    """
    space = co_occurrence_vectors(split) if vectors is None else vectors
    lists = recommendations.items
    values: dict[str, float] = {}
    for cut in k:
        values[f"coverage@{cut}"] = coverage(lists, split.n_items, cut)
        values[f"gini@{cut}"] = gini(lists, split.n_items, cut)
        for name, each in (("novelty", novelty(lists, split.train_counts, cut)),
                           ("diversity", diversity(lists, space, cut))):
            if not np.isnan(each).all():
                values[f"{name}@{cut}"] = float(np.nanmean(each))
    return values


def _exposure(recommended: np.ndarray, n_items: int, k: int) -> np.ndarray:
    top = recommended[:, :k]
    shown = top[top >= 0]
    if len(shown) and shown.max() >= n_items:
        raise DataError(problem(f"item id {shown.max()} in a list", f"ids below {n_items}", "rank the same data set"))
    return np.bincount(shown, minlength=n_items)


def _row_squares(matrix: np.ndarray | csr_array) -> np.ndarray:
    if isinstance(matrix, np.ndarray):
        return np.einsum("ij,ij->i", matrix, matrix, dtype=np.float64)
    return np.asarray(matrix.multiply(matrix).sum(axis=1), dtype=np.float64).ravel()


def _mean(sums: np.ndarray, n: np.ndarray) -> np.ndarray:
    return np.divide(sums, n, out=np.full(len(n), np.nan), where=n > 0)
