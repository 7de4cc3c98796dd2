"""Several teachers as one: the mean of their log-probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from distilrec.files import digest_json
from distilrec.types import Histories, Ranker

__all__ = ["Ensemble"]


class Ensemble:
    """Scores by the weighted mean of its members' log-softmax: the geometric mean of what they believe
    (Hinton, Vinyals & Dean, "Distilling the Knowledge in a Neural Network", 2015, section 1).

    Log-probabilities make members of unlike scale comparable; a member cannot win by shouting.
    """

    def __init__(self, members: Sequence[Ranker], *, weights: Sequence[float] | None = None, name: str = "ensemble") -> None:
        self.name = name
        self.members = list(members)
        shares = np.ones(len(self.members)) if weights is None else np.asarray(weights, dtype=float)
        self.weights = shares / shares.sum()

    def scores(self, histories: Histories) -> np.ndarray:
        """float32 [B, I]."""
        total: np.ndarray | float = 0.0
        for member, weight in zip(self.members, self.weights, strict=True):
            scores = member.scores(histories)
            top = scores.max(axis=1, keepdims=True)
            log_z = top + np.log(np.exp(scores - top).sum(axis=1, keepdims=True))
            total = total + np.float32(weight) * (scores - log_z)
        return np.asarray(total, dtype=np.float32)

    @property
    def parameters(self) -> int:
        return sum(member.parameters for member in self.members)

    @property
    def digest(self) -> str:
        return digest_json([[getattr(m, "digest", m.name) for m in self.members], self.weights.tolist()])

    def item_vectors(self) -> np.ndarray:
        """float32 [I, sum of D]: the members' tables side by side, each scaled to unit mean square.

        Good for starting a student: its principal components are what the members agree upon.
        """
        tables: list[Any] = [m.item_vectors() for m in self.members if hasattr(m, "item_vectors")]  # type: ignore[attr-defined]
        return np.concatenate([t / max(float(np.sqrt((t**2).mean())), 1e-12) for t in tables], axis=1)
