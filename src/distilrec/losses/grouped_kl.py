"""Soft labels among items of like popularity, so that a popular list does not teach popularity."""

from __future__ import annotations

import torch
from torch import Tensor

from distilrec.losses.candidates import listed

__all__ = ["grouped_kl"]


def grouped_kl(
    student: Tensor, teacher: Tensor, groups: Tensor, *, temperature: float | Tensor = 1.0, n_groups: int = 4
) -> Tensor:
    """Mean over the groups present of t^2 * KL(teacher || student), both normalized within the group: [B].

    How much the teacher prefers popular items as such is never seen by the student: only who comes first among
    items that are about as popular.

    Args:
        student, teacher: [B, K] scores of the items that the teacher kept.
        groups: int64 [B, K] below `n_groups`, the popularity group of each item; a group with a single item of a row
            says nothing and is left out of its mean. Items that the teacher rules out are in none.
        temperature: t, a number or [B].

    Source: Chen et al., "Unbiased Knowledge Distillation for Recommendation", WSDM 2023 (UnKD), who form groups of
    equal popularity mass and learn the teacher's order within them from sampled pairs; here a whole list counts.
    """
    t = temperature[:, None] if isinstance(temperature, Tensor) else temperature
    least = torch.finfo(student.dtype).min / 4
    total = student.new_zeros(len(student))
    present = student.new_zeros(len(student))
    known = listed(teacher)
    for group in range(n_groups):
        inside = known & (groups == group)
        enough = inside.sum(1) > 1
        log_p = torch.log_softmax((teacher / t).masked_fill(~inside, least), 1)
        log_q = torch.log_softmax((student / t).masked_fill(~inside, least), 1)
        divergence = torch.where(inside, log_p.exp() * (log_p - log_q), 0.0).sum(1)
        total = total + torch.where(enough, divergence, 0.0)
        present = present + enough
    return temperature**2 * total / present.clamp(min=1)
