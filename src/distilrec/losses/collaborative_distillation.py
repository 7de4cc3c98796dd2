"""The teacher's opinion of each item by itself, as a yes or no."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["collaborative_distillation"]


def collaborative_distillation(
    student: Tensor, teacher: Tensor, *, others: Tensor, times: Tensor | float = 1.0, temperature: float | Tensor = 1.0,
    center: float = 0.0,
) -> Tensor:
    """Binary cross-entropy of kept items with soft labels, and of other items with the label no: [B].

        loss = mean_k BCE( sigmoid(s_k), sigmoid((z_k - center) / t) ) + mean_others -log(1 - sigmoid(s))

    Args:
        student, teacher: [B, K] scores of the items that the teacher kept.
        others: [B, N] the student's scores of sampled other items, -inf where one is not to count; times: how
            many items each stands for, [N] or one number. Weighted by it their mean is that of the catalog.
        temperature: t, a number or [B]; center: the teacher's logit that means fifty-fifty. Of log-probabilities over I
            items -log(I) is the natural one: as likely as an item drawn blindly.

    Source: Lee, Choi, Lee & Shim, "Collaborative Distillation for Top-N Recommendation", ICDM 2019. They sample items
    by the teacher's rank; here the list is taken whole, and the sample of the rest is the one that the batch shares.
    """
    t = temperature[:, None] if isinstance(temperature, Tensor) else temperature
    label = torch.sigmoid((teacher - center) / t)
    kept = F.binary_cross_entropy_with_logits(student, label, reduction="none").mean(1)
    counted = others > -torch.inf
    weight = counted * times
    no = (F.softplus(others.masked_fill(~counted, -1e4)) * weight).sum(1) / weight.sum(1).clamp(min=1e-9)
    return kept + no
