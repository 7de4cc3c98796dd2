"""Mult-VAE: a variational auto-encoder of the bag of a user's items."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from distilrec.models.items import ItemTable

__all__ = ["MultVAE"]


class MultVAE(nn.Module):
    """Variational auto-encoder with a multinomial likelihood (Liang, Krishnan, Hoffman & Jebara, WWW 2018); with
    `variation` 0 it is their Mult-DAE.

    When to use it: logs without order, as a teacher. It reads the items of the history and no user, so every user is
    answered alike, known or not, and new events count at once. Its loss is "cross_entropy".

    The bag of the history (scaled to length 1, items dropped at random in training) goes through tanh layers of widths
    `hidden`, `latent` (mean and log-variance, sampled in training) and D to the item table. Its order is not seen.

    Args:
        dim: D, width of an item vector and of the last inner layer.
        hidden: width of the first layer, by default `dim`; `latent`, by default half of `dim`.
        dropout: share of the bag that is left out in training.
        variation: weight of the divergence from the prior, reached in `anneal` steps from 0.
    """

    needs_history = False
    uses_users = False

    def __init__(
        self, n_items: int, *, dim: int = 200, hidden: int | None = None, latent: int | None = None,
        dropout: float = 0.5, variation: float = 0.2, anneal: int = 2000, max_length: int = 1000,
        content: np.ndarray | None = None, content_use: str = "start", bias: bool = False, scale: float = 0.02,
    ) -> None:
        super().__init__()
        first, inner = hidden or dim, latent or max(1, dim // 2)
        self.n_items, self.dim, self.max_length = n_items, dim, max_length
        self.drop, self.variation, self.anneal = dropout, variation, anneal
        self.table = ItemTable(n_items, dim, content=content, content_use=content_use, bias=bias, scale=scale)
        self.enter = nn.Parameter(torch.randn(n_items + 2, first) * math.sqrt(1 / first))
        self.enter_bias = nn.Parameter(torch.zeros(first))
        self.mean, self.log_variance = nn.Linear(first, inner), nn.Linear(first, inner)
        self.decode = nn.Linear(inner, dim)
        self.step: Tensor
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))  # saved, so that a resumed run anneals on
        self.penalty: Tensor | None = None  # what training adds to the loss of the batch that `query` saw last

    def query(self, items: Tensor, lengths: Tensor, users: Tensor | None = None) -> Tensor:
        """[B, L, D]: the vector of the whole bag at every position, all of whose items it shall make likely."""
        state = self._encode(items, lengths, self.drop if self.training else 0.0)
        latent, self.penalty = self.mean(state), None
        if self.training and self.variation > 0:
            log_variance = self.log_variance(state)
            divergence = 0.5 * (log_variance.exp() + latent.pow(2) - 1 - log_variance).sum(1)
            weight = self.variation * (self.step / self.anneal).clamp(max=1.0)
            # the published loss sums a user's items, this library's is their mean: so is the penalty
            self.penalty = weight * divergence.sum() / lengths.sum().clamp(min=1)
            self.step += 1
            latent = latent + torch.randn_like(latent) * (0.5 * log_variance).exp()
        return torch.tanh(self.decode(latent))[:, None].expand(-1, items.shape[1], -1)

    def last(self, items: Tensor, lengths: Tensor, users: Tensor | None = None) -> Tensor:
        """[B, D]; an empty history gives the table's start vector."""
        vector = torch.tanh(self.decode(self.mean(self._encode(items, lengths, 0.0))))
        return torch.where((lengths > 0)[:, None], vector, self.table.start)

    def item_vectors(self) -> Tensor:
        return self.table.vectors()

    def item_bias(self) -> Tensor | None:
        return self.table.bias

    @property
    def unread(self) -> int:
        """Numbers of the state that no answer reads: answers are not sampled."""
        return 1 + sum(weight.numel() for weight in self.log_variance.parameters())

    def _encode(self, items: Tensor, lengths: Tensor, drop: float) -> Tensor:
        """[B, hidden] of padded bags [B, L]."""
        kept = (torch.arange(items.shape[1], device=items.device) < lengths[:, None]).to(self.enter.dtype)
        scale = lengths.clamp(min=1).to(kept.dtype).rsqrt()[:, None]
        if drop > 0:
            kept = F.dropout(kept, drop)
        return torch.tanh(((F.embedding(items, self.enter) * (kept * scale)[:, :, None]).sum(1)) + self.enter_bias)
