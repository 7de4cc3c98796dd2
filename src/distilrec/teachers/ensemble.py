"""Several teachers as one: the mean of their log-probabilities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from distilrec.errors import DataError, problem
from distilrec.files import digest_json
from distilrec.types import Histories, Ranker

__all__ = ["Ensemble"]


class Ensemble:
    """Scores by the weighted mean of its members' log-softmax: the geometric mean of what they believe
    (Hinton, Vinyals & Dean, "Distilling the Knowledge in a Neural Network", 2015, section 1).

    Log-probabilities make members of unlike scale comparable; a member cannot win by shouting. An item that one member
    rules out (-inf) is ruled out.

    Raises:
        DataError: no members, or weights that are not one positive number for each.
    """

    def __init__(
        self, members: Sequence[Ranker], *, weights: Sequence[float] | None = None, name: str = "ensemble"
    ) -> None:
        self.name = name
        self.members = list(members)
        shares = np.ones(len(self.members)) if weights is None else np.asarray(weights, dtype=float)
        if not self.members or shares.shape != (len(self.members),) or not (shares > 0).all():
            raise DataError(problem(f"an ensemble of {len(self.members)} members with weights {shares.tolist()}",
                                    "one positive weight for each member"))
        # a member that knows users but no single events leaves the whole without an answer by event
        by_user = [getattr(member, "keyed", "event") == "user" for member in self.members]
        self.keyed = "user" if any(by_user) else "event"
        self.per_user = all(known or getattr(m, "per_user", False)
                            for known, m in zip(by_user, self.members, strict=True))
        self.vector_members: list[Any] = [member for member in self.members if _has_vectors(member)]
        self.weights = shares / shares.sum()
        self.has_vectors = bool(self.vector_members)
        in_steps = all(getattr(member, "step_scores", None) for member in self.members)
        self.step_scores = self._step_scores if in_steps else None

    def scores(self, histories: Histories) -> np.ndarray:
        """float32 [B, I]."""
        return self._mean([member.scores(histories) for member in self.members])

    def _step_scores(self, histories: Histories) -> np.ndarray:
        """float32 [sum of lengths, I], see models.trained."""
        members: list[Any] = list(self.members)
        return self._mean([member.step_scores(histories) for member in members])

    def _mean(self, answers: Sequence[np.ndarray]) -> np.ndarray:
        """Weighted mean of log-softmax."""
        total: np.ndarray | float = 0.0
        for scores, weight in zip(answers, self.weights, strict=True):
            top = scores.max(axis=1, keepdims=True)
            log_z = np.log(np.exp(scores - top).sum(axis=1, keepdims=True))
            total = total + np.float32(weight) * (scores - top - log_z)
        return np.asarray(total, dtype=np.float32)

    @property
    def content(self) -> np.ndarray | None:
        """float32 [I, C], the item content that the members were given; the control of a student starts from it."""
        return next((c for member in self.members if (c := getattr(member, "content", None)) is not None), None)

    @property
    def parameters(self) -> int:
        return sum(member.parameters for member in self.members)

    @property
    def digest(self) -> str:
        """Empty, which is no digest, where a member has none."""
        digests = [getattr(member, "digest", "") for member in self.members]
        return digest_json([digests, self.weights.tolist()]) if all(digests) else ""

    def item_vectors(self) -> np.ndarray:
        """float32 [I, sum of D]: the members' tables side by side, each scaled to unit mean square.

        Good for starting a student: its principal components are what the members agree upon. Members without
        vectors are left out.

        Raises:
            DataError: no member has vectors.
        """
        if not self.vector_members:
            raise DataError(problem(f"no member of {self.name} has item vectors",
                                    do="start the student from text or nothing"))
        tables = [member.item_vectors() for member in self.vector_members]
        return np.concatenate([t / max(float(np.sqrt((t**2).mean())), 1e-12) for t in tables], axis=1)


def _has_vectors(member: Any) -> bool:
    return hasattr(member, "item_vectors") and getattr(member, "has_vectors", True)
