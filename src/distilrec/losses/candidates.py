"""What a loss knows of a whole catalog from a sample of it: log-partition functions and ranks."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

__all__ = ["listed", "log_partition", "log_sum", "log_sum_exp", "ranks"]

_RULED_OUT = -50_000.0  # a store says -60,000 of items that its teacher does not know, where a list would else be short


def log_partition(
    negatives: Tensor, *positives: Tensor, log_expected: Tensor | float | None = None,
    temperature: float | Tensor = 1.0, left_out: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """log( sum over `positives` of exp(s / t) + estimate of the sum over all other items of exp(s / t) ): [B].

    Args:
        negatives: [B, N] scores of the sampled items. A row in which none counts adds nothing.
        positives: each [B] or [B, K], scores of items that are certainly among the candidates.
        log_expected: [N] or one number, log of the expected draws of each negative. Subtracting it makes
            the sum over the sample an unbiased estimate of the sum over the catalog (log-Q correction).
        temperature: t, a number or [B]; no gradient reaches it.
        left_out: (rows, columns) of the negatives that do not count, since they are among the positives.

    Source: Bengio & Senécal, AISTATS 2003; Yi et al., "Sampling-bias-corrected neural modeling", RecSys 2019.
    """
    if isinstance(log_expected, Tensor):
        sampled = log_sum_exp(negatives, temperature, left_out=left_out, offset=log_expected)
    else:
        sampled = log_sum_exp(negatives, temperature, left_out=left_out) - (log_expected or 0.0)
    certain = [score / temperature if score.dim() == 1 else log_sum_exp(score, temperature) for score in positives]
    return torch.stack([sampled, *certain]).logsumexp(0) if certain else sampled


def log_sum_exp(
    scores: Tensor, temperature: float | Tensor = 1.0, *, left_out: tuple[Tensor, Tensor] | None = None,
    offset: Tensor | None = None,
) -> Tensor:
    """log sum_j exp(s_j / t - offset_j) of [B, N], t a number or [B]: [B], in float32 at least. The entries `left_out`
    (rows, columns) do not count; a row without any entry gives -inf and no gradient."""
    if not scores.shape[1]:
        return scores.new_full((len(scores),), -torch.inf)
    precise = scores if scores.dtype == torch.float64 else scores.float()
    t = temperature.detach()[:, None] if isinstance(temperature, Tensor) else temperature
    return _LogSumExp.apply(precise, t, left_out, offset)  # type: ignore[return-value]


class _LogSumExp(torch.autograd.Function):
    """log sum_j exp(s_j / t - c_j) of each row, some entries left out. The exponentials of the way there are kept for
    the way back, and all work is done in that one array: of a step over a sample of the catalog, and more so over all
    of it, passes over [B, N] are most of the cost."""

    @staticmethod
    def forward(ctx: Any, scores: Tensor, t: float | Tensor, left_out: tuple[Tensor, Tensor] | None,
                offset: Tensor | None) -> Tensor:
        powers = scores.clone() if isinstance(t, float) and t == 1.0 else scores / t
        if offset is not None:
            powers -= offset
        if left_out is not None:
            powers[left_out] = -torch.inf
        top = powers.amax(1, keepdim=True).clamp_(min=torch.finfo(powers.dtype).min)  # finite: -inf - -inf is NaN
        powers.sub_(top).exp_()
        total = powers.sum(1)
        ctx.save_for_backward(powers, total)
        ctx.t = t
        return total.log() + top.squeeze(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None, None]:
        powers, total = ctx.saved_tensors
        share = torch.where(total > 0, grad / total, 0.0)[:, None] / ctx.t
        return powers * share, None, None, None


def log_sum(others: Tensor, times: Tensor | float = 1.0) -> Tensor:
    """log of the estimated sum of exp over all other items: [B].

    Args:
        others: [B, N] scores of sampled items, -inf where one is not to count; a row of -inf alone gives -inf.
        times: how many items each of the N stands for, [N] or one number: 1 / (expected draws).
    """
    if isinstance(times, Tensor):
        return log_sum_exp(others, offset=-times.log())
    return log_sum_exp(others) + math.log(times)


def listed(teacher: Tensor) -> Tensor:
    """bool [B, K]: False for what the teacher ruled out and only fills up its list. It has no opinion about these, and
    the order in which they stand is that of their ids."""
    return teacher > _RULED_OUT


@torch.no_grad()
def ranks(kept: Tensor, others: Tensor, times: Tensor | float = 1.0) -> Tensor:
    """Estimated rank of each kept item among kept and other items, 1 = best: [B, K].

    Args:
        kept: [B, K] scores; others: [B, N] and times: as in `log_sum`. Equal scores share the better rank.
    """
    own = kept.shape[1] - torch.searchsorted(kept.sort(1).values, kept.contiguous(), right=True)
    values, order = others.sort(1)
    weight = times[order] if isinstance(times, Tensor) else torch.full_like(values, times)
    weight = torch.where(values > -torch.inf, weight, 0.0)
    above = torch.cat([weight.flip(1).cumsum(1).flip(1), weight.new_zeros(len(weight), 1)], 1)
    return 1 + own + above.gather(1, torch.searchsorted(values.contiguous(), kept.contiguous(), right=True))
