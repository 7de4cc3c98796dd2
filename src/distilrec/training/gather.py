"""Scores of a few chosen items per row, without writing the chosen vectors out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

__all__ = ["gathered_scores"]


def gathered_scores(q: Tensor, table: Tensor, ids: Tensor) -> Tensor:
    """[T, D] queries, [I, D] items, int64 [T, K] ids -> [T, K] dot products.

    The obvious form, a gather of [T, K, D] and a batched product, moves D times more memory than it needs in both
    directions. On a CPU this one is eight times faster at T = 1,900, K = 100, D = 32 (75 ms against 9 ms for forward
    and backward on one core). Elsewhere (other devices, inference) the obvious form is used.
    """
    if q.device.type != "cpu" or q.dtype != torch.float32 or torch.is_inference_mode_enabled():
        return (F.embedding(ids, table) * q[:, None]).sum(-1)
    return _GatheredScores.apply(q, table, ids)  # type: ignore[return-value]


class _GatheredScores(torch.autograd.Function):
    """q . E[ids] with its two gradients as weighted sums of rows (bags): by query, and by item after a sort."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, table: Tensor, ids: Tensor) -> Tensor:
        ctx.save_for_backward(q, table, ids)
        # The gradient of a weighted bag of rows by its weights is the wanted dot product.
        with torch.enable_grad():
            weights = torch.zeros(ids.shape, requires_grad=True)
            bag = F.embedding_bag(ids, table.detach(), per_sample_weights=weights, mode="sum")
            (scores,) = torch.autograd.grad(bag, weights, q.detach().contiguous())
        return scores

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        q, table, ids = ctx.saved_tensors
        grad = grads[0].contiguous()
        of_q = F.embedding_bag(ids, table, per_sample_weights=grad, mode="sum")
        flat = ids.flatten()
        order = torch.argsort(flat, stable=True)
        starts = torch.zeros(len(table) + 1, dtype=torch.long)
        starts[1:] = torch.bincount(flat, minlength=len(table)).cumsum(0)
        of_table = F.embedding_bag(order // ids.shape[1], q, starts[:-1], mode="sum",
                                   per_sample_weights=grad.flatten()[order])
        return of_q, of_table, None
