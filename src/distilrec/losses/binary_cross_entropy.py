"""Clicks, purchases, tags: the negative log-likelihood of a yes or no."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

__all__ = ["binary_cross_entropy"]


def binary_cross_entropy(logits: Tensor, labels: Tensor, *, label_smoothing: float = 0.0) -> Tensor:
    """-y log sigmoid(z) - (1 - y) log sigmoid(-z): the shape of its arguments, one value per output: [B] or [B, C].

    Args:
        logits: z; labels: y in {0, 1}, or any share in between.
        label_smoothing: e in [0, 1): y becomes (1 - e) y + e / 2 (Szegedy et al., CVPR 2016).

    Source: Cox, "The Regression Analysis of Binary Sequences", JRSS B 1958; the logistic regression's own likelihood.
    """
    if label_smoothing:
        labels = labels * (1 - label_smoothing) + 0.5 * label_smoothing
    return F.binary_cross_entropy_with_logits(logits, labels, reduction="none")
