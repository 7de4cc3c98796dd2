"""An A/B test without users: policies fill pages of a simulated shop, whose true preferences say what they sell.

Clicks and purchases are not drawn but expected under the true probabilities and the position bias of the page, so that
no luck of a draw stands between two policies: what is left is which users came. All policies answer the same pages, and
their differences are bootstrapped over users.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from distilrec.errors import DataError, problem
from distilrec.evaluation.row_significance import Sample, compare_samples, mean_over_seeds, resample
from distilrec.evaluation.row_terms import Terms
from distilrec.evaluation.significance import Comparison

__all__ = ["CONVERSION_METRICS", "Conversion", "Pages", "Preferences", "conversion", "shown", "true_scores"]

CONVERSION_METRICS = ("conversion_rate", "purchases_per_page", "click_rate", "purchases_per_click")
_BLOCK = 4096  # pages whose truth is computed together


class Preferences(Protocol):
    """What is known of a simulated shop alone: data.shop_truth.Truth has it."""

    @property
    def examination(self) -> np.ndarray:
        """float64 [P]: the probability that a position is looked at, by position."""
        ...

    def click_probability(
        self, users: np.ndarray, items: np.ndarray, times: np.ndarray, previous: np.ndarray | int = 0,
        position: np.ndarray | None = None,
    ) -> np.ndarray:
        """P(click) at a position; without one, of an item that is surely looked at."""
        ...

    def conversion_probability(self, users: np.ndarray, items: np.ndarray, times: np.ndarray) -> np.ndarray:
        """P(purchase given a click)."""
        ...


@dataclass(frozen=True, eq=False)
class Pages:
    """N moments at which a page is to be filled, with C items that may stand on each."""

    users: np.ndarray  # int64 [N], as the shop calls them; a user may come several times
    times: np.ndarray  # int64 [N], Unix seconds
    previous: np.ndarray  # int64 [N], the item clicked before, 0 for none
    candidates: np.ndarray  # int64 [N, C], no item twice on a row

    def __post_init__(self) -> None:
        shapes = (self.users.shape, self.times.shape, self.previous.shape, self.candidates.shape[:1])
        if self.candidates.ndim != 2 or len(set(shapes)) != 1 or not self.candidates.size:
            raise DataError(problem(f"pages of shapes {shapes} with candidates {self.candidates.shape}",
                                    "N users, times and previous items, candidates [N, C]"))
        ordered = np.sort(self.candidates, axis=1)
        twice = np.flatnonzero((ordered[:, 1:] == ordered[:, :-1]).any(axis=1))
        if len(twice):
            raise DataError(problem(f"page {twice[0]} has a candidate twice", "every candidate once",
                                    "a policy could show it twice and sell it twice"))

    def __len__(self) -> int:
        return len(self.users)


@dataclass(frozen=True, eq=False)
class Conversion:
    """What came out: for each policy and metric a value with its resamples, and the differences of policies.

    conversion_rate: share of pages that sell at least one item. purchases_per_page. click_rate: clicks by items shown.
    purchases_per_click.
    """

    samples: Mapping[str, Mapping[str, Sample]]  # policy -> metric -> sample
    users: int
    pages: int
    k: int

    def difference(self, a: str, b: str, metric: str = "conversion_rate") -> Comparison:
        """Policy a minus policy b on the same pages; raises DataError for a name that is not there."""
        for name in (a, b):
            if name not in self.samples:
                raise DataError(problem(f"policy {name!r} was not measured", ", ".join(self.samples)))
        if metric not in CONVERSION_METRICS:
            raise DataError(problem(f"metric {metric!r}", ", ".join(CONVERSION_METRICS)))
        return compare_samples(self.samples[a][metric], self.samples[b][metric])

    def to_json(self, pairs: Sequence[tuple[str, str]] = ()) -> dict[str, object]:
        """Values with 95 % intervals, and the differences of `pairs` by every metric."""
        differences = [
            {"a": a, "b": b, "metric": metric, "difference": found.difference, "interval": list(found.interval),
             "relative": found.relative, "p_value": found.p_value, "n": found.n, "test": found.test}
            for a, b in pairs for metric in CONVERSION_METRICS for found in [self.difference(a, b, metric)]
        ]
        values = {name: {metric: {"mean": one.value, "interval": one.interval()} for metric, one in of.items()}
                  for name, of in self.samples.items()}
        return {"users": self.users, "pages": self.pages, "k": self.k, "policies": values, "comparisons": differences}


def conversion(
    policies: Mapping[str, np.ndarray], pages: Pages, truth: Preferences, *, k: int = 8, resamples: int = 1000,
    seed: int = 0,
) -> Conversion:
    """What each policy sells on the same pages, under the true preferences.

    policies: name -> float [N, C] or [S, N, C] (S training seeds, averaged), by which it orders the candidates of a
        page: the probability that a shown item is clicked and bought, or anything that rises with it. The k highest
        stand on the page, the highest first; equal ones in the order of the candidates.
    k: items of a page, at most as many as there are positions in `truth.examination`.
    Raises:
        DataError: no policies, scores of another shape or not finite, k out of range.
    """
    if not policies:
        raise DataError(problem("no policies", "at least one: {name: scores [N, C]}"))
    chances = _chances(pages, truth)
    samples = {}
    for name, scores in policies.items():
        each = scores[None] if scores.ndim == 2 else scores
        if each.ndim != 3 or each.shape[1:] != pages.candidates.shape or not len(each):
            raise DataError(problem(f"policy {name!r} has scores of shape {scores.shape}",
                                    f"{pages.candidates.shape}, or one such table for each seed"))
        if not np.isfinite(each).all():
            raise DataError(problem(f"policy {name!r} has scores that are not finite", "numbers"))
        places = [shown(one, k, len(truth.examination)) for one in each]
        samples[name] = mean_over_seeds([
            resample(_terms(place, chances, truth.examination), pages.users, len(pages), resamples=resamples, seed=seed)
            for place in places
        ])
    return Conversion(samples, len(np.unique(pages.users)), len(pages), k)


def shown(scores: np.ndarray, k: int, positions: int) -> np.ndarray:
    """int64 [N, k]: places of the k best of the candidates [N, C], best first."""
    if not 1 <= k <= min(positions, scores.shape[1]):
        raise DataError(problem(f"pages of {k} items", f"1 to {min(positions, scores.shape[1])}: the shop knows "
                                f"{positions} positions, there are {scores.shape[1]} candidates"))
    return np.argsort(-scores, axis=1, kind="stable")[:, :k]


def true_scores(pages: Pages, truth: Preferences) -> np.ndarray:
    """float64 [N, C]: the true P(click and purchase) of every candidate: the policy that no other can beat in
    purchases per page."""
    return np.prod(_chances(pages, truth), axis=0)


def _chances(pages: Pages, truth: Preferences) -> np.ndarray:
    """float64 [2, N, C]: P(click) if looked at, P(purchase given a click)."""
    found = np.empty((2, *pages.candidates.shape))
    for start in range(0, len(pages), _BLOCK):
        rows = slice(start, start + _BLOCK)
        users, times, items = pages.users[rows, None], pages.times[rows, None], pages.candidates[rows]
        found[0, rows] = truth.click_probability(users, items, times, pages.previous[rows, None])
        found[1, rows] = truth.conversion_probability(users, items, times)
    return found


def _terms(places: np.ndarray, chances: np.ndarray, examination: np.ndarray) -> dict[str, Terms]:
    """The metrics as sums over pages. Positions are looked at, clicked and bought from independently of each other."""
    click, buy = (np.take_along_axis(one, places, axis=1) for one in chances)
    clicks = click * examination[: places.shape[1]]
    purchases = clicks * buy
    any_sold = 1 - np.prod(1 - purchases, axis=1)
    one = np.ones(len(places))
    return {
        "conversion_rate": Terms(np.column_stack([any_sold, one]), _ratio),
        "purchases_per_page": Terms(np.column_stack([purchases.sum(1), one]), _ratio),
        "click_rate": Terms(np.column_stack([clicks.sum(1), one * places.shape[1]]), _ratio),
        "purchases_per_click": Terms(np.column_stack([purchases.sum(1), clicks.sum(1)]), _ratio),
    }


def _ratio(sums: np.ndarray) -> np.ndarray:
    return np.asarray(sums[..., 0] / sums[..., 1])
