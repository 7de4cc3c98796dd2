"""Weights of soft decisions that follow the student: what both agree upon, and what is easy first."""

from __future__ import annotations

import torch
from torch import Tensor

from distilrec.losses.candidates import ranks

__all__ = ["consistency", "pace", "self_paced"]


@torch.no_grad()
def consistency(student: Tensor, teacher: Tensor, others: Tensor, times: Tensor | float) -> Tensor:
    """[n]: the share of the teacher's belief in items that the student, too, has among its best K; mean 1 in the batch.

    Args:
        student, teacher: [n, K] scores of the items that the teacher kept; others, times: see losses.candidates.ranks.

    Source: the weight for consistency of Cui et al., "Distillation Matters: Empowering Sequential Recommenders to Match
    the Performance of Large Language Models", RecSys 2024, taken per decision instead of per item.
    """
    agreed = ranks(student, others, times) <= student.shape[1]
    weight = (torch.softmax(teacher, 1) * agreed).sum(1) + 1e-3
    return weight / weight.mean()


def pace(done: float) -> float:
    """The share of decisions that a curriculum admits when the share `done` of training lies behind: from 0.3 to all at
    the middle."""
    return min(1.0, 0.3 + 1.4 * done)


@torch.no_grad()
def self_paced(values: Tensor, share: float) -> Tensor:
    """[n]: 1 / share for the easiest decisions, those of the least loss, 0 for the others.

    Easy to hard without a row of teacher checkpoints (which Kang et al., "Distillation from Heterogeneous Models for
    Top-K Recommendation", WWW 2023, keep): what the student finds hard now is put off.

    Source: Kumar, Packer & Koller, "Self-Paced Learning for Latent Variable Models", NeurIPS 2010.
    """
    if share >= 1 or len(values) < 2:
        return torch.ones_like(values)
    kept = max(1, round(share * len(values)))
    out = torch.zeros_like(values)
    out[values.argsort(stable=True)[:kept]] = len(values) / kept
    return out
