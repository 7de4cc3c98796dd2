"""Log-partition functions over a whole catalog or over sampled candidates."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["log_partition"]


def log_partition(negatives: Tensor, *positives: Tensor, log_expected: Tensor | None = None) -> Tensor:
    """log( sum over `positives` of exp(s) + estimate of the sum over all other items of exp(s) ): [B].

    Args:
        negatives: [B, N] scores of the sampled items, -inf where one collides with a positive.
        positives: each [B] or [B, K], scores of items that are certainly among the candidates.
        log_expected: [N], log of the expected number of times each negative is drawn. Subtracting it makes
            the sum over the sample an unbiased estimate of the sum over the catalog (log-Q correction).

    Source: Bengio & Senécal, AISTATS 2003; Yi et al., "Sampling-bias-corrected neural modeling", RecSys 2019.
    """
    if log_expected is not None:
        negatives = negatives - log_expected
    parts = [negatives.logsumexp(1)] + [p if p.dim() == 1 else p.logsumexp(1) for p in positives]
    return torch.stack(parts).logsumexp(0)
