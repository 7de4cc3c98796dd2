"""Wide & Deep: a linear model and dense layers, trained as one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from distilrec.features import Feature
from distilrec.models.fields import FieldTable, Inputs
from distilrec.models.layers import Dense, outputs_of

__all__ = ["WideDeep"]


class WideDeep(nn.Module):
    """Linear terms of every field plus dense layers (Cheng et al., DLRS 2016).

    When to use it: where crosses of columns are among the features, which the wide part remembers one by one.

    Args: as in models.mlp.
    """

    def __init__(
        self, fields: Sequence[Feature], heads: Sequence[int], *, dim: int = 16, hidden: Sequence[int] = (128, 64),
        dropout: float = 0.0, embedding_dropout: float = 0.0, batch_norm: bool = False,
    ) -> None:
        super().__init__()
        outputs = outputs_of(heads)
        self.table = FieldTable(fields, dim, dropout=embedding_dropout)
        self.first = FieldTable(fields, outputs, scale=0.0)
        self.dense = Dense(len(self.table.names) * dim, hidden, dropout=dropout, batch_norm=batch_norm)
        self.output = nn.Linear(self.dense.width, outputs, bias=False)
        self.output_bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, inputs: Inputs) -> dict[str, Tensor]:
        """scores [B, O]; hidden [B, H], the last layer of the deep part."""
        vectors, linear = self.table(inputs), self.first(inputs).sum(1)
        hidden = self.dense(vectors.flatten(1))
        return {"scores": linear + self.output(hidden) + self.output_bias, "hidden": hidden}
