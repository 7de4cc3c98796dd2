"""Where a model looks: the student's attention over the history follows the teacher's."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["attention_transfer"]


def attention_transfer(student: Tensor, teacher: Tensor, *, mask: Tensor | None = None) -> Tensor:
    """KL(teacher || student) of two distributions over the L past events: [B].

    Heads are averaged and layers paired before, so that models with unlike numbers of both can be compared.

    Args:
        student, teacher: [B, L], rows that sum to 1 over what is visible; mask: bool [B, L], False where there is no
            event. A teacher whose history is shorter or longer is cut to the events that both see, and both are
            normalized again here.

    Source: Jiao et al., "TinyBERT", EMNLP 2020 Findings, who compare unnormalized maps of paired heads; as a divergence
    Wang et al., "MiniLM", NeurIPS 2020.
    """
    if mask is not None:
        student, teacher = student * mask, teacher * mask
    p = teacher / teacher.sum(1, keepdim=True).clamp(min=1e-9)
    q = student / student.sum(1, keepdim=True).clamp(min=1e-9)
    return torch.where(p > 0, p * (p.clamp(min=1e-9).log() - q.clamp(min=1e-9).log()), 0.0).sum(1)
