"""Cross-entropy over the whole catalog or over shared negatives."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["cross_entropy"]


def cross_entropy(
    positive: Tensor, log_partition: Tensor, *, mean_score: Tensor | None = None, label_smoothing: float = 0.0
) -> Tensor:
    """-log softmax of the true item: [B].

        loss = log sum_j exp(s_j) - (1 - e) * s_positive - e * mean_j s_j

    Args:
        positive: [B] score of the true item.
        log_partition: [B] log of the sum of exp over all candidates, the true item among them. With sampled
            candidates it must be corrected by their log-probability of being drawn (see `log_partition`).
        mean_score: [B] mean score of the candidates (of the catalog, estimated, where they are sampled), needed only
            with label smoothing.
        label_smoothing: e in [0, 1), the mass spread evenly over the candidates.

    Raises:
        ValueError: label smoothing without a mean score.

    Source: Bengio & Senécal, "Quick training of probabilistic neural nets by importance sampling", AISTATS 2003,
    for the sampled form; Klenitskiy & Vasilev, RecSys 2023, for its strength in sequential recommendation;
    Szegedy et al., CVPR 2016, for label smoothing.
    """
    if label_smoothing == 0.0:
        return log_partition - positive
    if mean_score is None:
        raise ValueError("label smoothing needs the mean score of the candidates")
    return log_partition - torch.lerp(positive, mean_score, label_smoothing)
