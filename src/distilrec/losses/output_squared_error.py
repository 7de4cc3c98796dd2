"""The teacher's outputs themselves as targets: logits or ratings."""

from __future__ import annotations

from torch import Tensor

__all__ = ["output_squared_error"]


def output_squared_error(student: Tensor, teacher: Tensor) -> Tensor:
    """(student - teacher)^2 of logits or values: the shape of its arguments, one value per output: [B] or [B, C].

    For logits it is what the softened divergence tends to as the temperature grows: far tails count as much as
    the undecided middle. For ratings it is the soft label.

    Source: Ba & Caruana, "Do Deep Nets Really Need to be Deep?", NIPS 2014; compared with the divergence by Kim et al.,
    "Comparing Kullback-Leibler Divergence and Mean Squared Error Loss in Knowledge Distillation", IJCAI 2021.
    """
    return (student - teacher).square()
