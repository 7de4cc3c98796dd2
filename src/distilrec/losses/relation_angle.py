"""The geometry of a batch: the angles that anchors see between one another."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from distilrec.losses.directions import unit

__all__ = ["relation_angle"]


def relation_angle(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean over pairs of others of huber(cos of the angle at the anchor, the teacher's), per anchor: [B].

    Args:
        student: [B, D], teacher: [B, E] vectors of the same B anchors; widths may differ. Memory is B^3 numbers: take
            few anchors (64 make 1 MB). Fewer than three anchors cost nothing.

    Source: Park, Kim, Lu & Cho, "Relational Knowledge Distillation", CVPR 2019 (angle-wise).
    """
    errors = F.huber_loss(_cosines(student), _cosines(teacher), reduction="none", delta=1.0)
    size = len(student)
    return errors.sum((1, 2)) / max(1, (size - 1) * (size - 2))


def _cosines(x: Tensor) -> Tensor:
    """[B, B, B]: at anchor i, between the directions to j and to k; 0 where two of them are one."""
    direction = unit(x[None] - x[:, None], least=1e-6)
    cosines = direction @ direction.transpose(1, 2)
    index = torch.arange(len(x), device=x.device)
    same = (index[None, :, None] == index[None, None, :]).expand_as(cosines)
    return cosines.masked_fill(same, 0.0)
