"""A teacher that is asked while the student learns, instead of beforehand; the store is not written at all."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from distilrec.knowledge.extract import item_vectors_of, respond
from distilrec.types import Ranker, Signal, Split

__all__ = ["LiveTeacher"]


class LiveTeacher:
    """The answers of a ranker at the decisions of each batch; implements `types.Knowledge`.

    When to use it: a teacher that changes while the student is trained (call `replace`), or one that is cheaper to ask
    than a store is to keep. A fixed teacher and several epochs: `extract` pays once.

    Args:
        teacher: anything that scores histories; its answers after each event of a history are read in one pass where it
            can do so.
        top_k, temperature: as in `extract`.
    """

    def __init__(self, teacher: Ranker, split: Split, *, top_k: int = 100, temperature: float = 1.0) -> None:
        self.split = split
        self.replace(teacher)
        self.top_k, self.temperature = min(top_k, split.n_items), temperature

    def replace(self, teacher: Ranker) -> None:
        """From the next batch on, another teacher answers: soft labels are refreshed without starting over."""
        told: Any = teacher
        self.teacher = told
        # where it has no digest, nothing says that it is the same as before
        self._digest = getattr(told, "digest", None) or secrets.token_hex(16)
        # as in a store: the scores of a file's list are no probabilities of the catalog
        self._listed = getattr(told, "keyed", "event") == "user"

    @property
    def signals(self) -> Mapping[str, Signal]:
        return {"response": Signal("response", "response", "event", space="score" if self._listed else "logit",
                                   teacher=self.teacher.name, width=self.top_k)}

    @property
    def digest(self) -> str:
        """Of the teacher that answers now; a checkpoint of a run with another one is refused."""
        return f"live-{self._digest}-{self.top_k}-{self.temperature}"

    def batch(self, keys: np.ndarray, signals: Collection[str] | None = None) -> dict[str, np.ndarray]:
        """As `types.Knowledge.batch` lays down."""
        del signals  # answers are all there is
        split = self.split
        opened = keys >= len(split.items)
        users = split.deciders(keys)
        stop = np.where(opened, split.bounds[users, 1], keys)
        order = np.lexsort((stop, users))
        ids, logits = respond(self.teacher, split, users[order].astype(np.int32), split.bounds[users[order], 0],
                              stop[order], self.top_k, self.temperature)
        back = np.argsort(order)
        out = {"response": logits[back], "response.ids": ids[back]}
        return out if self._listed else {**out, "response.mass": np.exp(logits[back]).sum(1).clip(max=1.0)}

    def vectors(self, name: str) -> np.ndarray | None:
        """The teacher's item vectors, if it has any."""
        return item_vectors_of(self.teacher) if name == "item_vectors" else None
