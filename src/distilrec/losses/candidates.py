"""What a loss knows of a whole catalog from a sample of it: log-partition functions and ranks."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["listed", "log_partition", "log_sum", "ranks"]

_RULED_OUT = -50_000.0  # a store says -60,000 of items that its teacher does not know, where a list would else be short


def log_partition(negatives: Tensor, *positives: Tensor, log_expected: Tensor | float | None = None) -> Tensor:
    """log( sum over `positives` of exp(s) + estimate of the sum over all other items of exp(s) ): [B].

    Args:
        negatives: [B, N] scores of the sampled items, -inf where one collides with a positive (filled in with
            `masked_fill` or `index_put`, which let no gradient through: that of a row of -inf alone is NaN).
        positives: each [B] or [B, K], scores of items that are certainly among the candidates.
        log_expected: [N] or one number, log of the expected draws of each negative. Subtracting it makes
            the sum over the sample an unbiased estimate of the sum over the catalog (log-Q correction).

    Source: Bengio & Senécal, AISTATS 2003; Yi et al., "Sampling-bias-corrected neural modeling", RecSys 2019.
    """
    if isinstance(log_expected, Tensor):
        negatives, log_expected = negatives - log_expected, None
    sampled = negatives.logsumexp(1) - (log_expected or 0.0)
    certain = [score if score.dim() == 1 else score.logsumexp(1) for score in positives]
    return torch.stack([sampled, *certain]).logsumexp(0)


def log_sum(others: Tensor, times: Tensor | float = 1.0) -> Tensor:
    """log of the estimated sum of exp over all other items: [B].

    Args:
        others: [B, N] scores of sampled items, -inf where one is not to count; a row of -inf alone gives -inf.
        times: how many items each of the N stands for, [N] or one number: 1 / (expected draws).
    """
    log_times = times.log() if isinstance(times, Tensor) else torch.as_tensor(times, dtype=others.dtype).log()
    shifted = others + log_times
    top = shifted.detach().max(1).values.clamp(min=torch.finfo(others.dtype).min)  # finite: no NaN in a gradient
    total = (shifted - top[:, None]).exp().sum(1)
    return torch.where(total > 0, total.clamp(min=torch.finfo(others.dtype).tiny).log() + top, -torch.inf)


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
