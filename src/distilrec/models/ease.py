"""EASE: a linear item-to-item model in closed form."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.linalg import get_lapack_funcs

from distilrec.errors import TrainingError, problem
from distilrec.models.fitted import Fitted, bag, seen_matrix
from distilrec.types import Histories, Split

__all__ = ["EASE", "free_memory"]

_DOUBLE = 10_000  # items up to which the inverse is taken in float64
_ROWS = 1024  # of the Gram matrix that are made dense or mirrored at a time


class EASE(Fitted):
    """Embarrassingly shallow auto-encoder: scores are history @ B, where B has a zero diagonal and minimizes
    |X - X B|^2 + regularization |B|^2 (Steck, WWW 2019).

    When to use it: up to some 30,000 items it is hard to beat and needs no tuning but `regularization`. With
    P = (X^T X + regularization)^-1, B[i, j] = -P[i, j] / P[j, j]. Time grows with the third power of the number of
    items (25,000: a few minutes on one core), memory with its square.
    """

    architecture = "ease"

    @classmethod
    def fit(cls, split: Split, *, regularization: float = 100.0) -> EASE:
        """From the train events.

        Raises:
            TrainingError: the matrix does not fit into memory; a regularization that leaves it singular.
        """
        n = split.n_items
        kind = np.float64 if n <= _DOUBLE else np.float32
        need, free = n * n * (np.dtype(kind).itemsize + (4 if kind is np.float64 else 0)), free_memory()
        if free is not None and need > free:
            raise TrainingError(problem(
                f"EASE of {n:,} items is a matrix of {need / 2**30:.1f} GiB, and {free / 2**30:.1f} GiB are free",
                "n_items² × 4 bytes of memory", "choose als or lightgcn, or drop rare items (data.clean)",
            ))
        if not regularization > 0:
            raise TrainingError(problem(f"regularization {regularization}", "a number above 0"))
        seen = seen_matrix(split).astype(kind)
        gram, columns = np.empty((n, n), dtype=kind), seen.T.tocsr()
        for start in range(0, n, _ROWS):
            gram[start : start + _ROWS] = (columns[start : start + _ROWS] @ seen).toarray()
        gram.flat[:: n + 1] += regularization
        weights = _inverse(gram)
        weights /= -weights.diagonal().copy()
        np.fill_diagonal(weights, 0.0)
        return cls({"weights": weights.astype(np.float32, copy=False)}, {"regularization": float(regularization)},
                   split_digest=split.digest)

    def raw_scores(self, histories: Histories) -> np.ndarray:
        """float32 [B, I]."""
        weights = self.arrays["weights"]
        return np.asarray(bag(histories, len(weights)) @ weights, dtype=np.float32)


def _inverse(gram: np.ndarray) -> np.ndarray:
    """The inverse of a symmetric positive matrix, in its own memory."""
    factor, invert = get_lapack_funcs(("potrf", "potri"), (gram,))
    # the transpose of a symmetric matrix is itself, and has the order of memory that LAPACK wants without a copy
    lower, info = factor(gram.T, lower=1, clean=0, overwrite_a=1)
    if info == 0:
        lower, info = invert(lower, lower=1, overwrite_c=1)
    if info != 0:
        raise TrainingError(problem("the item matrix is singular", do="raise the regularization"))
    whole = lower.T  # its upper triangle is filled
    for start in range(0, len(whole), _ROWS):
        block = whole[start : start + _ROWS, start:]
        square = np.triu(block[:, : len(block)])
        block[:, : len(block)] = square + np.triu(square, 1).T
        whole[start + _ROWS :, start : start + _ROWS] = block[:, _ROWS:].T
    return whole


def free_memory() -> int | None:
    """Bytes that can still be had without swapping; None where the system does not tell."""
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    return found[0] if found else None
