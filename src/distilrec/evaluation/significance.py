"""Is the difference real? A paired bootstrap over users (Efron and Tibshirani, 1993; Sakai, SIGIR 2006)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from distilrec.errors import DataError, problem

__all__ = ["Comparison", "compare", "interval_and_p"]

_CHUNK = 2_000_000  # draws held at a time


@dataclass(frozen=True)
class Comparison:
    """Mean of a minus mean of b over the same users.

    The interval speaks of other users, not of other training seeds: the seeds are averaged away first, and
    their spread is reported beside each metric.
    """

    mean_a: float
    mean_b: float
    difference: float
    interval: tuple[float, float]  # 95 % unless asked otherwise
    p_value: float  # two-sided
    n: int  # users
    test: str

    @property
    def relative(self) -> float | None:
        """Difference as a share of the mean of b; None where that is 0."""
        return self.difference / self.mean_b if self.mean_b else None

    @property
    def relative_interval(self) -> tuple[float, float] | None:
        """The interval as shares of the mean of b, which is taken as known."""
        if not self.mean_b:
            return None
        low, high = sorted((self.interval[0] / self.mean_b, self.interval[1] / self.mean_b))
        return low, high


def compare(
    a: np.ndarray, b: np.ndarray, *, resamples: int = 10_000, level: float = 0.95, seed: int = 0
) -> Comparison:
    """Compare two models by one metric, user by user.

    a, b: float64 [Q] or [S, Q] (S seeds, which may differ in number between a and b; they are averaged per user).
        Users that are NaN in both are left out.
    Interval: percentiles of the resampled means. p: twice the smaller share of resampled means on either side
    of 0, counting the observed sample as one of them, and never below 2^(1 - n), the least that n pairs can say.

    Raises DataError for unequal users or when no user is left.
    """
    first, second = _per_user(a), _per_user(b)
    if first.shape != second.shape:
        raise DataError(problem(
            f"{len(first)} users against {len(second)}", "the same users for both models", "measure both on one split"))
    known = ~np.isnan(first)
    if not np.array_equal(known, ~np.isnan(second)):
        raise DataError(problem("a metric that is missing for users of one model only", "the same users for both"))
    if not known.any():
        raise DataError(problem("no user to compare on", "at least one user with a target"))
    first, second = first[known], second[known]
    means = _resampled_means(first - second, resamples, np.random.default_rng(seed))
    interval, p = interval_and_p(means, len(first), level)
    return Comparison(
        float(first.mean()), float(second.mean()), float((first - second).mean()), interval, p, len(first),
        f"paired bootstrap over users, {resamples} resamples",
    )


def interval_and_p(resampled: np.ndarray, n: int, level: float = 0.95) -> tuple[tuple[float, float], float]:
    """Percentile interval and two-sided p of differences [R] that were resampled over n users (see `compare`)."""
    low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2])
    smaller = min(int((resampled <= 0).sum()), int((resampled >= 0).sum()))
    p = max(min(1.0, 2 * (smaller + 1) / (len(resampled) + 1)), 2.0 ** (1 - min(n, 1000)))
    return (float(low), float(high)), p


def _per_user(values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, dtype=np.float64)
    return values.mean(axis=0) if values.ndim == 2 else values


def _resampled_means(differences: np.ndarray, resamples: int, rng: np.random.Generator) -> np.ndarray:
    """float64 [resamples]: means of samples of n users drawn with replacement.

    Most users hit under neither model and differ by exactly 0. How many of the others a sample draws is binomial,
    and only those need drawing: the same distribution at a tenth of the work, exactly.
    """
    n = len(differences)
    moving = differences[differences != 0]
    if len(moving) == 0:
        return np.zeros(resamples)
    drawn = rng.binomial(n, len(moving) / n, size=resamples)
    sums = np.zeros(resamples)
    step = max(1, _CHUNK // len(moving))
    for start in range(0, resamples, step):
        counts = drawn[start:start + step]
        values = moving[rng.integers(0, len(moving), size=int(counts.sum()), dtype=np.int32)]
        edges = np.concatenate([[0], np.cumsum(counts)])
        filled = np.flatnonzero(counts)  # reduceat would give an empty sample the value of its neighbor
        if len(filled):
            sums[start + filled] = np.add.reduceat(values, edges[filled])
    return sums / n
