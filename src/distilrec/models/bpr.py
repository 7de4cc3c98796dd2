"""Matrix factorization by Bayesian personalized ranking."""

from __future__ import annotations

import numpy as np
from scipy import sparse

from distilrec.errors import TrainingError, problem
from distilrec.models.factors import Factors, implicit_models, one_blas_thread
from distilrec.models.fitted import bag, seen_matrix
from distilrec.types import Histories, Split

__all__ = ["BPR"]


class BPR(Factors):
    """Matrix factorization by Bayesian personalized ranking with one sampled negative for each event (Rendle et al.,
    UAI 2009), fitted by the library implicit.

    When to use it: to stand where publications have their BPR teacher. ALS is quicker and better; `mf` with the loss
    "bpr" is the same model in this library's own training.

    Vectors have D + 1 numbers: an item's last one is its bias, a user's is 1. An unknown user gets the mean vector of
    his items, sent through the linear map that reproduces the known users best (ridge regression, as for `mf`).
    """

    architecture = "bpr"

    @classmethod
    def fit(
        cls, split: Split, *, dim: int = 64, learning_rate: float = 0.05, regularization: float = 0.01,
        iterations: int = 100, seed: int = 0,
    ) -> BPR:
        """From the train events, each pair once.

        Raises:
            MissingExtraError: implicit is not installed; TrainingError: the vectors became infinite.
        """
        seen = seen_matrix(split)
        with one_blas_thread():
            # one thread: several of them write to the same vectors unlocked, and the seed would decide nothing
            model = implicit_models().bpr.BayesianPersonalizedRanking(
                factors=dim, learning_rate=learning_rate, regularization=regularization, iterations=iterations,
                num_threads=1, random_state=seed,
            )
            model.fit(sparse.csr_matrix(seen), show_progress=False)
        users, items = (np.array(table, dtype=np.float32) for table in (model.user_factors, model.item_factors))
        if not (np.isfinite(users).all() and np.isfinite(items).all()):
            raise TrainingError(problem("BPR gives NaN or infinite vectors", "finite numbers", "lower learning_rate"))
        users[np.diff(seen.indptr) == 0] = 0.0
        return cls({"users": users, "items": items, "fold_in": _fold_in(seen, users, items)},
                   {"dim": dim, "learning_rate": float(learning_rate), "regularization": float(regularization),
                    "iterations": iterations, "seed": seed}, split_digest=split.digest)

    def folded(self, histories: Histories) -> np.ndarray:
        """float32 [B, D + 1]."""
        items = self.arrays["items"]
        return _means(bag(histories, len(items)), items) @ self.arrays["fold_in"]


def _means(rows: sparse.csr_array, items: np.ndarray) -> np.ndarray:
    """float32 [B, D] mean item vectors of [B, I]."""
    return np.asarray(rows @ items, dtype=np.float32) / np.maximum(np.diff(rows.indptr), 1)[:, None].astype(np.float32)


def _fold_in(seen: sparse.csr_array, users: np.ndarray, items: np.ndarray) -> np.ndarray:
    """float32 [D, D], from the mean vector of a user's items to his own."""
    means = _means(seen, items)[np.diff(seen.indptr) > 0].astype(np.float64)
    gram = means.T @ means
    ridge = max(1e-3 * float(np.diag(gram).mean()), 1e-12) * np.eye(len(gram))
    return np.linalg.solve(gram + ridge, means.T @ users[np.diff(seen.indptr) > 0]).astype(np.float32)
