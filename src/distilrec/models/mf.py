"""Matrix factorization for implicit feedback, able to answer for users it never saw."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from distilrec.models.items import ItemTable

__all__ = ["MatrixFactorization"]


class MatrixFactorization(nn.Module):
    """User and item vectors whose dot product ranks (Koren, Bell & Volinsky, IEEE Computer 2009; with the loss
    "bpr" Rendle et al., UAI 2009).

    When to use it: logs without order, or as the plain student of collaborative-filtering benchmarks. A known user
    is answered from the user table; an unknown one from the mean of the item vectors of the history, sent through
    a linear map that is fitted after training so that it reproduces the known users (see training.finish).
    """

    needs_history = False
    uses_users = True

    def __init__(
        self, n_items: int, *, n_users: int, dim: int = 64, dropout: float = 0.0, max_length: int = 200,
        content: np.ndarray | None = None, content_use: str = "start", bias: bool = False, scale: float = 0.1,
    ) -> None:
        super().__init__()
        self.n_items, self.n_users, self.dim, self.max_length = n_items, n_users, dim, max_length
        self.table = ItemTable(n_items, dim, content=content, content_use=content_use, bias=bias, scale=scale)
        self.users = nn.Parameter(torch.randn(n_users, dim) * scale)
        self.dropout = nn.Dropout(dropout)
        self.fold_in: Tensor
        self.register_buffer("fold_in", torch.eye(dim))

    def query(self, items: Tensor, lengths: Tensor, users: Tensor | None = None) -> Tensor:
        """[B, L, D]: the user's vector at every position."""
        if users is None:
            raise ValueError("matrix factorization is trained on known users")
        return self.dropout(self.users[users])[:, None].expand(-1, items.shape[1], -1)

    def last(self, items: Tensor, lengths: Tensor, users: Tensor | None = None) -> Tensor:
        """[B, D]: the user's vector; folded in from the history where `users` is -1 or not given."""
        visible = (torch.arange(items.shape[1], device=items.device) < lengths[:, None]).to(self.fold_in.dtype)
        mean = (self.table(items) * visible[:, :, None]).sum(1) / lengths.clamp(min=1)[:, None]
        folded = torch.where((lengths > 0)[:, None], mean @ self.fold_in, self.table.start)
        if users is None:
            return folded
        users = users.long()
        return torch.where((users >= 0)[:, None], self.users[users.clamp(min=0)], folded)

    def item_vectors(self) -> Tensor:
        return self.table.vectors()

    def item_bias(self) -> Tensor | None:
        return self.table.bias

    def user_vectors(self) -> Tensor:
        """[U, D], as they are answered with."""
        return self.users

    @torch.no_grad()
    def set_users(self, rows: Tensor, vector: Tensor) -> None:
        """Let users be answered by `vector`."""
        self.users[rows] = vector
