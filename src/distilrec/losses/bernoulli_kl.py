"""Soft labels of a yes or no: the divergence of the student's probability from the teacher's."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

__all__ = ["bernoulli_kl"]


def bernoulli_kl(student: Tensor, teacher: Tensor, *, temperature: float | Tensor = 1.0) -> Tensor:
    """t^2 * KL(Bernoulli(p) || Bernoulli(q)), p = sigmoid(teacher / t), q = sigmoid(student / t).

    The shape of its arguments, one value per output: [B] or [B, C]. The gradient with respect to a student's logit is
    t (q - p): like that of the binary cross-entropy with the soft label p, from which it differs by a constant.

    Args:
        student, teacher: logits.
        temperature: t > 0, a number or a tensor that broadcasts; t^2 keeps the gradient's scale independent of it.

    Source: Hinton, Vinyals & Dean, "Distilling the Knowledge in a Neural Network", 2015, for two classes; as used for
    click models by Zhu et al., "Ensembled CTR Prediction via Knowledge Distillation", CIKM 2020.
    """
    student, teacher = student / temperature, teacher / temperature
    p = teacher.sigmoid()
    # log p - log q without ever taking the logarithm of a rounded probability
    divergence = p * (F.logsigmoid(teacher) - F.logsigmoid(student)) + (1 - p) * (
        F.logsigmoid(-teacher) - F.logsigmoid(-student)
    )
    return temperature**2 * divergence
