"""HSTU: gated layers of pointwise attention over item sequences."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from distilrec.models.sasrec import SASRec

__all__ = ["HSTU"]


class HSTU(SASRec):
    """Hierarchical sequential transduction units (Zhai et al., "Actions Speak Louder than Words", ICML 2024).

    When to use it: a teacher on long, ordered logs; beside SASRec as an unlike member of an ensemble. A layer has four
    projections, U, V, Q and K, no softmax and no feed-forward part: how much an event adds does not depend on how many
    others there are, and U gates what comes through. Times between events are not read, only how many steps apart
    they are (a learned bias per head and distance).

    Args: as in SASRec, without `feedforward`.
    """

    def __init__(
        self, n_items: int, *, dim: int = 64, hidden: int | None = None, layers: int = 2, heads: int = 2,
        dropout: float = 0.2, max_length: int = 50, content: np.ndarray | None = None, content_use: str = "start",
        bias: bool = False,
    ) -> None:
        super().__init__(n_items, dim=dim, hidden=hidden, layers=0, heads=heads, dropout=dropout,
                         max_length=max_length, content=content, content_use=content_use, bias=bias)
        self.blocks = nn.ModuleList(Unit(hidden or dim, heads, dropout, max_length) for _ in range(layers))


class Unit(nn.Module):
    """One layer, norm first: x + out(norm(A V) * U), A = SiLU(Q K' + bias of the distance) / number of events seen."""

    def __init__(self, width: int, heads: int, dropout: float, max_length: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm, self.mixed_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.uvqk = nn.Linear(width, 4 * width)
        self.distance = nn.Parameter(torch.zeros(heads, max_length))
        self.out = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tensor:
        """[B, L, H] -> [B, L, H], each position from itself and those before it."""
        u, v, q, k = F.silu(self.uvqk(self.norm(x))).chunk(4, dim=-1)
        place = torch.arange(x.shape[1], device=x.device)
        back = place[:, None] - place
        weights = self._weights(q, k, self.distance[:, back.clamp(min=0)], back >= 0)
        return self._finish(x, u, weights @ self._split(v))

    def at(self, state: Tensor, x: Tensor, visible: Tensor) -> Tensor:
        """The layer's output at one position: `state` [B, 1, H] is x there, `visible` [B, L] what it may see."""
        u, q = self._of(state, 0), self._of(state, 2)
        return self._finish(state, u, self._one(q, x, visible) @ self._split(self._of(x, 1)))

    def look(self, state: Tensor, x: Tensor, visible: Tensor) -> Tensor:
        """[B, L]: the sizes of the weights behind `at` as shares of their sum, the mean of the heads. A weight of this
        model may be below zero; what an event adds is then taken away, and its size says how much."""
        size = self._one(self._of(state, 2), x, visible).abs().squeeze(2)
        return (size / size.sum(-1, keepdim=True).clamp(min=1e-12)).mean(1)

    def _one(self, q: Tensor, x: Tensor, visible: Tensor) -> Tensor:
        """[B, heads, 1, L], the weights of one position."""
        last = visible.sum(1, keepdim=True) - 1
        back = (last - torch.arange(x.shape[1], device=x.device)).clamp(min=0)
        return self._weights(q, self._of(x, 3), self.distance[:, back].transpose(0, 1)[:, :, None],
                             visible[:, None, None])

    def _weights(self, q: Tensor, k: Tensor, bias: Tensor, visible: Tensor) -> Tensor:
        q, k = self._split(q), self._split(k)
        scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5 + bias
        return F.silu(scores) * visible / visible.sum(-1, keepdim=True)

    def _of(self, x: Tensor, part: int) -> Tensor:
        """One of U, V, Q, K."""
        width = x.shape[-1]
        rows = slice(part * width, (part + 1) * width)
        return F.silu(F.linear(self.norm(x), self.uvqk.weight[rows], self.uvqk.bias[rows]))

    def _split(self, x: Tensor) -> Tensor:
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)

    def _finish(self, x: Tensor, u: Tensor, mixed: Tensor) -> Tensor:
        return x + self.out(self.dropout(self.mixed_norm(mixed.transpose(1, 2).flatten(2)) * u))
