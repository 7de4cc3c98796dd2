"""Factorization machine."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from distilrec.features import Feature
from distilrec.models.fields import FieldTable, Inputs
from distilrec.models.layers import Dot, outputs_of

__all__ = ["FactorizationMachine", "pairs"]


def pairs(vectors: Tensor) -> Tensor:
    """[B, F, D] -> [B, D]: the sum over all pairs of fields of their product, in O(F D) as half of the square of the
    sum less the sum of squares (Rendle, ICDM 2010, lemma 3.1)."""
    return 0.5 * (vectors.sum(1).square() - vectors.square().sum(1))


class FactorizationMachine(nn.Module):
    """Linear terms plus the dot product of every pair of fields (Rendle, ICDM 2010).

    When to use it: many sparse categories, few rows, and as a student: it is small and answers in microseconds.
    With several outputs the pairs are shared and each output weighs their D dimensions (see layers.Dot).

    Args:
        fields: the features it reads. heads: outputs of each head. dim: D.
        embedding_dropout: dropout on the vectors of the pairs.
    """

    def __init__(
        self, fields: Sequence[Feature], heads: Sequence[int], *, dim: int = 16, embedding_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        outputs = outputs_of(heads)
        self.table = FieldTable(fields, dim, dropout=embedding_dropout)
        self.first = FieldTable(fields, outputs, scale=0.0)
        self.dot = Dot(dim, outputs)
        self.output_bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, inputs: Inputs) -> dict[str, Tensor]:
        """scores [B, O]; hidden [B, D], the pairs."""
        vectors, linear = self.table(inputs), self.first(inputs).sum(1)
        products = pairs(vectors)
        return {"scores": linear + self.dot(products) + self.output_bias, "hidden": products}
