"""Matrix factorization by Bayesian personalized ranking."""

from __future__ import annotations

from typing import Literal

import numpy as np
from scipy import sparse

from distilrec import progress
from distilrec.errors import TrainingError, nearest, problem
from distilrec.models.factors import Factors, implicit_models, one_blas_thread
from distilrec.models.fitted import bag, seen_matrix
from distilrec.types import Histories, Split

__all__ = ["BPR"]

SCHEDULES = ("cosine", "constant")
_PARTS = 40  # the library knows no schedule: it goes on from its vectors, each time at a lower rate


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
        iterations: int = 100, schedule: Literal["cosine", "constant"] = "cosine", seed: int = 0,
    ) -> BPR:
        """From the train events, each pair once.

        Args:
            iterations: passes over the events; a good model wants hundreds or thousands.
            schedule: how the learning rate falls: "cosine", towards 0, or "constant". One sampled negative a step is so
                noisy a gradient that a constant rate never settles.
        Raises:
            MissingExtraError: implicit is not installed; TrainingError: the vectors became infinite, or an unknown
                schedule.
        """
        if schedule not in SCHEDULES:
            raise TrainingError(problem(f"schedule {schedule!r}{nearest(str(schedule), SCHEDULES)}",
                                        " | ".join(SCHEDULES)))
        seen = seen_matrix(split)
        with one_blas_thread():
            # one thread: several of them write to the same vectors unlocked, and the seed would decide nothing
            model = implicit_models().bpr.BayesianPersonalizedRanking(
                factors=dim, regularization=regularization, num_threads=1)
            pairs, parts = sparse.csr_matrix(seen), _parts(iterations, learning_rate, schedule)
            with progress.track(iterations, "training bpr") as bar:
                for number, (passes, rate) in enumerate(parts):
                    model.iterations, model.learning_rate, model.random_state = passes, rate, seed + 1_000_003 * number
                    model.fit(pairs, show_progress=False)
                    bar.advance(passes)
        users, items = (np.array(table, dtype=np.float32) for table in (model.user_factors, model.item_factors))
        if not (np.isfinite(users).all() and np.isfinite(items).all()):
            raise TrainingError(problem("BPR gives NaN or infinite vectors", "finite numbers", "lower learning_rate"))
        users[np.diff(seen.indptr) == 0] = 0.0
        return cls({"users": users, "items": items, "fold_in": _fold_in(seen, users, items)},
                   {"dim": dim, "learning_rate": float(learning_rate), "regularization": float(regularization),
                    "iterations": iterations, "schedule": schedule, "seed": seed}, split_digest=split.digest)

    def folded(self, histories: Histories) -> np.ndarray:
        """float32 [B, D + 1]."""
        items = self.arrays["items"]
        return _means(bag(histories, len(items)), items) @ self.arrays["fold_in"]


def _parts(iterations: int, rate: float, schedule: str) -> list[tuple[int, float]]:
    """(passes, learning rate) one after the other."""
    ends = np.linspace(0, iterations, min(_PARTS, iterations) + 1).round().astype(int)
    middle = (ends[:-1] + ends[1:]) / 2 / iterations
    falling = (1 + np.cos(np.pi * middle)) / 2 if schedule == "cosine" else np.ones_like(middle)
    return [(int(passes), float(rate * share)) for passes, share in zip(np.diff(ends), falling, strict=True)]


def _means(rows: sparse.csr_array, items: np.ndarray) -> np.ndarray:
    """float32 [B, D] mean item vectors of [B, I]."""
    return np.asarray(rows @ items, dtype=np.float32) / np.maximum(np.diff(rows.indptr), 1)[:, None].astype(np.float32)


def _fold_in(seen: sparse.csr_array, users: np.ndarray, items: np.ndarray) -> np.ndarray:
    """float32 [D, D], from the mean vector of a user's items to his own."""
    means = _means(seen, items)[np.diff(seen.indptr) > 0].astype(np.float64)
    gram = means.T @ means
    ridge = max(1e-3 * float(np.diag(gram).mean()), 1e-12) * np.eye(len(gram))
    return np.linalg.solve(gram + ridge, means.T @ users[np.diff(seen.indptr) > 0]).astype(np.float32)
