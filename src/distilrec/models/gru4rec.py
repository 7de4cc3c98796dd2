"""GRU4Rec: a recurrent network over item sequences."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from distilrec.models.items import ItemTable

__all__ = ["GRU4Rec"]


class GRU4Rec(nn.Module):
    """Session-based recommendation with a GRU (Hidasi et al., ICLR 2016), trained with cross-entropy.

    When to use it: short sessions and very small memory at serving time; on longer histories SASRec is the
    stronger choice. `hidden` may be wider than the item vectors, as in models.sasrec.

    Args: as in SASRec, without heads.
    """

    needs_history = True
    uses_users = False

    def __init__(
        self, n_items: int, *, dim: int = 64, hidden: int | None = None, layers: int = 1, dropout: float = 0.2,
        max_length: int = 50, content: np.ndarray | None = None, content_use: str = "start", bias: bool = False,
    ) -> None:
        super().__init__()
        width = hidden or dim
        self.n_items, self.dim, self.max_length = n_items, dim, max_length
        self.table = ItemTable(n_items, dim, content=content, content_use=content_use, bias=bias)
        self.dropout = nn.Dropout(dropout)
        self.gru = nn.GRU(dim, width, num_layers=layers, batch_first=True, dropout=dropout if layers > 1 else 0.0)
        self.leave = nn.Linear(width, dim)

    def query(self, items: Tensor, lengths: Tensor, users: Tensor | None = None) -> Tensor:
        """[B, L] -> [B, L, D]; what stands behind a history cannot change the states before it."""
        states, _ = self.gru(self.dropout(self.table(items)))
        return self.leave(self.dropout(states))

    def last(self, items: Tensor, lengths: Tensor, users: Tensor | None = None) -> Tensor:
        """[B, D], the query after the last event; the table's start vector for an empty history."""
        states = self.query(items, lengths)
        at = (lengths - 1).clamp(min=0)[:, None, None].expand(-1, 1, self.dim)
        return torch.where((lengths > 0)[:, None], states.gather(1, at)[:, 0], self.table.start)

    def item_vectors(self) -> Tensor:
        return self.table.vectors()

    def item_bias(self) -> Tensor | None:
        return self.table.bias
