"""Matrix factorization by alternating least squares."""

from __future__ import annotations

from functools import cached_property
from typing import Any, Literal

import numpy as np
from scipy import sparse

from distilrec.errors import TrainingError, nearest, problem
from distilrec.models.factors import Factors, implicit_models, one_blas_thread, threads
from distilrec.models.fitted import bag, seen_matrix
from distilrec.types import Histories, Split

__all__ = ["ALS"]

FOLD_IN = ("unknown", "always")


class ALS(Factors):
    """Weighted matrix factorization of implicit feedback (Hu, Koren & Volinsky, ICDM 2008), fitted by the library
    implicit with conjugate gradients (Takács, Pilászy & Tikk, RecSys 2011).

    When to use it: logs without order. The quickest strong teacher (seconds), and any history is answered exactly as if
    its user had been there: given the item vectors, a user's vector is the solution of a least-squares problem.

    `fold_in` "unknown" answers known users by their vectors; "always" answers everybody from the history that is given,
    which a student of sequences needs, for a known user's vector knows his later events.
    """

    architecture = "als"

    @classmethod
    def fit(
        cls, split: Split, *, dim: int = 64, alpha: float = 10.0, regularization: float = 10.0, iterations: int = 15,
        fold_in: Literal["unknown", "always"] = "unknown", seed: int = 0,
    ) -> ALS:
        """From the train events, each pair once.

        Args:
            alpha: how much an event weighs, where its absence weighs 1.
        Raises:
            TrainingError: a `fold_in` that there is not; MissingExtraError: implicit is not installed.
        """
        if fold_in not in FOLD_IN:
            raise TrainingError(problem(f"fold_in {fold_in!r}{nearest(str(fold_in), FOLD_IN)}", " | ".join(FOLD_IN)))
        seen = seen_matrix(split)
        settings = {"dim": dim, "alpha": float(alpha), "regularization": float(regularization),
                    "iterations": iterations, "fold_in": fold_in, "seed": seed}
        with one_blas_thread():
            model = _library(settings)
            model.fit(sparse.csr_matrix(seen), show_progress=False)
        items = np.ascontiguousarray(model.item_factors, dtype=np.float32)
        made = cls({"items": items, "users": np.zeros((split.n_users, dim), dtype=np.float32)}, settings,
                   split_digest=split.digest)
        # the users once more: the items have moved since, and three steps of conjugate gradients are not exact
        made.arrays["users"] = made._solve(seen)
        return made

    @property
    def per_user(self) -> bool:
        """Whether all decisions of a known user get one answer."""
        return bool(self.settings["fold_in"] == "unknown")

    def vectors(self, histories: Histories) -> np.ndarray:
        """float32 [B, D], the vectors of the users who have these histories."""
        if self.settings["fold_in"] == "unknown":
            return super().vectors(histories)
        users = np.where(histories.lengths > 0, -1, histories.users).astype(np.int32)
        return super().vectors(Histories(users, histories.items, histories.offsets))

    def folded(self, histories: Histories) -> np.ndarray:
        """float32 [B, D], the least-squares solution for each history."""
        return self._solve(bag(histories, len(self.arrays["items"])))

    def _solve(self, rows: sparse.csr_array) -> np.ndarray:
        with one_blas_thread():
            return np.asarray(self._model.recalculate_user(np.arange(rows.shape[0]), sparse.csr_matrix(rows)))

    @cached_property
    def _model(self) -> Any:
        model = _library(self.settings)
        model.item_factors, model.user_factors = self.arrays["items"], self.arrays["users"]
        return model


def _library(settings: dict[str, Any]) -> Any:
    return implicit_models().als.AlternatingLeastSquares(
        factors=settings["dim"], alpha=settings["alpha"], regularization=settings["regularization"],
        iterations=settings["iterations"], num_threads=threads(), random_state=settings["seed"],
    )
