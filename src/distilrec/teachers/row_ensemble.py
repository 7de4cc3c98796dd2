"""Several teachers of rows as one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.optimize import minimize, nnls

from distilrec.errors import DataError, problem
from distilrec.files import digest_json
from distilrec.types_rows import Head, Predictor, RowSplit

__all__ = ["RowEnsemble", "learn_weights"]

RIDGE = 1e-3  # pulls learned weights to equal ones; decides between members that say the same


class RowEnsemble:
    """The weighted mean of its members' logits, and of their values for number heads.

    The mean of logits is the normalized geometric mean of the members' probabilities (Hinton, Vinyals & Dean,
    "Distilling the Knowledge in a Neural Network", 2015, section 1).

    Args:
        weights: None for equal ones; one number a member; or {head: one number a member}, as `learn_weights` gives.
            Numbers that were given for all heads are scaled to a sum of 1, those by head are taken as they are: learned
            ones may sum to more than 1, because the mean of several opinions is too timid.
    Raises:
        DataError: no members, or weights that are not one number of at least 0 a
            member with one above 0.
    """

    def __init__(
        self, members: Sequence[Predictor], *, weights: Sequence[float] | Mapping[str, Sequence[float]] | None = None,
        name: str = "ensemble",
    ) -> None:
        self.name = name
        self.members = list(members)
        if not self.members:
            raise DataError(problem("an ensemble without members", "at least one teacher"))
        self.weights: np.ndarray | dict[str, np.ndarray]
        if isinstance(weights, Mapping):
            self.weights = {head: self._checked(one) for head, one in weights.items()}
        else:
            shares = self._checked(np.ones(len(self.members)) if weights is None else weights)
            self.weights = shares / shares.sum()

    def predict(self, split: RowSplit, rows: np.ndarray) -> np.ndarray:
        """float32 [n, O]."""
        shares = self._shares(split.heads)
        total = np.zeros((len(rows), split.outputs.size))
        for member, share in zip(self.members, shares, strict=True):
            total += share * member.predict(split, rows)
        return total.astype(np.float32)

    @property
    def parameters(self) -> int:
        return sum(member.parameters for member in self.members)

    @property
    def digest(self) -> str:
        """Empty, which is no digest, where a member has none."""
        digests = [getattr(member, "digest", "") for member in self.members]
        weights = {head: one.tolist() for head, one in self.weights.items()} if isinstance(self.weights, dict) \
            else self.weights.tolist()
        return digest_json([digests, weights]) if all(digests) else ""

    def _checked(self, weights: Sequence[float] | np.ndarray) -> np.ndarray:
        shares = np.asarray(weights, dtype=float)
        if shares.shape != (len(self.members),) or not np.isfinite(shares).all() or (shares < 0).any() or \
                not shares.any():
            raise DataError(problem(f"an ensemble of {len(self.members)} members with weights {shares.tolist()}",
                                    "one number of at least 0 for each member, one of them above 0"))
        return shares

    def _shares(self, heads: tuple[Head, ...]) -> np.ndarray:
        """float64 [M, O]."""
        if not isinstance(self.weights, dict):
            return np.repeat(self.weights[:, None], sum(len(head.columns) for head in heads), axis=1)
        if sorted(self.weights) != sorted(head.name for head in heads):
            raise DataError(problem(f"weights for the heads {', '.join(self.weights)}",
                                    f"the heads {', '.join(head.name for head in heads)}"))
        return np.concatenate([np.repeat(self.weights[head.name][:, None], len(head.columns), axis=1)
                               for head in heads], axis=1)


def learn_weights(members: Sequence[Predictor], split: RowSplit) -> dict[str, list[float]]:
    """Weights of at least 0 for every head, fitted to the labels of the validation rows.

    Binary and tags heads: logistic regression over the members' logits (stacking: Wolpert, Neural Networks, 1992; with
    weights of at least 0: Breiman, Machine Learning, 1996); the classes of tags share their weights. Number heads:
    least squares. Both without intercept, with a small pull (1e-3) to equal weights.

    Raises:
        DataError: no members; a head without a label among the validation rows.
    """
    if not members:
        raise DataError(problem("an ensemble without members", "at least one teacher"))
    rows = split.rows("valid")
    answers = np.stack([member.predict(split, rows) for member in members]).astype(np.float64)  # [M, n, O]
    labels = split.label_matrix(rows).astype(np.float64)
    out = {}
    for head in split.heads:
        columns = split.outputs.slices[head.name]
        target = labels[:, columns]
        known = ~np.isnan(target)
        if not known.any():
            raise DataError(problem(f"no validation row has a label of {head.name!r}", "labels to learn weights from",
                                    "give the weights, or leave them out for equal ones"))
        inputs = answers[:, :, columns][:, known].T  # [labels, M]
        fit = _least_squares if head.kind == "number" else _logistic
        weights = fit(inputs, target[known])
        if not weights.any():
            raise DataError(problem(f"no member says anything about {head.name!r} that validation rows bear out",
                                    "a member that is better than none", "leave the head's bad members out"))
        out[head.name] = [float(one) for one in weights]
    return out


def _least_squares(inputs: np.ndarray, target: np.ndarray) -> np.ndarray:
    m = inputs.shape[1]
    scale = max(float((inputs**2).mean()), 1e-12)
    pull = np.sqrt(RIDGE * scale * len(target))
    weights, _ = nnls(np.concatenate([inputs, pull * np.eye(m)]), np.r_[target, np.full(m, pull / m)])
    return weights


def _logistic(inputs: np.ndarray, target: np.ndarray) -> np.ndarray:
    n, m = inputs.shape

    def loss(weights: np.ndarray) -> tuple[float, np.ndarray]:
        z = inputs @ weights
        off = weights - 1 / m
        value = np.mean(np.logaddexp(0, z) - target * z) + RIDGE / 2 * off @ off
        share = 0.5 * (1 + np.tanh(z / 2))  # the sigmoid, without overflow
        return float(value), inputs.T @ (share - target) / n + RIDGE * off

    return minimize(loss, np.full(m, 1 / m), jac=True, method="L-BFGS-B", bounds=[(0, None)] * m).x
