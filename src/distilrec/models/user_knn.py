"""User-based nearest neighbors by cosine similarity."""

from __future__ import annotations

from functools import cached_property

import numpy as np
from scipy import sparse

from distilrec.models.fitted import Fitted, bag, largest, seen_matrix
from distilrec.types import Histories, Split

__all__ = ["UserKNN"]

_ROWS = 512  # histories that are compared with all users at a time


class UserKNN(Fitted):
    """Scores an item by the summed similarity of the users who have it (Resnick et al., CSCW 1994, for implicit
    feedback).

    similarity(h, u) = |h and u| / (sqrt(|h| |u|) + shrink) between a history and a train user, the `neighbors` largest
    kept. A known user is never his own neighbor: his own events would tell the answer in training.
    """

    architecture = "user_knn"

    @classmethod
    def fit(cls, split: Split, *, neighbors: int = 100, shrink: float = 10.0) -> UserKNN:
        """Keeps the train events; the work is done when it is asked."""
        seen = seen_matrix(split)
        return cls({"items": seen.indices.astype(np.int32), "ends": seen.indptr.astype(np.int64),
                    "catalog": np.array([split.n_items], dtype=np.int64)},
                   {"neighbors": neighbors, "shrink": float(shrink)}, split_digest=split.digest)

    def raw_scores(self, histories: Histories) -> np.ndarray:
        """float32 [B, I]."""
        seen, norms = self._seen, np.sqrt(np.diff(self._seen.indptr), dtype=np.float32)
        out = np.empty((len(histories), seen.shape[1]), dtype=np.float32)
        asked = bag(histories, seen.shape[1])
        for start in range(0, len(histories), _ROWS):
            block = asked[start : start + _ROWS]
            together = sparse.csr_array(block @ self._columns)
            own = np.sqrt(np.diff(block.indptr), dtype=np.float32)
            rows, users = np.repeat(np.arange(len(own)), np.diff(together.indptr)), together.indices
            together.data = together.data / (own[rows] * norms[users] + np.float32(self.settings["shrink"] + 1e-9))
            together.data[users == histories.users[start : start + _ROWS][rows]] = 0.0
            together.eliminate_zeros()
            out[start : start + _ROWS] = (largest(together, self.settings["neighbors"]) @ seen).toarray()
        return out

    @property
    def parameters(self) -> int:
        return int(self.arrays["items"].size)

    @cached_property
    def _seen(self) -> sparse.csr_array:
        items, ends = self.arrays["items"], self.arrays["ends"]
        shape = (len(ends) - 1, int(self.arrays["catalog"][0]))
        return sparse.csr_array((np.ones(len(items), dtype=np.float32), items, ends), shape=shape)

    @cached_property
    def _columns(self) -> sparse.csr_array:
        return sparse.csr_array(self._seen.T.tocsr())
