"""LightGCN: user and item vectors smoothed over the graph of who had what."""

from __future__ import annotations

from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from distilrec.errors import TrainingError, problem
from distilrec.models.items import ItemTable
from distilrec.models.mf import MatrixFactorization
from distilrec.models.sparse import csr

__all__ = ["LightGCN", "propagate"]


class LightGCN(nn.Module):
    """Graph convolution without weights: the answer of a node is the mean over 0..`layers` steps of the symmetrically
    normalized adjacency applied to the vectors of all users and items (He et al., SIGIR 2020).

    When to use it: logs without order, as teacher or student; it wins over `mf` of the same width where users have few
    events, and serves as one: what is served are the finished vectors. Unknown users are folded in as for `mf`.

    Args:
        graph: int [2, E], users and items of the train events; given by training and saved with the weights.
        dropout: of the query vector in training.
    """

    needs_history = False
    uses_users = True

    def __init__(
        self, n_items: int, *, n_users: int, graph: np.ndarray, dim: int = 64, layers: int = 3, dropout: float = 0.0,
        max_length: int = 200, content: np.ndarray | None = None, content_use: str = "start", bias: bool = False,
        scale: float = 0.1,
    ) -> None:
        super().__init__()
        pairs = np.unique(np.asarray(graph, dtype=np.int32), axis=1)
        if pairs.shape[0] != 2 or (pairs.size and (pairs.min() < 0 or (pairs.max(axis=1) >= (n_users, n_items)).any())):
            raise TrainingError(problem(f"a graph of shape {np.shape(graph)}",
                                        f"two rows: users below {n_users}, items below {n_items}"))
        self.n_items, self.n_users, self.dim, self.layers, self.max_length = n_items, n_users, dim, layers, max_length
        self.table = ItemTable(n_items, dim, content=content, content_use=content_use, bias=bias, scale=scale)
        self.users = nn.Parameter(torch.randn(n_users, dim) * scale)
        self.dropout = nn.Dropout(dropout)
        self.fold_in: Tensor
        self.register_buffer("fold_in", torch.eye(dim))
        self.graph: Tensor
        self.register_buffer("graph", torch.as_tensor(pairs))
        self.starts: Tensor
        self.neighbors: Tensor
        self.shares: Tensor
        for name, value in zip(("starts", "neighbors", "shares"), _adjacency(pairs, n_users, n_items), strict=True):
            self.register_buffer(name, value, persistent=False)
        self._finished: tuple[Any, Tensor] | None = None  # of evaluation: the vectors of these very weights
        self._of_step: tuple[Any, Tensor] | None = None  # of training: what `query` made is used by `item_vectors`

    def query(self, items: Tensor, lengths: Tensor, users: Tensor | None = None) -> Tensor:
        """[B, L, D]: the user's vector at every position."""
        if users is None:
            raise ValueError("LightGCN is trained on known users")
        if self.training:
            self._of_step = (self._stamp(), self._propagated())
            nodes = self._of_step[1]
        else:
            nodes = self.nodes()
        return self.dropout(nodes[users])[:, None].expand(-1, items.shape[1], -1)

    def last(self, items: Tensor, lengths: Tensor, users: Tensor | None = None) -> Tensor:
        """[B, D]: the user's vector; folded in from the history where `users` is -1 or not given."""
        return self.served().last(items, lengths, users)

    def item_vectors(self) -> Tensor:
        if self.training:
            made, self._of_step = self._of_step, None
            if made is not None and made[0] == self._stamp():
                return made[1][self.n_users :]
            return self._propagated()[self.n_users :]
        return self.nodes()[self.n_users :]

    def item_bias(self) -> Tensor | None:
        return self.table.bias

    @property
    def unread(self) -> int:
        """Numbers of the state that no answer reads."""
        return self.graph.numel()

    def user_vectors(self) -> Tensor:
        """[U, D], as they are answered with."""
        return self.nodes()[: self.n_users]

    @torch.no_grad()
    def set_users(self, rows: Tensor, vector: Tensor) -> None:
        """Let users without any edge be answered by `vector`: of the mean over layers they have only the first."""
        self.users[rows] = vector * (self.layers + 1)

    def nodes(self) -> Tensor:
        """[U + I, D], the finished vectors; computed once for the same weights, without gradient."""
        version = self._stamp()
        if self._finished is None or self._finished[0] != version:
            with torch.inference_mode(False), torch.no_grad():
                self._finished = (version, self._propagated().detach())
        return self._finished[1]

    def served(self) -> MatrixFactorization:
        """The same answers from finished vectors, as a model that knows no graph."""
        nodes = self.nodes()
        with torch.device("meta"):
            model = MatrixFactorization(self.n_items, n_users=self.n_users, dim=self.dim, max_length=self.max_length,
                                        bias=self.table.bias is not None)
        state = {"users": nodes[: self.n_users], "fold_in": self.fold_in, "table.start": self.table.start,
                 "table.weight": torch.cat([nodes[self.n_users :], self.table.weight.detach()[-2:]])}
        if self.table.bias is not None:
            state["table.bias"] = self.table.bias.detach()
        model.load_state_dict(state, assign=True)
        return model.eval()

    def train(self, mode: bool = True) -> Self:
        self._finished = self._of_step = None
        return super().train(mode)

    def _propagated(self) -> Tensor:
        x = torch.cat([self.users, self.table.vectors()])
        return propagate(x, self.starts, self.neighbors, self.shares, self.layers)

    def _stamp(self) -> tuple[Any, ...]:
        """Changes with every change of the weights."""
        return self.shares.device, *((weight.data_ptr(), weight._version) for weight in self.parameters())

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_finished": None, "_of_step": None}


