"""What a model needs after training so that it can also answer users it knows nothing of."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from distilrec.types import Split

__all__ = ["finish"]


def finish(model: nn.Module, split: Split) -> None:
    """Set the start vector (the answer to an empty history) and, for factorization models, the fold-in map and the
    vectors of users without a train event."""
    net: Any = model.eval()
    if hasattr(net, "fold_in"):
        _fit_fold_in(net, split)
    _fit_start(net, split)
    if hasattr(net, "fold_in"):
        untaught = torch.as_tensor(split.bounds[:, 1] == split.bounds[:, 0], device=net.users.device)
        net.set_users(untaught, net.table.start)  # nothing taught their vectors: answered like an empty history


def _fit_start(net: Any, split: Split) -> None:
    """The query vector whose softmax over the catalog is closest to the train popularity.

    A convex problem in D numbers; a little weight decay keeps it bounded where an item has no event.
    """
    table = net.item_vectors().detach().float()
    bias = net.item_bias()
    counts = torch.as_tensor(split.train_counts + 0.1, dtype=torch.float32, device=table.device)
    share = counts / counts.sum()
    start = torch.zeros(table.shape[1], device=table.device, requires_grad=True)
    optimizer = torch.optim.LBFGS([start], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        scores = table @ start + (0 if bias is None else bias.detach())
        loss = scores.logsumexp(0) - share @ scores + 1e-4 * start.pow(2).sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    net.table.start.copy_(start.detach())


@torch.no_grad()
def _fit_fold_in(net: Any, split: Split, most_users: int = 20_000) -> None:
    """Ridge regression from the mean item vector of a train history to the user's own vector."""
    users = np.flatnonzero(split.bounds[:, 1] > split.bounds[:, 0])
    if len(users) > most_users:
        users = np.sort(np.random.default_rng(0).choice(users, most_users, replace=False))
    bounds = split.bounds[users]
    table = net.item_vectors().float()
    lengths = np.minimum(bounds[:, 1] - bounds[:, 0], net.max_length)
    rows = np.repeat(np.arange(len(users)), lengths)
    steps = np.arange(len(rows)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    items = split.items[np.repeat(bounds[:, 1] - lengths, lengths) + steps]
    index = torch.as_tensor(rows, device=table.device)
    sums = torch.zeros(len(users), table.shape[1], device=table.device)
    sums.index_add_(0, index, table[torch.as_tensor(items, device=table.device).long()])
    mean = sums / torch.as_tensor(lengths, device=table.device)[:, None]
    own = net.user_vectors()[torch.as_tensor(users, device=table.device)].float()
    gram = mean.T @ mean
    ridge = 1e-3 * gram.diagonal().mean() * torch.eye(len(gram), device=table.device)
    net.fold_in.copy_(torch.linalg.solve(gram + ridge, mean.T @ own))
