"""Ratings and other numbers: the squared distance from the label."""

from __future__ import annotations

from torch import Tensor

__all__ = ["squared_error"]


def squared_error(values: Tensor, labels: Tensor) -> Tensor:
    """(value - label)^2: the shape of its arguments, one value per output: [B] or [B, C].

    Training divides it by the variance of the train labels, so that a head of seconds does not drown one of stars.

    Source: Gauss, "Theoria combinationis observationum erroribus minimis obnoxiae", 1823.
    """
    return (values - labels).square()
