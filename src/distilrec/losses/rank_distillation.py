"""The teacher's best items as further positives, those most that the student ranks too low."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from distilrec.losses.candidates import listed, ranks
from distilrec.losses.plackett_luce import in_order

__all__ = ["rank_distillation"]


def rank_distillation(
    student: Tensor, teacher: Tensor, *, others: Tensor, times: Tensor | float = 1.0, decay: float = 0.1,
    sharpness: float = 0.1,
) -> Tensor:
    """-sum_k w_k log sigmoid(s_k), w from the teacher's rank and from how far below it the student's is: [B].

        w_k ~ exp(-(k - 1) / (decay K)) * tanh( sharpness * max(0, rank_student(k) - k) ),   k in the teacher's order

    The first factor sums to 1 over the list; an item that stands where it should, or higher, costs nothing.

    Args:
        student, teacher: [B, K] scores of the items that the teacher kept; what it rules out has no weight.
        others: [B, N] the student's scores of other items, times: as in `candidates.log_sum`; the student's ranks are
            estimated from them and carry no gradient.
        decay: how fast the weight falls along the list, as a share of its length.
        sharpness: of the reaction to a rank that is too low.

    Source: Tang & Wang, "Ranking Distillation: Learning Compact Ranking Models With High Performance for Recommender
    System", KDD 2018. There is no force that pushes anything down: use it beside a loss with negatives.
    """
    ordered = in_order(student, teacher)
    place = torch.arange(ordered.shape[1], device=ordered.device, dtype=ordered.dtype)
    fall = (-place / max(decay * ordered.shape[1], 1e-6)).expand_as(ordered)
    by_rank = torch.softmax(fall.masked_fill(place >= listed(teacher).sum(1, keepdim=True), -torch.inf), 1)
    short = (ranks(ordered.detach(), others.detach(), times) - (place + 1)).clamp(min=0)
    return (by_rank * torch.tanh(sharpness * short) * -F.logsigmoid(ordered)).sum(1)
