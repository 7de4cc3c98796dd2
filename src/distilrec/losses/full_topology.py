"""The similarities of everything in the batch to everything else."""

from __future__ import annotations

import torch
from torch import Tensor

from distilrec.losses.directions import unit

__all__ = ["full_topology"]


def full_topology(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean over the other anchors of (cos_student(i, j) - cos_teacher(i, j))^2, per anchor: [B].

    Args:
        student: [B, D], teacher: [B, E] vectors of the same B anchors (users, items, or both); widths may differ. The
            mean keeps the weight independent of the batch size, which the published sum of a B x B matrix does not.

    Source: Kang, Hwang, Kweon & Yu, "Topology Distillation for Recommender System", KDD 2021 (FTD).
    """
    error = (_similarity(student) - _similarity(teacher)).square()
    others = 1 - torch.eye(len(student), dtype=error.dtype, device=error.device)
    return (error * others).sum(1) / max(1, len(student) - 1)


def _similarity(x: Tensor) -> Tensor:
    direction = unit(x)
    return direction @ direction.T
