"""The same answer for everybody: how often it happens, or what it is on average."""

from __future__ import annotations

import numpy as np

from distilrec.files import digest_arrays
from distilrec.types_rows import RowSplit

__all__ = ["BaseRate"]


class BaseRate:
    """The train part's base rate of every binary output, as a logit, and the mean of every number; by weight, if any.

    When to use it: as the floor. Normalized entropy is 1 and AUC one half here; a model that calibrates worse than this
    has learned nothing that a constant does not know.
    """

    name = "base_rate"

    def __init__(self, answers: np.ndarray) -> None:
        self.answers = answers  # float32 [O]

    @classmethod
    def fit(cls, split: RowSplit) -> BaseRate:
        labels = split.label_matrix(split.rows("train")).astype(np.float64)
        seen = (~np.isnan(labels)).astype(np.float64)
        if split.weights is not None:  # on the scale of rows
            weights = split.weights[split.rows("train")].astype(np.float64)
            seen *= (weights / weights.mean())[:, None]
        means = (np.nan_to_num(labels) * seen).sum(0) / np.maximum(seen.sum(0), 1e-9)
        for head in split.heads:
            if head.kind != "number":
                where = split.outputs.slices[head.name]
                # one further row of either class: never infinitely sure
                rate = (means[where] * seen[:, where].sum(0) + 0.5) / (seen[:, where].sum(0) + 1)
                means[where] = np.log(rate / (1 - rate))
        return cls(means.astype(np.float32))

    def predict(self, split: RowSplit, rows: np.ndarray) -> np.ndarray:
        """float32 [n, O]."""
        return np.tile(self.answers, (len(rows), 1))

    @property
    def parameters(self) -> int:
        return len(self.answers)

    @property
    def digest(self) -> str:
        return digest_arrays(self.answers)
