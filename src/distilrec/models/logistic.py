"""Logistic regression (binary heads) and linear regression (number heads)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from distilrec.features import Feature
from distilrec.models.fields import FieldTable, Inputs
from distilrec.models.layers import outputs_of

__all__ = ["Logistic"]


class Logistic(nn.Module):
    """One weight per id and per number, summed: the baseline that every other model has to beat, and the smallest
    student. A list counts with the mean of its weights. Crosses of columns are the way to give it interactions.

    Args:
        fields: the features it reads. heads: outputs of each head. There is no `dim`: a weight is one number.
    """

    def __init__(self, fields: Sequence[Feature], heads: Sequence[int]) -> None:
        super().__init__()
        outputs = outputs_of(heads)
        self.table = FieldTable(fields, outputs, scale=0.0)
        self.output_bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, inputs: Inputs) -> dict[str, Tensor]:
        return {"scores": self.table(inputs).sum(1) + self.output_bias}
