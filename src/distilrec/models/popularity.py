"""Popularity: the same list for everybody, and the floor of every report."""

from __future__ import annotations

import numpy as np

from distilrec.files import digest_arrays
from distilrec.types import Histories, Split

__all__ = ["Popularity"]


class Popularity:
    """Items by their number of train events. Holds no weights beyond the I counts."""

    def __init__(self, counts: np.ndarray, *, name: str = "popularity") -> None:
        self.name = name
        self._scores = counts.astype(np.float32)

    @classmethod
    def fit(cls, split: Split) -> Popularity:
        return cls(split.train_counts)

    def scores(self, histories: Histories) -> np.ndarray:
        """float32 [B, I]."""
        return np.repeat(self._scores[None], len(histories), axis=0)

    @property
    def digest(self) -> str:
        return digest_arrays(self._scores)

    @property
    def parameters(self) -> int:
        return len(self._scores)
