"""Item-based nearest neighbours by cosine similarity: cheap, strong, and in every report."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from scipy import sparse

from distilrec.models.fitted import Fitted, seen_matrix
from distilrec.types import Histories, Split

__all__ = ["ItemKNN"]

_PAIRS = 2**21  # co-occurrences that are looked at in one step: about 100 MB, however many items there are


class ItemKNN(Fitted):
    """Scores an item by its summed similarity to the history (Sarwar et al., WWW 2001).

    similarity(i, j) = co-occurrences(i, j) / (sqrt(n_i n_j) + shrink), the `neighbors` largest kept for each item.
    `decay` < 1 lets recent events of the history count more: an event n steps back weighs decay ** n.
    """

    architecture = "item_knn"

    @classmethod
    def fit(cls, split: Split, *, neighbors: int = 100, shrink: float = 10.0, decay: float = 1.0) -> ItemKNN:
        """From the train events; memory follows what occurs together, not the square of the catalog."""
        seen = seen_matrix(split)
        norms = np.sqrt(np.asarray(seen.sum(axis=0), dtype=np.float32).ravel())
        columns = seen.T.tocsr()
        # of an item at most: all items of all its users
        most = np.minimum(columns @ np.diff(seen.indptr).astype(np.float64), split.n_items)
        group = np.cumsum(most) // _PAIRS
        starts = np.flatnonzero(np.diff(group, prepend=-1)).tolist()
        blocks = [
            _neighbors(columns[start:stop] @ seen, start, norms, neighbors, shrink)
            for start, stop in zip(starts, [*starts[1:], split.n_items], strict=True)
        ]
        values, best, counts = (np.concatenate(parts) for parts in zip(*blocks, strict=True))
        ends = np.concatenate([[0], np.cumsum(counts)])
        ends = ends.astype(sparse.get_index_dtype(maxval=ends[-1]))  # scipy gives all indices the larger of both types
        return cls({"values": values, "items": best, "ends": ends},
                   {"neighbors": neighbors, "shrink": shrink, "decay": decay}, split_digest=split.digest)

    def raw_scores(self, histories: Histories) -> np.ndarray:
        """float32 [B, I]."""
        rows = np.repeat(np.arange(len(histories)), histories.lengths)
        back = histories.offsets[1:][rows] - 1 - np.arange(len(rows))
        weights = np.power(np.float32(self.settings["decay"]), back, dtype=np.float32)
        shape = (len(histories), self._similarity.shape[0])
        history = sparse.csr_array((weights, (rows, histories.items)), shape=shape)
        return (history @ self._similarity).toarray().astype(np.float32)

    @cached_property
    def _similarity(self) -> sparse.csr_array:
        items = len(self.arrays["ends"]) - 1
        return sparse.csr_array(tuple(self.arrays[name] for name in ("values", "items", "ends")), shape=(items, items))

    @property
    def parameters(self) -> int:
        return int(self.arrays["values"].size)


def _neighbors(
    together: sparse.csr_array, start: int, norms: np.ndarray, neighbors: int, shrink: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sparse [b, I] co-occurrences of the items from `start` on -> their most similar items.

    (similarities float32, items int32, best first and then by id, and how many each of the b items has int64 [b]).
    """
    n = together.shape[0]
    rows, columns = np.repeat(np.arange(n), np.diff(together.indptr)), together.indices
    similarity = together.data / (norms[start + rows] * norms[columns] + shrink + 1e-9)
    candidate = columns != start + rows
    for row in np.flatnonzero(np.diff(together.indptr) > neighbors + 1):
        own = slice(together.indptr[row], together.indptr[row + 1])
        # the last that can be kept, and all that tie with it; the item itself may be among those before it
        candidate[own] &= similarity[own] >= np.partition(similarity[own], -neighbors - 1)[-neighbors - 1]
    rows, columns, similarity = rows[candidate], columns[candidate], similarity[candidate]
    # a strict order of (-similarity, id): ties must not depend on the machine
    order = np.lexsort((columns, -similarity, rows))
    place = np.arange(len(rows)) - np.searchsorted(rows, rows)  # within the item
    order = order[place < neighbors]
    return similarity[order], columns[order].astype(np.int32), np.bincount(rows[order], minlength=n)
