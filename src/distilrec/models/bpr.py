"""Matrix factorization by Bayesian personalized ranking."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Literal

import numpy as np
from scipy import sparse

from distilrec import progress
from distilrec.errors import TrainingError, nearest, problem
from distilrec.models.factors import Factors, implicit_models, one_blas_thread
from distilrec.models.fitted import bag, seen_matrix
from distilrec.types import Histories, Split

__all__ = ["BPR"]

SCHEDULES = ("constant", "cosine")
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
        iterations: int = 100, schedule: Literal["constant", "cosine"] = "constant", seed: int = 0,
    ) -> BPR:
        """From the train events, each pair once.

        Args:
            iterations: passes over the events; a good model wants thousands.
            schedule: "constant", or "cosine": the learning rate falls towards 0. One sampled negative a step is so
                noisy a gradient that at a constant rate the vectors never settle; below a thousand passes they are
                still on their way, and a falling rate only slows them.
        Raises:
            MissingExtraError: implicit is not installed; TrainingError: the vectors became infinite, no pass, or an
                unknown schedule.
        """
        if iterations < 1:
            raise TrainingError(problem(f"{iterations} iterations of BPR", "1 or more"))
        if schedule not in SCHEDULES:
            raise TrainingError(problem(f"schedule {schedule!r}{nearest(str(schedule), SCHEDULES)}",
                                        " | ".join(SCHEDULES)))
        library, seen = implicit_models().bpr, seen_matrix(split)
        with one_blas_thread(), _finite():
            # one thread: several of them write to the same vectors unlocked, and the seed would decide nothing
            model = library.BayesianPersonalizedRanking(factors=dim, regularization=regularization, num_threads=1)
            pairs, parts = sparse.csr_matrix(seen), _parts(iterations, learning_rate, schedule)
            with progress.track(iterations, "training bpr") as bar:
                for number, (passes, rate) in enumerate(parts):
                    model.iterations, model.learning_rate = passes, rate
                    model.random_state = int(seed) + 1_000_003 * number
                    model.fit(pairs, show_progress=False, callback=lambda *_: bar.advance())
        users, items = (np.array(table, dtype=np.float32) for table in (model.user_factors, model.item_factors))
        if not (np.isfinite(users).all() and np.isfinite(items).all()):
            raise _diverged()
        users[np.diff(seen.indptr) == 0] = 0.0
        return cls({"users": users, "items": items, "fold_in": _fold_in(seen, users, items)},
                   {"dim": dim, "learning_rate": float(learning_rate), "regularization": float(regularization),
                    "iterations": iterations, "schedule": schedule, "seed": seed}, split_digest=split.digest)

    def folded(self, histories: Histories) -> np.ndarray:
        """float32 [B, D + 1]."""
        items = self.arrays["items"]
        return _means(bag(histories, len(items)), items) @ self.arrays["fold_in"]


@contextlib.contextmanager
def _finite() -> Iterator[None]:
    from implicit.recommender_base import ModelFitError

    try:
        yield
    except ModelFitError as error:  # it looks for NaN, not for infinite numbers
        raise _diverged() from error


def _diverged() -> TrainingError:
    return TrainingError(problem("BPR gives NaN or infinite vectors", "finite numbers", "lower learning_rate"))


def _parts(iterations: int, rate: float, schedule: str) -> list[tuple[int, float]]:
    """(passes, learning rate) one after the other."""
    if schedule == "constant":
        return [(iterations, rate)]
    ends = np.linspace(0, iterations, min(_PARTS, iterations) + 1).round().astype(int)
    middle = (ends[:-1] + ends[1:]) / 2 / iterations
    return [(int(passes), float(rate * (1 + np.cos(np.pi * at)) / 2))
            for passes, at in zip(np.diff(ends), middle, strict=True)]


def _means(rows: sparse.csr_array, items: np.ndarray) -> np.ndarray:
    """float32 [B, D] mean item vectors of [B, I]."""
    return np.asarray(rows @ items, dtype=np.float32) / np.maximum(np.diff(rows.indptr), 1)[:, None].astype(np.float32)


def _fold_in(seen: sparse.csr_array, users: np.ndarray, items: np.ndarray) -> np.ndarray:
    """float32 [D, D], from the mean vector of a user's items to his own."""
    means = _means(seen, items)[np.diff(seen.indptr) > 0].astype(np.float64)
    gram = means.T @ means
    ridge = max(1e-3 * float(np.diag(gram).mean()), 1e-12) * np.eye(len(gram))
    return np.linalg.solve(gram + ridge, means.T @ users[np.diff(seen.indptr) > 0]).astype(np.float32)
