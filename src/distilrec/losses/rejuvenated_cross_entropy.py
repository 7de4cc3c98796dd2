"""Soft labels over the teacher's best items and, against them, the student's own best."""

from __future__ import annotations

import torch
from torch import Tensor

from distilrec.losses.candidates import listed, ranks

__all__ = ["rejuvenated_cross_entropy"]


def rejuvenated_cross_entropy(
    student: Tensor, teacher: Tensor, *, others: Tensor, times: Tensor | float = 1.0,
    temperature: float | Tensor = 1.0, mined: int = 100,
) -> Tensor:
    """Cross-entropy on the kept items that the student ranks among its best K, and on the rest against mined ones: [B].

        loss = t^2 ( |A| / n * CE(A) + |B| / n * CE(B against B and the M others that the student scores highest) )

    A: kept items whose estimated rank by the student is at most K; B: the kept items that are not; n = |A| + |B|. Items
    that the teacher rules out (see `candidates.listed`) are in neither: they are not taught, up or down, and only take
    a rank of the student's. Within each part, labels are the teacher's softmax over it. Cross-entropy on a subset
    bounds NDCG only if the subset holds the student's own top items: A does by its making, B is made to by what is
    mined.

    Args:
        student, teacher: [B, K] scores of the items that the teacher kept.
        others: [B, N] the student's scores of other items, -inf where one is not to count; times: as in
            `candidates.log_sum`, for the ranks only; mined: M, at most N.
        temperature: t, a number or [B].

    Source: Zhu & Zhang, "Rejuvenating Cross-Entropy Loss in Knowledge Distillation for Recommender Systems", ICLR 2026.
    They mine with the teacher's help and let the balance of the two parts be learned; here it is their shares.
    """
    t = temperature[:, None] if isinstance(temperature, Tensor) else temperature
    near = ranks(student.detach(), others.detach(), times) <= student.shape[1]
    known = listed(teacher)
    a, b = near & known, ~near & known
    size = known.sum(1).clamp(min=1)
    hard = others.topk(min(mined, others.shape[1]), 1).values
    inside = _cross_entropy(student / t, teacher / t, a, None)
    outside = _cross_entropy(student / t, teacher / t, b, hard / t)
    return temperature**2 * (a.sum(1) * inside + b.sum(1) * outside) / size


def _cross_entropy(student: Tensor, teacher: Tensor, chosen: Tensor, against: Tensor | None) -> Tensor:
    """[B] with the labels softmax(teacher) over the chosen items; 0 where none is chosen."""
    least = torch.finfo(student.dtype).min / 4  # -inf would make the gradient of an empty row NaN
    p = torch.softmax(teacher.masked_fill(~chosen, least), 1) * chosen
    held = student.masked_fill(~chosen, least)
    log_z = (held if against is None else torch.cat([held, against.clamp(min=least)], 1)).logsumexp(1)
    return torch.where(chosen.any(1), (p * (log_z[:, None] - student)).sum(1), 0.0)
