"""Shared bottom: one network below, a tower per head above."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from distilrec.features import Feature
from distilrec.models.fields import FieldTable, Inputs
from distilrec.models.layers import Dense, Towers, outputs_of

__all__ = ["SharedBottom"]


class SharedBottom(nn.Module):
    """Dense layers that all heads share, then a tower for each (Caruana, Machine Learning 1997).

    When to use it: the small student of several related tasks; where tasks pull apart, see models.mmoe and models.ple.

    Args: as in models.mlp (`hidden` is the shared part), and
        tower: widths of the dense layers of each head's tower.
    """

    def __init__(
        self, fields: Sequence[Feature], heads: Sequence[int], *, dim: int = 16, hidden: Sequence[int] = (128,),
        tower: Sequence[int] = (32,), dropout: float = 0.0, embedding_dropout: float = 0.0, batch_norm: bool = False,
    ) -> None:
        super().__init__()
        outputs = outputs_of(heads)
        self.heads = len(heads)
        self.table = FieldTable(fields, dim, dropout=embedding_dropout)
        self.dense = Dense(len(self.table.names) * dim, hidden, dropout=dropout, batch_norm=batch_norm)
        self.towers = Towers(self.dense.width, heads, tower, dropout=dropout, batch_norm=batch_norm)
        self.output_bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, inputs: Inputs) -> dict[str, Tensor]:
        """scores [B, O]; hidden [B, H], the last layers of all towers side by side; shared, what all towers read."""
        shared = self.dense(self.table(inputs).flatten(1))
        scores, hidden = self.towers([shared] * self.heads)
        return {"scores": scores + self.output_bias, "hidden": hidden, "shared": shared}
