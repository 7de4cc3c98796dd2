"""The likelihood of the teacher's order of its own list."""

from __future__ import annotations

import torch
from torch import Tensor

from distilrec.losses.candidates import listed

__all__ = ["in_order", "mean_listed", "plackett_luce"]


def plackett_luce(student: Tensor, teacher: Tensor) -> Tensor:
    """-log P(the teacher's order) / K, items drawn one after the other in proportion to exp(s): [B].

        loss = 1/K sum_k ( log sum_{j >= k} exp s_j - s_k ),   k in the teacher's order

    Args:
        student, teacher: [B, K] scores; of the teacher only the order is read (ties: as they stand). Items that it
            rules out (see `candidates.listed`) stand below all others, in no order.

    Source: Plackett, 1975, and Luce, 1959; as a loss Xia, Liu, Wang, Zhang & Li, "Listwise Approach to Learning to
    Rank", ICML 2008 (ListMLE).
    """
    ordered = in_order(student, teacher)
    tail = ordered.flip(1).logcumsumexp(1).flip(1)
    return mean_listed(tail - ordered, teacher)


def in_order(student: Tensor, teacher: Tensor) -> Tensor:
    """[B, K]: the student's scores, the teacher's best item first."""
    return student.gather(1, teacher.argsort(dim=1, descending=True, stable=True))


def mean_listed(ordered: Tensor, teacher: Tensor) -> Tensor:
    """[B]: the mean of values [B, K] in the teacher's order over the items that it did not rule out."""
    sizes = listed(teacher).sum(1, keepdim=True)
    place = torch.arange(ordered.shape[1], device=ordered.device)
    return torch.where(place < sizes, ordered, 0.0).sum(1) / sizes.squeeze(1).clamp(min=1)
