"""Embeddings and dense layers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from distilrec.features import Feature
from distilrec.models.fields import FieldTable, Inputs
from distilrec.models.layers import Dense, outputs_of

__all__ = ["MLP"]


class MLP(nn.Module):
    """The vectors of all fields side by side, then dense layers: the "deep" part of every model below.

    When to use it: the plain student of anything; the model that learns trees well.

    Args:
        fields: the features it reads. heads: outputs of each head. dim: D.
        hidden: widths of the dense layers. dropout, batch_norm: in each of them.
        embedding_dropout: dropout on the vectors.
    """

    def __init__(
        self, fields: Sequence[Feature], heads: Sequence[int], *, dim: int = 16, hidden: Sequence[int] = (128, 64),
        dropout: float = 0.0, embedding_dropout: float = 0.0, batch_norm: bool = False,
    ) -> None:
        super().__init__()
        outputs = outputs_of(heads)
        self.table = FieldTable(fields, dim, dropout=embedding_dropout)
        self.dense = Dense(len(self.table.names) * dim, hidden, dropout=dropout, batch_norm=batch_norm)
        self.output = nn.Linear(self.dense.width, outputs, bias=False)
        self.output_bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, inputs: Inputs) -> dict[str, Tensor]:
        """scores [B, O]; hidden [B, H], the last layer."""
        hidden = self.dense(self.table(inputs).flatten(1))
        return {"scores": self.output(hidden) + self.output_bias, "hidden": hidden}
