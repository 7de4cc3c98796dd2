"""What ALS and BPR share: user and item vectors whose dot product ranks, made by the library implicit."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from distilrec.errors import MissingExtraError
from distilrec.models.fitted import Fitted
from distilrec.types import Histories

__all__ = ["Factors", "implicit_models", "one_blas_thread", "threads"]


class Factors(Fitted):
    """Arrays `users` [U, D] and `items` [I, D]; users without train events have vectors of zeros.

    A known user is answered by his own vector, an unknown one (-1) by `folded`, an empty history of somebody unknown or
    without train events by the mean user.
    """

    @property
    def per_user(self) -> bool:
        """Whether all decisions of a known user get one answer."""
        return True

    def folded(self, histories: Histories) -> np.ndarray:
        """float32 [B, D] from the items of the histories alone; rows of empty histories are not read."""
        raise NotImplementedError

    def vectors(self, histories: Histories) -> np.ndarray:
        """float32 [B, D], the vectors of the users who have these histories."""
        users, table = histories.users, self.arrays["users"]
        taught = np.asarray(table.any(axis=1))
        known = (users >= 0) & taught[users]
        out = np.empty((len(histories), table.shape[1]), dtype=np.float32)
        out[known] = table[users[known]]
        strange = ~known & (histories.lengths > 0)
        if strange.any():
            rows = np.flatnonzero(strange)
            offsets = histories.offsets
            out[rows] = self.folded(Histories.of([histories.items[offsets[r] : offsets[r + 1]] for r in rows]))
        out[~known & ~strange] = table[taught].mean(axis=0) if taught.any() else 0.0
        return out

    def raw_scores(self, histories: Histories) -> np.ndarray:
        """float32 [B, I]."""
        return self.vectors(histories) @ self.arrays["items"].T

    def item_vectors(self) -> np.ndarray:
        """float32 [I, D]."""
        return self.arrays["items"]


def implicit_models() -> Any:
    """The library, or what to install.

    Raises:
        MissingExtraError: it is not there.
    """
    try:
        import implicit.cpu.als
        import implicit.cpu.bpr
    except ImportError as error:
        raise MissingExtraError("implicit, which fits als and bpr,", "cf") from error
    return implicit.cpu


@contextlib.contextmanager
def one_blas_thread() -> Iterator[None]:
    """implicit has threads of its own; those of BLAS inside them cost more than they give, which it warns of."""
    import threadpoolctl

    with threadpoolctl.threadpool_limits(1, "blas"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*threads", category=RuntimeWarning)
        yield


def threads() -> int:
    """How many the run may use: those of torch, which the command line sets once for all."""
    return torch.get_num_threads()
