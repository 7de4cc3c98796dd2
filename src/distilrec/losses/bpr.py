"""Bayesian personalized ranking."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

__all__ = ["bpr"]


def bpr(positive: Tensor, negatives: Tensor) -> Tensor:
    """Mean of -log sigmoid(s_positive - s_negative) over the N negatives: [B].

    Args:
        positive: [B]; negatives: [B, N], -inf entries (collisions with the true item) count as 0 loss.

    Source: Rendle et al., "BPR: Bayesian Personalized Ranking from Implicit Feedback", UAI 2009.
    """
    return F.softplus(negatives - positive[:, None]).mean(1)
