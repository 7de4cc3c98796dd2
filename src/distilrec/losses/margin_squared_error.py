"""The teacher's distances between items, for every pair of its list."""

from __future__ import annotations

import torch
from torch import Tensor

from distilrec.losses.candidates import listed

__all__ = ["margin_squared_error"]


def margin_squared_error(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean over ordered pairs of ((s_i - s_j) - (z_i - z_j))^2: [B].

    With d = s - z this is the mean of (d_i - d_j)^2 = 2 K / (K - 1) times the variance of d: no pair is written out.

    Args:
        student, teacher: [B, K] logits on one scale; a constant shift of either changes nothing. K = 1 costs nothing,
            nor does an item that the teacher rules out (see `candidates.listed`).

    Source: Hofstätter, Althammer, Schröder, Sertkan & Hanbury, "Improving Efficient Neural Ranking Models with
    Cross-Architecture Knowledge Distillation", 2020 (Margin-MSE), for all pairs of a list.
    """
    known = listed(teacher)
    size = known.sum(1)
    difference = torch.where(known, student - teacher, 0.0)
    mean = difference.sum(1) / size.clamp(min=1)
    spread = torch.where(known, difference - mean[:, None], 0.0).square().sum(1)
    return 2 * spread / (size - 1).clamp(min=1)