def propagate(x: Tensor, starts: Tensor, neighbors: Tensor, shares: Tensor, layers: int) -> Tensor:
    """[N, D] -> [N, D], the mean of A^0 x .. A^layers x for a symmetric sparse A given by rows.

    Args:
        starts, neighbors, shares: A as CSR: [N + 1], [nnz], [nnz].
    """
    return _Propagate.apply(x, starts, neighbors, shares, layers)  # type: ignore[return-value]


class _Propagate(torch.autograd.Function):
    """A is its own transpose, so the gradient is the same mean of the same products. What autograd does by itself (it
    transposes A in every step) takes three times as long."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, starts: Tensor, neighbors: Tensor, shares: Tensor, layers: int) -> Tensor:
        ctx.save_for_backward(starts, neighbors, shares)
        ctx.layers = layers
        return _mean_of_powers(x, starts, neighbors, shares, layers)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None, None]:
        starts, neighbors, shares = ctx.saved_tensors
        return _mean_of_powers(grads[0].contiguous(), starts, neighbors, shares, ctx.layers), None, None, None, None


def _mean_of_powers(x: Tensor, starts: Tensor, neighbors: Tensor, shares: Tensor, layers: int) -> Tensor:
    with torch.autocast(x.device.type, enabled=False):
        matrix = csr(starts, neighbors, shares.to(x.dtype), (len(x), len(x)))
        total, layer = x.clone(), x
        for _ in range(layers):
            layer = matrix @ layer
            total += layer
        return total / (layers + 1)


def _adjacency(pairs: np.ndarray, n_users: int, n_items: int) -> tuple[Tensor, Tensor, Tensor]:
    """CSR of D^-1/2 A D^-1/2 over users and then items; nodes without edges have empty rows."""
    users, items = pairs[0].astype(np.int64), pairs[1].astype(np.int64) + n_users
    rows, columns = np.concatenate([users, items]), np.concatenate([items, users])
    order = np.lexsort((columns, rows))
    rows, columns = rows[order], columns[order]
    degree = np.bincount(rows, minlength=n_users + n_items)
    starts = np.concatenate([[0], np.cumsum(degree)])
    shares = 1 / np.sqrt(degree[rows] * degree[columns])
    return torch.as_tensor(starts), torch.as_tensor(columns), torch.as_tensor(shares, dtype=torch.float32)
