"""Item-based nearest neighbours by cosine similarity: cheap, strong, and in every report."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from distilrec.files import digest_arrays
from distilrec.types import Histories, Split

__all__ = ["ItemKNN"]


class ItemKNN:
    """Scores an item by its summed similarity to the history (Sarwar et al., WWW 2001).

    similarity(i, j) = co-occurrences(i, j) / (sqrt(n_i n_j) + shrink), the `neighbors` largest kept for each item.
    `decay` < 1 lets recent events of the history count more: an event n steps back weighs decay ** n.
    """

    def __init__(self, similarity: sparse.csr_array, *, decay: float = 1.0, name: str = "item_knn") -> None:
        self.name = name
        self.decay = decay
        self._similarity = similarity

    @classmethod
    def fit(cls, split: Split, *, neighbors: int = 100, shrink: float = 10.0, decay: float = 1.0) -> ItemKNN:
        users, items, _ = split.events("train")
        shape = (split.n_users, split.n_items)
        seen = sparse.csr_array((np.ones(len(users), dtype=np.float32), (users, items)), shape=shape)
        seen.data[:] = 1.0  # repeated events of one pair count once
        norms = np.sqrt(np.asarray(seen.sum(axis=0), dtype=np.float32).ravel())
        columns = seen.T.tocsr()
        blocks = [
            _neighbors((columns[start : start + 1024] @ seen).toarray(), start, norms, neighbors, shrink)
            for start in range(0, split.n_items, 1024)
        ]
        return cls(sparse.vstack(blocks, format="csr"), decay=decay)

    def scores(self, histories: Histories) -> np.ndarray:
        """float32 [B, I]."""
        rows = np.repeat(np.arange(len(histories)), histories.lengths)
        back = histories.offsets[1:][rows] - 1 - np.arange(len(rows))
        weights = np.power(np.float32(self.decay), back, dtype=np.float32)
        shape = (len(histories), self._similarity.shape[0])
        history = sparse.csr_array((weights, (rows, histories.items)), shape=shape)
        return (history @ self._similarity).toarray().astype(np.float32)

    @property
    def digest(self) -> str:
        matrix = self._similarity
        return digest_arrays(matrix.data, matrix.indices, matrix.indptr, str(self.decay))

    @property
    def parameters(self) -> int:
        return int(self._similarity.nnz)


def _neighbors(
    together: np.ndarray, start: int, norms: np.ndarray, neighbors: int, shrink: float
) -> sparse.csr_array:
    """[b, I] co-occurrence counts of the items from `start` on -> their most similar items."""
    rows = np.arange(len(together))
    together[rows, start + rows] = 0.0
    similarity = together / (norms[start + rows][:, None] * norms[None] + shrink + 1e-9)
    kept = min(neighbors, similarity.shape[1])
    # a stable order of (-similarity, id): ties must not depend on the machine
    best = np.argsort(-similarity, axis=1, kind="stable")[:, :kept]
    values = np.take_along_axis(similarity, best, axis=1)
    row = np.repeat(rows, kept)
    flat = values.ravel() > 0
    return sparse.csr_array((values.ravel()[flat], (row[flat], best.ravel()[flat])), shape=similarity.shape)
