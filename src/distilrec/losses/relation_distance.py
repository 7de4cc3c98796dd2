"""The geometry of a batch: who is near whom, in units of the mean distance."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["relation_distance"]


def relation_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean over the other anchors of huber( |x_i - x_j| / mean distance, the teacher's likewise ), per anchor: [B].

    Args:
        student: [B, D], teacher: [B, E] vectors of the same B anchors; widths may differ. The mean over the others, and
            not their sum, keeps the weight of the loss independent of the batch size. A single anchor costs nothing.

    Source: Park, Kim, Lu & Cho, "Relational Knowledge Distillation", CVPR 2019 (distance-wise).
    """
    ours, theirs = _distances(student), _distances(teacher)
    errors = F.huber_loss(ours, theirs, reduction="none", delta=1.0)
    return errors.sum(1) / max(1, len(student) - 1)


def _distances(x: Tensor) -> Tensor:
    """[B, B] Euclidean, divided by the mean over pairs; zeros on the diagonal, and a gradient of 0 there."""
    # not by way of a matrix product, whose rounding sets equal vectors apart
    distance = torch.cdist(x, x, compute_mode="donot_use_mm_for_euclid_dist")
    pairs = max(1, len(x) * (len(x) - 1))
    return distance / (distance.sum() / pairs).clamp(min=1e-12)
