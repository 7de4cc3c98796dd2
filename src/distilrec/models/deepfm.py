"""DeepFM: a factorization machine and dense layers over the same vectors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from distilrec.features import Feature
from distilrec.models.fields import FieldTable, Inputs
from distilrec.models.fm import pairs
from distilrec.models.layers import Dense, Dot, outputs_of

__all__ = ["DeepFM"]


class DeepFM(nn.Module):
    """Linear terms, pairs of fields and dense layers, summed (Guo et al., IJCAI 2017).

    When to use it: click logs with many categories; the usual teacher where nothing else is known.

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
        self.dot = Dot(dim, outputs)
        self.dense = Dense(len(self.table.names) * dim, hidden, dropout=dropout, batch_norm=batch_norm)
        self.output = nn.Linear(self.dense.width, outputs, bias=False)
        self.output_bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, inputs: Inputs) -> dict[str, Tensor]:
        """scores [B, O]; hidden [B, H], the last layer of the deep part."""
        vectors, linear = self.table(inputs), self.first(inputs).sum(1)
        hidden = self.dense(vectors.flatten(1))
        scores = linear + self.dot(pairs(vectors)) + self.output(hidden) + self.output_bias
        return {"scores": scores, "hidden": hidden}
