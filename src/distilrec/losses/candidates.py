"""Log-partition functions over a whole catalog or over sampled candidates."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["log_partition"]


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
