"""DCN-V2: layers that cross every field with every other, beside or before dense layers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from distilrec.errors import RecipeError, problem
from distilrec.features import Feature
from distilrec.models.fields import FieldTable, Inputs
from distilrec.models.layers import Dense, outputs_of

__all__ = ["Cross", "DCNv2"]


class Cross(nn.Module):
    """x -> start * (W x + b) + x, with W [n, n] whole or of the given rank, W = U V."""

    def __init__(self, width: int, rank: int | None = None) -> None:
        super().__init__()
        if rank is not None and rank < 1:
            raise RecipeError(problem(f"rank {rank} of a cross layer", "a whole number from 1, or none for a full W"))
        narrow = nn.Identity() if rank is None else nn.Linear(width, rank, bias=False)
        self.narrow, self.wide = narrow, nn.Linear(rank or width, width)
        nn.init.zeros_(self.wide.bias)

    def forward(self, start: Tensor, x: Tensor) -> Tensor:
        """[B, n], [B, n] -> [B, n]."""
        return torch.addcmul(x, start, self.wide(self.narrow(x)))


class DCNv2(nn.Module):
    """Deep & cross network, version 2 (Wang et al., WWW 2021): after l cross layers there is a term for every product
    of up to l + 1 fields.

    When to use it: the strongest single model on most click logs.

    Args: as in models.mlp, and
        cross_layers: how many. rank: of their matrices, None for full ones; a quarter of F D keeps nearly all.
        structure: "parallel", cross and dense layers side by side, or "stacked", cross layers first.
    """

    def __init__(
        self, fields: Sequence[Feature], heads: Sequence[int], *, dim: int = 16, cross_layers: int = 3,
        rank: int | None = None, structure: Literal["parallel", "stacked"] = "parallel",
        hidden: Sequence[int] = (128, 64), dropout: float = 0.0, embedding_dropout: float = 0.0,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        if cross_layers < 1 or structure not in ("parallel", "stacked"):
            raise RecipeError(problem(f"{cross_layers} cross layers, {structure!r}", "1 or more; parallel | stacked"))
        if structure == "parallel" and not hidden:
            raise RecipeError(problem("a parallel DCNv2 without dense layers", "`hidden` with a width or more",
                                      "`structure: stacked` is the cross network alone"))
        outputs = outputs_of(heads)
        self.table = FieldTable(fields, dim, dropout=embedding_dropout)
        width = len(self.table.names) * dim
        self.stacked = structure == "stacked"
        self.cross = nn.ModuleList(Cross(width, rank) for _ in range(cross_layers))
        self.dense = Dense(width, hidden, dropout=dropout, batch_norm=batch_norm)
        self.output = nn.Linear(self.dense.width + (0 if self.stacked else width), outputs, bias=False)
        self.output_bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, inputs: Inputs) -> dict[str, Tensor]:
        """scores [B, O]; hidden [B, H]: what the output reads, the crossed vector first where both stand side by
        side."""
        start = self.table(inputs).flatten(1)
        crossed = start
        for layer in self.cross:
            crossed = layer(start, crossed)
        hidden = self.dense(crossed) if self.stacked else torch.cat([crossed, self.dense(start)], 1)
        return {"scores": self.output(hidden) + self.output_bias, "hidden": hidden}
