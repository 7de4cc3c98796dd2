"""Sparse matrices of torch, without its word of warning."""

from __future__ import annotations

import functools
import warnings

import torch
from torch import Tensor

__all__ = ["csr"]


def csr(starts: Tensor, columns: Tensor, values: Tensor, shape: tuple[int, int]) -> Tensor:
    """The matrix of `shape` with the entries [nnz] at `columns` [nnz], those of row i from starts[i] to starts[i + 1];
    nothing is checked."""
    _hush()
    return torch.sparse_csr_tensor(starts, columns, values, shape, check_invariants=False)


@functools.cache
def _hush() -> None:
    """torch says once in a process that its sparse tensors are young: let it say so to nobody."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        torch.sparse_csr_tensor(torch.tensor([0, 1]), torch.tensor([0]), torch.ones(1), (1, 1))
