"""Is a difference of pointwise metrics real? A paired bootstrap over groups of rows.

The rows of one user (or request) are alike, so whole groups are drawn with replacement, and rows where there are no
groups: the cluster bootstrap of Field and Welsh (JRSS B 69, 2007). Every model sees the same draws. Metrics that are
functions of sums over rows cost one matrix product for all draws; the AUC is sorted once and costs O(n) a draw.

The calibration error is a sum of absolute values, which the noise of a resample only makes larger: its draws lie above
the value that they are draws of, and their interval can leave that value out. They are moved so that their mean is the
value. The value itself remains what it is on finite rows: a little above the calibration error of the population.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from distilrec.errors import DataError, problem
from distilrec.evaluation.pointwise import Ranked, Statistic, base_name, check_rows, row_statistics
from distilrec.evaluation.row_terms import Terms
from distilrec.evaluation.significance import Comparison, interval_and_p
from distilrec.types_rows import Head

__all__ = ["Sample", "centered", "compare_samples", "mean_over_seeds", "resample", "row_samples"]

_CHUNK = 200000  # weights held at a time


class Sample(NamedTuple):
    """A metric of one model and its values on resampled rows."""

    value: float
    draws: np.ndarray  # float64 [R]; NaN where a draw does not define it
    n: int  # groups (or rows) that were drawn from
    unit: str = "groups"

    def interval(self, level: float = 0.95) -> tuple[float, float] | None:
        """Percentiles of the draws; None where the metric is not defined."""
        known = self.draws[~np.isnan(self.draws)]
        if np.isnan(self.value) or len(known) == 0:
            return None
        low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
        return float(low), float(high)


def resample(
    statistics: Mapping[str, Statistic], groups: np.ndarray | None, rows: int, *, resamples: int = 1000, seed: int = 0
) -> dict[str, Sample]:
    """Each statistic on all rows and on `resamples` draws of as many groups as there are.

    groups: int [n], whose row a row is, or None for rows by themselves; rows: n. The draws depend on `seed`, the number
    of groups and of resamples alone, so samples of different models of the same rows are paired.
    """
    clusters = np.arange(rows) if groups is None else np.unique(groups, return_inverse=True)[1]
    size = int(clusters.max(initial=-1)) + 1
    if size == 0:
        raise DataError(problem("no rows to compare on", "at least one test row"))
    linear = {name: one for name, one in statistics.items() if isinstance(one, Terms)}
    sums = {name: _by_cluster(one.sums, clusters, size, groups is None) for name, one in linear.items()}
    ranked = {name: one.through(clusters) for name, one in statistics.items() if isinstance(one, Ranked)}
    draws = {name: np.empty(resamples) for name in statistics}
    rng = np.random.default_rng(seed)
    step = max(1, _CHUNK // max(size, rows))
    for start in range(0, resamples, step):
        block = slice(start, min(start + step, resamples))
        counts = np.stack([np.bincount(rng.integers(0, size, size, dtype=np.int32), minlength=size)
                           for _ in range(block.start, block.stop)]).astype(np.float64)
        for name, one in linear.items():
            draws[name][block] = Terms(sums[name], one.finish).of(counts)
        for name, order in ranked.items():
            draws[name][block] = order.of(counts)
    unit = "rows" if groups is None else "groups"
    values = {name: float(one.of()) for name, one in statistics.items()}
    return {name: Sample(value, centered(name, value, draws[name]), size, unit) for name, value in values.items()}


def centered(metric: str, value: float, draws: np.ndarray) -> np.ndarray:
    """The draws [R] of a calibration error moved to have its value as their mean; those of other metrics as they are.

    A moved draw can be below 0, where no calibration error lies: only the differences of two are read below 0.
    """
    known = ~np.isnan(draws)
    if base_name(metric) != "calibration_error" or not known.any():
        return draws
    return draws + (value - draws[known].mean())


def mean_over_seeds(samples: Sequence[Mapping[str, Sample]]) -> dict[str, Sample]:
    """One sample for each metric from those of several training seeds: averaged inside each draw."""
    return {
        name: Sample(float(np.mean([one[name].value for one in samples])),
                     np.mean([one[name].draws for one in samples], axis=0), first.n, first.unit)
        for name, first in samples[0].items()
    }


def row_samples(
    predictions: np.ndarray, labels: np.ndarray, groups: np.ndarray | None, heads: Sequence[Head],
    thresholds: Sequence[Mapping[str, Any]] | None = None, *, k: Sequence[int] = (1, 3, 5), resamples: int = 1000,
    seed: int = 0, weights: np.ndarray | None = None,
) -> dict[str, Sample]:
    """Every metric of one model with its resamples.

    predictions: float32 [S, n, O], one for each training seed; labels [n, O]; groups [n]; thresholds: one for each
    seed; weights: [n], as for `evaluate_rows`. Raises DataError as `evaluate_rows`.
    """
    found = []
    for s, one in enumerate(predictions):
        check_rows(one, labels, groups, heads)
        cuts = None if thresholds is None else thresholds[s]
        found.append(resample(row_statistics(one, labels, groups, heads, cuts, k=k, weights=weights), groups,
                              len(labels), resamples=resamples, seed=seed))
    return mean_over_seeds(found)


def compare_samples(a: Sample, b: Sample, *, level: float = 0.95) -> Comparison:
    """The metric of a minus that of b, with the interval and p of `significance.compare`.

    Draws that do not define the metric for either (a draw of one class) are left out. Raises DataError for samples of
    different draws, or where the metric is not defined.
    """
    if a.draws.shape != b.draws.shape or (a.n, a.unit) != (b.n, b.unit):
        raise DataError(problem(f"{len(a.draws)} draws of {a.n} {a.unit} against {len(b.draws)} of {b.n} {b.unit}",
                                "the same draws for both models", "measure both on one split"))
    differences = a.draws - b.draws
    known = ~np.isnan(differences)
    if np.isnan(a.value - b.value) or not known.any():
        raise DataError(problem("a metric that these rows do not define", "rows of both classes"))
    interval, p = interval_and_p(differences[known], a.n, level)
    return Comparison(a.value, b.value, a.value - b.value, interval, p, a.n,
                      f"paired bootstrap over {a.unit}, {len(differences)} resamples")


def _by_cluster(sums: np.ndarray, clusters: np.ndarray, size: int, alone: bool) -> np.ndarray:
    """float64 [clusters, K] from what each row adds [n, K]."""
    if alone:
        return sums
    return np.stack([np.bincount(clusters, column, size) for column in sums.T], axis=1)
