"""What the models that are fitted in one pass share: they are named arrays with settings, saved and loaded alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
from safetensors.numpy import load_file, save_file
from scipy import sparse

from distilrec.errors import KnowledgeError, problem
from distilrec.files import atomic_folder, digest_arrays, digest_file, digest_json, write_json
from distilrec.models.saved import read_saved
from distilrec.types import Histories, Split

__all__ = ["Fitted", "bag", "largest", "seen_matrix"]


class Fitted:
    """A ranker that consists of arrays. Subclasses add `fit(split, **settings)` and `raw_scores(histories)`.

    Args:
        arrays: what it reads to answer, by name.
        settings: those of `fit`, JSON-able, which answering may read, and `temperature`: what the raw scores are
            divided by, so that a softmax of them is neither flat nor a single item. It changes no ranking.
        training: how it was made (seconds, validation, ...); says nothing about the answers.
    """

    architecture: ClassVar[str]  # its name in models.BASELINES

    def __init__(
        self, arrays: dict[str, np.ndarray], settings: dict[str, Any], *, name: str = "", split_digest: str = "",
        training: dict[str, Any] | None = None,
    ) -> None:
        self.name = name or self.architecture
        self.arrays, self.settings, self.split_digest = arrays, settings, split_digest
        self.training = training or {}

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.settings}, {self.parameters:,} parameters)"

    def raw_scores(self, histories: Histories) -> np.ndarray:
        """float32 [B, I]."""
        raise NotImplementedError

    def scores(self, histories: Histories) -> np.ndarray:
        """float32 [B, I], the raw ones divided by the temperature."""
        return self.raw_scores(histories) / np.float32(self.settings.get("temperature", 1.0))

    @property
    def parameters(self) -> int:
        """Every number that is read to answer."""
        return sum(array.size for array in self.arrays.values())

    @property
    def digest(self) -> str:
        """Changes with any answer."""
        return digest_arrays(*(self.arrays[name] for name in sorted(self.arrays)), digest_json(self.settings),
                             self.architecture)

    def save(self, folder: Path) -> None:
        """Write arrays (safetensors) and description (JSON); the folder appears whole."""
        with atomic_folder(folder) as temporary:
            save_file({name: np.ascontiguousarray(array) for name, array in self.arrays.items()},
                      temporary / "model.safetensors")
            write_json(temporary / "model.json", {
                "schema": 1, "name": self.name, "architecture": self.architecture, "settings": self.settings,
                "split_digest": self.split_digest, "training": self.training, "parameters": self.parameters,
                "digest": digest_file(temporary / "model.safetensors"),
            })

    @classmethod
    def load(cls, folder: Path, split: Split | None = None) -> Self:
        """Read a saved model; with a `split`, refuse one that was fitted to other data.

        Raises:
            KnowledgeError: changed arrays, another kind of model, or another split.
        """
        return read_saved(folder, split, cls._read)

    @classmethod
    def _read(cls, said: dict[str, Any], weights: Path) -> Self:
        if said["architecture"] != cls.architecture:
            raise KnowledgeError(problem(f"{weights.parent} holds a model of the kind {said['architecture']!r}",
                                         cls.architecture))
        return cls(load_file(weights), said["settings"], name=said["name"], split_digest=said["split_digest"],
                   training=said["training"])


def seen_matrix(split: Split) -> sparse.csr_array:
    """float32 [U, I]: 1 where a user has an item among the train events; repeated events count once."""
    users, items, _ = split.events("train")
    return _ones(users, items, (split.n_users, split.n_items))


def bag(histories: Histories, n_items: int) -> sparse.csr_array:
    """float32 [B, I]: 1 where an item stands in a history."""
    return _ones(np.repeat(np.arange(len(histories)), histories.lengths), histories.items, (len(histories), n_items))


def _ones(rows: np.ndarray, columns: np.ndarray, shape: tuple[int, int]) -> sparse.csr_array:
    matrix = sparse.csr_array((np.ones(len(rows), dtype=np.float32), (rows, columns)), shape=shape)
    matrix.sum_duplicates()
    matrix.data[:] = 1.0
    return matrix


def largest(matrix: sparse.csr_array, k: int) -> sparse.csr_array:
    """The k largest entries of each row; of equal ones those of the smaller column, whatever the machine."""
    matrix.sort_indices()
    kept = np.ones(matrix.nnz, dtype=bool)
    for row in np.flatnonzero(np.diff(matrix.indptr) > k):
        own = slice(matrix.indptr[row], matrix.indptr[row + 1])
        values = matrix.data[own]
        least = np.partition(values, len(values) - k)[len(values) - k]
        above = values > least
        above[np.flatnonzero(values == least)[: k - above.sum()]] = True
        kept[own] = above
    ends = np.concatenate([[0], np.cumsum(kept)])[matrix.indptr]
    return sparse.csr_array((matrix.data[kept], matrix.indices[kept], ends), shape=matrix.shape)
