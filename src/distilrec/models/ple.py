"""Progressive layered extraction: experts of their own for each head beside shared ones."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from distilrec.errors import RecipeError, problem
from distilrec.features import Feature
from distilrec.models.fields import FieldTable, Inputs
from distilrec.models.layers import Dense, Towers, outputs_of
from distilrec.models.mmoe import mix

__all__ = ["PLE", "Extraction"]


class Extraction(nn.Module):
    """One level: a head mixes its own experts with the shared ones; the shared way, except on the last level, mixes
    all of them."""

    def __init__(
        self, width: int, heads: int, own: int, shared: int, hidden: Sequence[int], *, last: bool, dropout: float,
        batch_norm: bool,
    ) -> None:
        super().__init__()

        def group(size: int) -> nn.ModuleList:
            return nn.ModuleList(Dense(width, hidden, dropout=dropout, batch_norm=batch_norm) for _ in range(size))

        self.own, self.shared = group(heads * own), group(shared)
        self.size = own  # experts of head h stand from h * own
        self.gates = nn.ModuleList(nn.Linear(width, own + shared, bias=False) for _ in range(heads))
        self.shared_gate = None if last else nn.Linear(width, heads * own + shared, bias=False)

    def forward(self, ways: list[Tensor]) -> list[Tensor]:
        """[B, width] per head and, last, the shared way -> the same with [B, H]; the last level has no shared way."""
        shared = [expert(ways[-1]) for expert in self.shared]
        own = [expert(ways[place // self.size]) for place, expert in enumerate(self.own)]
        out = [mix(torch.stack([*own[head * self.size : (head + 1) * self.size], *shared], 1), gate(ways[head]))
               for head, gate in enumerate(self.gates)]
        if self.shared_gate is not None:
            out.append(mix(torch.stack([*own, *shared], 1), self.shared_gate(ways[-1])))
        return out


class PLE(nn.Module):
    """Progressive layered extraction (Tang et al., RecSys 2020); with one level it is their CGC.

    When to use it: a teacher of several tasks that disturb each other under models.mmoe.

    Args: as in models.mlp (`hidden` are the widths of one expert), and
        levels: extractions one after another. own, shared: experts of each head and of all, per level.
        tower: widths of the dense layers of each head's tower.
    """

    def __init__(
        self, fields: Sequence[Feature], heads: Sequence[int], *, dim: int = 16, levels: int = 1, own: int = 1,
        shared: int = 2, hidden: Sequence[int] = (64,), tower: Sequence[int] = (32,), dropout: float = 0.0,
        embedding_dropout: float = 0.0, batch_norm: bool = False,
    ) -> None:
        super().__init__()
        if levels < 1 or own < 1 or shared < 1:
            raise RecipeError(problem(f"{levels} levels of {own} own and {shared} shared experts", "1 or more of each"))
        outputs = outputs_of(heads)
        self.heads = len(heads)
        self.table = FieldTable(fields, dim, dropout=embedding_dropout)
        width = len(self.table.names) * dim
        inner = hidden[-1] if hidden else width
        self.levels = nn.ModuleList(
            Extraction(width if level == 0 else inner, len(heads), own, shared, hidden, last=level == levels - 1,
                       dropout=dropout, batch_norm=batch_norm) for level in range(levels)
        )
        self.towers = Towers(inner, heads, tower, dropout=dropout, batch_norm=batch_norm)
        self.output_bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, inputs: Inputs) -> dict[str, Tensor]:
        """scores [B, O]; hidden [B, H], the last layers of all towers side by side; shared, what all experts read."""
        shared = self.table(inputs).flatten(1)
        ways = [shared] * (self.heads + 1)
        for level in self.levels:
            ways = level(ways)
        scores, hidden = self.towers(ways)
        return {"scores": scores + self.output_bias, "hidden": hidden, "shared": shared}
