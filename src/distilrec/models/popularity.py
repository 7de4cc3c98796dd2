"""Popularity: the same list for everybody, and the floor of every report."""

from __future__ import annotations

import numpy as np

from distilrec.models.fitted import Fitted
from distilrec.types import Histories, Split

__all__ = ["Popularity"]


class Popularity(Fitted):
    """Items by their number of train events. Holds no weights beyond the I counts."""

    architecture = "popularity"

    @classmethod
    def fit(cls, split: Split) -> Popularity:
        return cls.of(split.train_counts, split_digest=split.digest)

    @classmethod
    def of(cls, counts: np.ndarray, *, split_digest: str = "") -> Popularity:
        """From any I numbers."""
        return cls({"scores": counts.astype(np.float32)}, {}, split_digest=split_digest)

    def raw_scores(self, histories: Histories) -> np.ndarray:
        """float32 [B, I]."""
        return np.repeat(self.arrays["scores"][None], len(histories), axis=0)
