"""Scores of a few chosen items per row, without writing the chosen vectors out."""

from __future__ import annotations

from typing import Any

import torch
from scipy.sparse import csr_array
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from distilrec.models.sparse import csr

__all__ = ["gathered_scores"]


def gathered_scores(q: Tensor, table: Tensor, ids: Tensor) -> Tensor:
    """[T, D] queries, [I, D] items, int64 [T, K] ids -> [T, K] dot products.

    The obvious form, a gather of [T, K, D] and a batched product, moves D times more memory than it needs in both
    directions. On a CPU this one is thirty times faster at T = 1,900, K = 100, D = 32 (75 ms against 2.3 ms for
    forward and backward on one core). Elsewhere (other devices, inference) the obvious form is used.
    """
    if not ids.numel():
        return q.new_zeros(ids.shape)
    plain = ids.shape[1] > len(table) or q.device.type != "cpu" or {q.dtype, table.dtype} != {torch.float32}
    if plain or torch.is_inference_mode_enabled():
        return (F.embedding(ids, table) * q[:, None]).sum(-1)
    low, high = torch.aminmax(ids)  # the sparse product does not look, and an accelerator should not be waited for
    if low < 0 or high >= len(table):
        raise IndexError(f"items {int(low)} to {int(high)} of a table of {len(table)}")
    return _GatheredScores.apply(q, table, ids)  # type: ignore[return-value]


class _GatheredScores(torch.autograd.Function):
    """q . E[ids], as the entries of a sparse matrix [T, I] of K numbers a row. What comes back is such a matrix too:
    its product with the items is the gradient of the queries, its transposed one with the queries that of the items."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, table: Tensor, ids: Tensor) -> Tensor:
        ctx.save_for_backward(q, table, ids)
        wanted = csr(_starts(ids), ids.flatten(), q.new_zeros(ids.numel()), (len(q), len(table)))
        return torch.sparse.sampled_addmm(wanted, q, table.T, beta=0.0).values().view(ids.shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        q, table, ids = ctx.saved_tensors
        grad = grad.contiguous()
        of_q = F.embedding_bag(ids, table, per_sample_weights=grad, mode="sum")
        matrix = csr_array((grad.numpy().ravel(), ids.numpy().ravel(), _starts(ids).numpy()), (len(q), len(table)))
        return of_q, torch.from_numpy(matrix.T @ q.detach().numpy()), None


def _starts(ids: Tensor) -> Tensor:
    return torch.arange(0, ids.numel() + 1, ids.shape[1])
