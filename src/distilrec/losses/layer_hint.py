"""Hidden layers of unlike depths: every layer of the student resembles a mix of all the teacher's."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["layer_hint"]


def layer_hint(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean over the S layers and W dimensions of (student layer - mix of all teacher layers)^2: [B].

    The mix of a student's layer s is sum_l a_l t_l with a = softmax_l(s . t_l / sqrt(W)), so each decision chooses by
    itself which teacher layers a student's layer answers to, and none has to be paired by hand. The gradient goes
    through the weights, too. With one teacher layer this is `hint`.

    Args:
        student: [B, S, W], the student's states after the linear maps that bridge unlike widths (they are trained with
            the student and thrown away); teacher: [B, L, W], standardized by layer and dimension, so that no layer
            counts for more because its numbers are larger.

    Source: Passban, Wu, Rezagholizadeh & Liu, "ALP-KD: Attention-Based Layer Projection for Knowledge Distillation",
    AAAI 2021, whose weights are not divided by sqrt(W).
    """
    weights = torch.softmax(student @ teacher.transpose(1, 2) / math.sqrt(teacher.shape[2]), 2)
    return (student - weights @ teacher).square().mean((1, 2))
