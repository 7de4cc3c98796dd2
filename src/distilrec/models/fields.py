"""What a pointwise model reads, and the one table that turns it into a vector per field.

Letters in shapes: B rows of a batch, F fields, Fc, Fn category and number fields among them, L ids of the longest list,
D width of a field's vector, O outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from distilrec.errors import DataError, RecipeError, problem
from distilrec.features import RAGGED_KINDS, Feature
from distilrec.models.layers import Dropout

__all__ = ["FieldTable", "Inputs", "field_order", "inputs_of"]

SCALE = 0.05  # standard deviation of a fresh vector


@dataclass(frozen=True, eq=False)
class Inputs:
    """The encoded fields of B rows, grouped by kind; within a group the fields keep the order of the features."""

    ids: Tensor  # int64 [B, Fc]
    ragged: tuple[Tensor, ...]  # int64 [B, L] each, -1 pads on the right
    numbers: Tensor  # float32 [B, Fn]
    vectors: tuple[Tensor, ...]  # float32 [B, Dv] each

    def __len__(self) -> int:
        return self.ids.shape[0]

    def take(self, rows: Tensor) -> Inputs:
        """The given rows, lists cut to the longest among them (on an accelerator they keep their width, because
        looking would make it wait)."""
        picked = tuple(one.index_select(0, rows) for one in self.ragged)
        return Inputs(
            self.ids.index_select(0, rows), picked if rows.is_cuda else tuple(map(_cut, picked)),
            self.numbers.index_select(0, rows), tuple(one.index_select(0, rows) for one in self.vectors),
        )

    def to(self, device: str | torch.device) -> Inputs:
        return Inputs(self.ids.to(device), tuple(one.to(device) for one in self.ragged), self.numbers.to(device),
                      tuple(one.to(device) for one in self.vectors))

    def flat(self) -> tuple[Tensor, ...]:
        """The tensors side by side for tools that know no dataclass: ids, ragged, numbers, vectors; a group without
        fields is left out."""
        ids = (self.ids,) if self.ids.shape[1] else ()
        numbers = (self.numbers,) if self.numbers.shape[1] else ()
        return (*ids, *self.ragged, *numbers, *self.vectors)

    @classmethod
    def of_flat(cls, features: Sequence[Feature], tensors: Sequence[Tensor]) -> Inputs:
        """The inverse of `flat`."""
        groups, left = field_order(features), list(tensors)
        expected = bool(groups["category"]) + len(groups["ragged"]) + bool(groups["number"]) + len(groups["vector"])
        if len(left) != expected:
            raise DataError(problem(f"{len(left)} tensors for these features", f"{expected}, in the order of flat()"))
        rows = left[0].shape[0]
        ids = left.pop(0) if groups["category"] else left[0].new_zeros((rows, 0), dtype=torch.int64)
        ragged = tuple(left.pop(0) for _ in groups["ragged"])
        numbers = left.pop(0) if groups["number"] else ids.new_zeros((rows, 0), dtype=torch.float32)
        return cls(ids, ragged, numbers, tuple(left))


def field_order(features: Sequence[Feature]) -> dict[str, list[Feature]]:
    """The features by group, {"category", "ragged", "number", "vector"}; this is the order of the fields too."""
    groups: dict[str, list[Feature]] = {"category": [], "ragged": [], "number": [], "vector": []}
    for feature in features:
        groups["ragged" if feature.kind in RAGGED_KINDS else feature.kind].append(feature)
    return groups


def inputs_of(
    features: Sequence[Feature], columns: Mapping[str, np.ndarray], rows: np.ndarray | slice | None = None,
    device: str | torch.device = "cpu",
) -> Inputs:
    """The inputs of some rows (None: all) of encoded columns.

    Raises:
        DataError: no features, or a column that is not there.
    """
    missing = [one.name for one in features if one.name not in columns]
    if missing or not features:
        raise DataError(problem(f"no column for {', '.join(missing)}" if missing else "a model that reads no feature",
                                ", ".join(columns), "encode the table with the features the model was trained on"))
    picked = {one.name: columns[one.name] if rows is None else columns[one.name][rows] for one in features}
    groups, n = field_order(features), len(picked[features[0].name])
    ids, numbers = np.empty((n, len(groups["category"])), np.int64), np.empty((n, len(groups["number"])), np.float32)
    for place, feature in enumerate(groups["category"]):
        ids[:, place] = picked[feature.name]
    for place, feature in enumerate(groups["number"]):
        numbers[:, place] = picked[feature.name]
    ragged = tuple(_cut(torch.as_tensor(picked[one.name]).long()) for one in groups["ragged"])
    vectors = tuple(torch.as_tensor(np.asarray(picked[one.name], dtype=np.float32)) for one in groups["vector"])
    return Inputs(torch.as_tensor(ids), ragged, torch.as_tensor(numbers), vectors).to(device)


def _cut(ids: Tensor) -> Tensor:
    """[B, L] without the columns that hold nothing but pads; one column stays."""
    return ids[:, : max(1, int((ids >= 0).any(0).sum()))]


class FieldTable(nn.Module):
    """A vector [D] for every field of a row, from one fused table over all ids.

    category: the row of its id. list, sequence, text: the mean of the rows of their ids, zeros where there are none.
    number: a learned vector times the value. vector: a linear map. A sequence shares the rows of the category feature
    it is a history `of`, when the model reads that one. Id 0 (unknown or missing) starts at zero, and so says nothing
    until rows with it were seen.

    The first-order weights of linear models are such a table too, D = O wide and starting at zero.

    Args:
        features: in the order of the columns; the fields stand as `field_order` groups them, named in `names`.
        dim: D. dropout: on the numbers of the vectors, in training.
        scale: standard deviation of a fresh vector.
        leave_out: names of ragged features that the model pools itself from `history`.
    Raises:
        RecipeError: no features, or a width below 1. DataError: a sequence and its `of` of unlike vocabularies.
    """

    def __init__(
        self, features: Sequence[Feature], dim: int, *, dropout: float = 0.0, scale: float = SCALE,
        leave_out: Sequence[str] = (),
    ) -> None:
        super().__init__()
        if not features or dim < 1:
            raise RecipeError(problem(f"{len(features)} features as vectors of width {dim}",
                                      "at least one feature, dim >= 1", "mend `features` or `dim`"))
        self.dim, self.features = dim, tuple(features)
        groups = field_order(features)
        self.number_names = [one.name for one in groups["number"]]
        self.vector_names = [one.name for one in groups["vector"]]
        self.ragged_names = tuple(one.name for one in groups["ragged"])
        self.pooled = tuple(place for place, one in enumerate(groups["ragged"]) if one.name not in leave_out)
        starts, rows = _places(groups["category"] + groups["ragged"])
        self.weight = nn.Parameter(torch.randn(rows, dim) * scale) if rows else None
        if self.weight is not None:
            with torch.no_grad():
                self.weight[sorted(set(starts.values()))] = 0.0
        self.offsets: Tensor
        self.register_buffer("offsets", torch.tensor([starts[one.name] for one in groups["category"]],
                                                     dtype=torch.int64), persistent=False)
        self.ragged_offsets = tuple(starts[one.name] for one in groups["ragged"])
        self.starts = starts
        numbers = len(self.number_names)
        self.number_weight = nn.Parameter(torch.randn(numbers, dim) * scale) if numbers else None
        self.vector_weight = nn.ParameterList(
            nn.Parameter(torch.randn(one.dim, dim) * scale) for one in groups["vector"]
        )
        # of training.lazy_adam: called in training with the table and the places of the rows that are about to be read
        self.before_read: Callable[[Tensor, Tensor], None] | None = None
        self.dropout = Dropout(dropout)
        kept = [one for one in groups["ragged"] if one.name not in leave_out]
        self.names = tuple(one.name for one in (*groups["category"], *kept, *groups["number"], *groups["vector"]))

    def forward(self, inputs: Inputs) -> Tensor:
        """[B, F, D]."""
        parts = []
        if self.offsets.shape[0]:
            parts.append(self._rows(inputs.ids + self.offsets))
        parts += [self._mean(inputs.ragged[place], self.ragged_offsets[place])[:, None] for place in self.pooled]
        if self.number_weight is not None:
            parts.append(inputs.numbers[:, :, None] * self.number_weight)
        parts += [(one @ weight)[:, None] for one, weight in zip(inputs.vectors, self.vector_weight, strict=True)]
        return self.dropout(torch.cat(parts, 1) if len(parts) > 1 else parts[0])

    def history(self, inputs: Inputs, name: str) -> tuple[Tensor, Tensor]:
        """([B, L, D] the vectors of a ragged field, bool [B, L] where there is an id)."""
        place = self.ragged_names.index(name)
        ids = inputs.ragged[place]
        vectors = self._rows(ids.clamp(min=0) + self.ragged_offsets[place])
        return self.dropout(vectors), ids >= 0

    @torch.no_grad()
    def scale_fields(self, shares: Mapping[str, float]) -> None:
        """Multiply the vectors of each field by the root of its share of importance, shares averaging 1 after it.

        A start from what a teacher found useful: within a factor of 5, so that no field is lost or drowns the others.
        """
        total = sum(shares.get(name, 0.0) for name in self.names)
        if total <= 0:
            raise DataError(problem("no importance for any of the fields " + ", ".join(self.names),
                                    "shares by the features' names"))
        for one in self.features:
            factor = min(5.0, max(0.2, (shares.get(one.name, 0.0) * len(self.names) / total) ** 0.5))
            if one.name in self.number_names and self.number_weight is not None:
                self.number_weight[self.number_names.index(one.name)] *= factor
            elif one.name in self.vector_names:
                self.vector_weight[self.vector_names.index(one.name)].mul_(factor)
            elif isinstance(self.weight, Tensor) and (one.kind != "sequence" or self._owns(one)):
                start = self.starts[one.name]
                self.weight[start : start + one.size] *= factor

    def _owns(self, sequence: Feature) -> bool:
        """Whether a sequence has rows of its own."""
        return self.starts[sequence.name] != self.starts.get(sequence.of or "")

    def _rows(self, places: Tensor) -> Tensor:
        """[...] places -> [..., D]."""
        weight = self.weight
        if not isinstance(weight, Tensor):
            raise ValueError("a table without id features was asked for rows")
        if self.before_read is not None and self.training:
            self.before_read(weight, places)
            return F.embedding(places, weight, sparse=True)
        if self.training and not weight.is_cuda:
            return _Gather.apply(places, weight)
        return F.embedding(places, weight)

    def _mean(self, ids: Tensor, offset: int) -> Tensor:
        """[B, D]: the mean over the ids of each row. In training on a CPU only the ids that are there are touched."""
        there = ids >= 0
        count = there.sum(1, keepdim=True).clamp(min=1)
        if self.training and not ids.is_cuda:
            vectors = self._rows(ids[there] + offset)
            row = there.nonzero()[:, 0]
            return vectors.new_zeros((len(ids), self.dim)).index_add(0, row, vectors) / count
        vectors = self._rows(ids.clamp(min=0) + offset)
        share = there.to(vectors.dtype) / count
        return torch.matmul(share[:, None], vectors)[:, 0]


class _Gather(torch.autograd.Function):
    """The rows of a table. The same numbers as torch's embedding; on a CPU its backward pass takes a quarter of the
    time, because it adds the rows up in place."""

    @staticmethod
    def forward(ctx: Any, places: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(places)
        ctx.shape = weight.shape
        return F.embedding(places, weight)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor]:
        (places,) = ctx.saved_tensors
        return None, grads[0].new_zeros(ctx.shape).index_put((places,), grads[0], accumulate=True)


def _places(features: Sequence[Feature]) -> tuple[dict[str, int], int]:
    """(first row of each id feature in the fused table, number of rows)."""
    categories = {one.name: one for one in features if one.kind == "category"}
    starts: dict[str, int] = {}
    rows = 0
    for feature in features:  # categories come first, so a shared one has its place already
        shared = categories.get(feature.of or "") if feature.kind == "sequence" else None
        if shared is not None and shared.size != feature.size:
            raise DataError(problem(f"sequence {feature.name!r} has {feature.size} ids, {shared.name!r} {shared.size}",
                                    "the vocabulary of its `of`", "prepare the table again"))
        if shared is not None:
            starts[feature.name] = starts[shared.name]
        else:
            starts[feature.name], rows = rows, rows + feature.size
    return starts, rows
