"""Soft labels: the divergence of the student's distribution over items from the teacher's."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from distilrec.losses.candidates import log_sum_exp

__all__ = ["kl"]


def kl(
    student: Tensor, teacher: Tensor, *, temperature: float | Tensor = 1.0, mask: Tensor | None = None,
    log_partition: Tensor | None = None, mass: Tensor | None = None,
) -> Tensor:
    """t^2 * KL(teacher || student) over the K items that the teacher kept: [B].

        p = softmax(teacher / t),  log q = student / t - Z,  loss = t^2 * sum_k p_k (log p_k - log q_k)

    Args:
        student: [B, K] the student's scores of those items.
        teacher: [B, K] the teacher's logits of them; no gradient reaches them.
        temperature: t, a number or [B]; no gradient reaches it. The factor t^2 keeps the gradient's scale independent
            of t.
        mask: bool [B, K], False where an item is to be left out; a row without any item costs nothing.
        log_partition: [B], Z over *all* of the student's candidates at this temperature, so that the student is
            also told that the items which the teacher did not keep are worse. None: Z over the K items alone.
        mass: [B], the share of the teacher's probability that the K items hold. Given (with a `log_partition`),
            the rest 1 - mass becomes one further class, matched by the student's own rest. Only meaningful at the
            temperature at which it was measured, so training leaves it out at every t != 1: then p sums to 1 over the
            K items alone, and the loss pushes all that the student gives to other items towards 0. The smaller K
            and the warmer t, the more of the teacher's opinion is lost in this way.

    Source: Hinton, Vinyals & Dean, "Distilling the Knowledge in a Neural Network", 2015. That the K best alone give
    a biased picture of the teacher: Anshumann et al., "Sparse Logit Sampling", ACL 2025, who also put the rest into
    one class. (Tang & Wang, "Ranking Distillation", KDD 2018, learn from the teacher's K best items as well, but as
    weighted positives, without probabilities and without a rest.)
    """
    t = temperature.detach() if isinstance(temperature, Tensor) else float(temperature)
    held = None if mass is None or log_partition is None else mass.clamp(1e-6, 1 - 1e-6)
    kept = student if mask is None else student.masked_fill(~mask, -torch.inf)
    log_z = log_sum_exp(kept, t) if log_partition is None else log_partition
    value: Tensor = _Divergence.apply(student, log_z, teacher, t, mask, held)  # type: ignore[assignment]
    if held is not None:
        log_rest = torch.log1p(-torch.exp((log_sum_exp(kept, t) - log_z).clamp(max=-1e-6)))
        rest = (1 - held) * (torch.log1p(-held) - log_rest)
        value = value + (rest if mask is None else torch.where(mask.any(1), rest, 0.0))
    return t**2 * value


class _Divergence(torch.autograd.Function):
    """sum_k p_k (log p_k - s_k / t + Z) of each row. Its gradients are -p / t and sum p, so p is all that is kept
    for the way back, where a chain of plain operations keeps every array in between."""

    @staticmethod
    def forward(ctx: Any, student: Tensor, log_z: Tensor, teacher: Tensor, t: float | Tensor, mask: Tensor | None,
                held: Tensor | None) -> Tensor:
        wide = t[:, None] if isinstance(t, Tensor) else t
        precise = torch.promote_types(torch.promote_types(student.dtype, teacher.dtype), torch.float32)
        logits = teacher.to(precise) / wide
        if mask is not None:
            logits.masked_fill_(~mask, torch.finfo(logits.dtype).min)  # -inf: NaN where all of a row is masked
        log_p = logits.log_softmax(1)
        p = log_p.exp().nan_to_num_(0.0)  # a row in which the teacher rules out everything costs nothing
        if mask is not None:
            p *= mask
        if held is not None:
            log_p += held.log()[:, None]
            p *= held[:, None]
        # 0 * log 0 = 0: what neither counts nor weighs adds nothing, and no NaN
        log_ratio = log_p.sub_(student / wide).add_(log_z[:, None]).masked_fill_(p == 0, 0.0)
        ctx.save_for_backward(p)
        ctx.t = t
        return log_ratio.mul_(p).sum(1)  # vecdot is quicker, but under autocast it answers in bfloat16

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None, None, None]:
        (p,) = ctx.saved_tensors
        return p * (-grad / ctx.t)[:, None], grad * p.sum(1), None, None, None, None
