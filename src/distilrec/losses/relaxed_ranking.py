"""The teacher's order of its list, all of it above everything else."""

from __future__ import annotations

import torch
from torch import Tensor

from distilrec.losses.candidates import log_sum
from distilrec.losses.plackett_luce import in_order, mean_listed

__all__ = ["relaxed_ranking"]


def relaxed_ranking(student: Tensor, teacher: Tensor, *, others: Tensor, times: Tensor | float = 1.0) -> Tensor:
    """-log P(the K items come first, in the teacher's order) / K; the order of the others is free: [B].

        loss = 1/K sum_k ( log( sum_{j >= k} exp s_j + sum_others exp s ) - s_k ),   k in the teacher's order

    Args:
        student, teacher: [B, K] scores of the items that the teacher kept (the interesting ones); those that
            it rules out only count as being below the others.
        others: [B, N] the student's scores of other items (the uninteresting ones), -inf where one is not to count;
            times: how many items each stands for, see `candidates.log_sum`.

    Source: Kang, Hwang, Kweon & Yu, "DE-RRD: A Knowledge Distillation Framework for Recommender System", CIKM 2020.
    They sample the interesting items anew in every epoch and count a handful of uninteresting ones; here the list is
    taken whole and the sum over the rest is estimated without bias.
    """
    ordered = in_order(student, teacher)
    tail = ordered.flip(1).logcumsumexp(1).flip(1)
    rest = log_sum(others, times)[:, None]
    return mean_listed(torch.logaddexp(tail, rest.expand_as(tail)) - ordered, teacher)
