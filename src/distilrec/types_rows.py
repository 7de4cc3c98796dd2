"""The contracts of the pointwise tasks (predict, tag): rows of features in, one number per output out.

Letters in shapes: N rows, F features, C classes of a head, O outputs (the classes of all heads side by side).
The key of a row, in knowledge and everywhere else, is its position in the table.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Literal, Protocol, runtime_checkable

import numpy as np

from distilrec.errors import DataError, problem
from distilrec.features import Feature
from distilrec.files import digest_arrays, digest_json
from distilrec.types import PARTS, Part

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Head", "Outputs", "Predictor", "RowSplit"]


@dataclass(frozen=True)
class Head:
    """One thing to predict.

    binary: happens or not; the output is a logit. number: a rating, a time; the output is the value itself.
    tags: C independent yes-or-no classes; C logits.
    after: a binary head can only happen after another one has (a purchase after a click). Its label is known on
        every row (0 where the other did not happen) and its output is the logit of both happening, sigmoid(own) times
        sigmoid(the other's): the entire-space model of Ma et al., SIGIR 2018, which has no sample-selection bias.
    """

    name: str
    kind: Literal["binary", "number", "tags"] = "binary"
    classes: tuple[str, ...] = ()  # of tags; otherwise the head's own name
    after: str | None = None

    @property
    def columns(self) -> tuple[str, ...]:
        return self.classes if self.kind == "tags" else (self.name,)


class Outputs:
    """Where each head's columns lie among the O outputs of a model."""

    def __init__(self, heads: tuple[Head, ...]) -> None:
        self.heads = heads
        self.slices: dict[str, slice] = {}
        start = 0
        for head in heads:
            self.slices[head.name] = slice(start, start + len(head.columns))
            start += len(head.columns)
        self.size = start

    @property
    def sizes(self) -> list[int]:
        return [len(head.columns) for head in self.heads]


@dataclass(frozen=True, eq=False)
class RowSplit:
    """A table of examples, encoded, with every row in exactly one of train, valid, test."""

    name: str
    method: str  # "random", "time", "given", "k-fold"
    features: Mapping[str, Feature]  # fitted on train rows only
    columns: Mapping[str, np.ndarray]  # feature -> encoded, see features.encode: [N] or [N, L] or [N, dim]
    heads: tuple[Head, ...]
    labels: Mapping[str, np.ndarray]  # head -> float32 [N, C]; NaN where it was not observed
    parts: np.ndarray  # int8 [N]: 0 train, 1 valid, 2 test
    raw: pa.Table  # the columns as they were read, for outside teachers, trees and slices; row i is row i
    groups: np.ndarray | None = None  # int32 [N], whose list a row belongs to (user or request), for GAUC and intervals
    weights: np.ndarray | None = None  # float32 [N]
    counts: Mapping[str, int] = field(default_factory=dict)  # what reading and splitting dropped, by reason
    quarantine: pa.Table | None = None

    def __post_init__(self) -> None:
        wrong = [name for name, array in {**self.columns, **self.labels}.items() if len(array) != len(self.parts)]
        if wrong:
            raise DataError(problem(f"columns of other lengths than the {len(self.parts)} rows: {', '.join(wrong)}",
                                    "one entry per row", "build the split with distilrec.prepare"))

    def __len__(self) -> int:
        return len(self.parts)

    def __repr__(self) -> str:
        rows = ", ".join(f"{self.n_rows(part):,} {part}" for part in PARTS)
        heads = ", ".join(head.name for head in self.heads)
        return f"RowSplit({self.name!r}, {len(self.features)} features -> {heads}, {rows})"

    @cached_property
    def outputs(self) -> Outputs:
        return Outputs(self.heads)

    @cached_property
    def digest(self) -> str:
        """Changes with any encoded value, label, part or fitted feature."""
        arrays = [self.columns[name] for name in sorted(self.columns)] + [self.labels[head.name] for head in self.heads]
        arrays += [array for array in (self.groups, self.weights) if array is not None]
        described = digest_json([
            self.method, {name: one.to_json() for name, one in self.features.items()},
            [[head.name, head.kind, list(head.classes), head.after] for head in self.heads],
        ])
        return digest_arrays(described, self.parts, *arrays)

    def rows(self, part: Part) -> np.ndarray:
        """int64 [n]: the rows of a part, rising."""
        return np.flatnonzero(self.parts == PARTS.index(part))

    def n_rows(self, part: Part) -> int:
        return int((self.parts == PARTS.index(part)).sum())

    def label_matrix(self, rows: np.ndarray) -> np.ndarray:
        """float32 [n, O]: the labels of all heads side by side, NaN where not observed."""
        return np.concatenate([self.labels[head.name][rows] for head in self.heads], axis=1)


@runtime_checkable
class Predictor(Protocol):
    """Anything that answers rows: a trained model, trees, an outside scorer, a bundle.

    It may also have `hidden(split, rows)` float32 [n, H] (its last hidden layer), `importance()` {feature: share},
    and a `digest` that changes with its answers.
    """

    @property
    def name(self) -> str: ...

    def predict(self, split: RowSplit, rows: np.ndarray) -> np.ndarray:
        """float32 [n, O]: a logit per class of a binary or tags head (of both, for a head `after` another), the
        value of a number head; never a probability."""
        ...

    @property
    def parameters(self) -> int:
        """Every number that is read to answer, frozen tables included."""
        ...
