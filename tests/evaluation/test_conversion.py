"""The A/B test in the simulated shop: hand-computed pages, an oracle that wins, twins that tie."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest

from distilrec.data.shop_truth import Truth
from distilrec.data.simulate import START, simulate_shop
from distilrec.errors import DataError
from distilrec.evaluation.conversion import CONVERSION_METRICS, Pages, conversion, shown, true_scores


@dataclass
class Told:
    """Preferences written down: P(click) and P(purchase | click) by item from 1, the same for all users."""

    click: np.ndarray
    buy: np.ndarray
    examination: np.ndarray

    def click_probability(
        self, users: np.ndarray, items: np.ndarray, times: np.ndarray, previous: np.ndarray | int = 0,
        position: np.ndarray | None = None,
    ) -> np.ndarray:
        assert position is None
        return np.broadcast_to(self.click[items - 1], np.broadcast_shapes(users.shape, items.shape))

    def conversion_probability(self, users: np.ndarray, items: np.ndarray, times: np.ndarray) -> np.ndarray:
        return np.broadcast_to(self.buy[items - 1], np.broadcast_shapes(users.shape, items.shape))


def pages_of(users: list[int], candidates: list[list[int]]) -> Pages:
    n = len(users)
    return Pages(np.array(users), np.full(n, START), np.zeros(n, dtype=np.int64), np.array(candidates))


def shop_pages(n_users: int = 60, visits: int = 3, candidates: int = 30) -> tuple[Pages, Truth]:
    shop = simulate_shop(users=n_users, items=120, events_per_user=4.0, seed=5)
    rng = np.random.default_rng(0)
    users = np.repeat(np.arange(1, n_users + 1), visits)
    offered = np.argsort(rng.random((len(users), 120)), axis=1)[:, :candidates] + 1
    times = START + rng.integers(0, 300 * 86_400, len(users))
    return Pages(users, times, rng.integers(0, 121, len(users)), offered), shop.truth


def test_a_page_by_hand() -> None:
    truth = Told(np.array([0.5, 0.2, 0.8]), np.array([0.4, 1.0, 0.1]), np.array([1.0, 0.5]))
    pages = pages_of([1, 2], [[1, 2, 3], [3, 2, 1]])
    found = conversion({"a": np.array([[3.0, 2.0, 1.0], [3.0, 2.0, 1.0]])}, pages, truth, k=2, resamples=10)
    # page 1 shows items 1, 2: clicks .5 + .1, purchases .2 + .1; page 2 shows 3, 2: clicks .8 + .1, purchases .08 + .1
    assert found.samples["a"]["click_rate"].value == pytest.approx((0.6 + 0.9) / 4)
    assert found.samples["a"]["purchases_per_page"].value == pytest.approx((0.3 + 0.18) / 2)
    assert found.samples["a"]["purchases_per_click"].value == pytest.approx(0.48 / 1.5)
    assert found.samples["a"]["conversion_rate"].value == pytest.approx(
        ((1 - 0.8 * 0.9) + (1 - 0.92 * 0.9)) / 2)
    assert (found.users, found.pages, found.k) == (2, 2, 2)


def test_the_order_on_the_page_matters() -> None:
    """The same two items, the better one first: it is looked at more often."""
    truth = Told(np.array([0.9, 0.1]), np.array([0.5, 0.5]), np.array([1.0, 0.5]))
    pages = pages_of([1], [[1, 2]])
    found = conversion({"first": np.array([[1.0, 0.0]]), "last": np.array([[0.0, 1.0]])}, pages, truth, k=2,
                       resamples=10)
    assert found.difference("first", "last", "purchases_per_page").difference == pytest.approx(0.475 - 0.275)


def test_true_preferences_beat_chance_and_nothing_beats_them() -> None:
    pages, truth = shop_pages()
    rng = np.random.default_rng(1)
    noisy = np.log(true_scores(pages, truth)) + rng.normal(0, 1, pages.candidates.shape)
    policies = {"truth": true_scores(pages, truth), "noisy": noisy, "chance": rng.random(pages.candidates.shape)}
    found = conversion(policies, pages, truth, resamples=300)
    for metric in ("conversion_rate", "purchases_per_page", "click_rate"):
        assert found.difference("truth", "chance", metric).interval[0] > 0, metric
        assert found.difference("noisy", "chance", metric).interval[0] > 0, metric
    assert found.difference("truth", "noisy", "purchases_per_page").interval[0] > 0
    assert found.difference("truth", "chance").n == 60


def test_equal_policies_differ_by_nothing() -> None:
    pages, truth = shop_pages()
    scores = true_scores(pages, truth)
    found = conversion({"a": scores, "b": 3 * scores + 1, "c": np.stack([scores, scores])}, pages, truth, resamples=50)
    for other in ("b", "c"):
        for metric in CONVERSION_METRICS:
            result = found.difference("a", other, metric)
            assert result.difference == pytest.approx(0, abs=1e-12)
            assert result.interval == pytest.approx((0, 0), abs=1e-12)
            assert result.p_value == 1


def test_expectations_are_what_drawing_gives() -> None:
    """Ten thousand drawn visits of one page: looked at, clicked, bought."""
    pages, truth = shop_pages(n_users=2, visits=1, candidates=10)
    one = Pages(pages.users[:1], pages.times[:1], pages.previous[:1], pages.candidates[:1])
    scores = true_scores(one, truth)
    value = conversion({"a": scores}, one, truth, k=5, resamples=10).samples["a"]
    items = one.candidates[0, shown(scores, 5, 8)[0]]
    rng, n = np.random.default_rng(2), 40_000
    p = truth.click_probability(one.users, items, one.times, one.previous, np.arange(1, 6))
    clicked = rng.random((n, 5)) < p
    bought = clicked & (rng.random((n, 5)) < truth.conversion_probability(one.users, items, one.times))
    assert value["click_rate"].value == pytest.approx(clicked.mean(), abs=0.01)
    assert value["conversion_rate"].value == pytest.approx(bought.any(axis=1).mean(), abs=0.01)


def test_seeds_are_averaged_and_users_are_drawn_whole() -> None:
    truth = Told(np.array([0.5, 0.2]), np.array([0.5, 0.5]), np.array([1.0]))
    pages = pages_of([1, 1, 2], [[1, 2]] * 3)
    both = np.array([[[1.0, 0.0]] * 3, [[0.0, 1.0]] * 3])
    found = conversion({"a": both}, pages, truth, k=1, resamples=200)
    assert found.samples["a"]["purchases_per_page"].value == pytest.approx((0.25 + 0.1) / 2)
    assert found.samples["a"]["purchases_per_page"].n == 2
    document = found.to_json([("a", "a")])
    assert document["comparisons"][0]["difference"] == 0  # type: ignore[index]


@pytest.mark.parametrize(("scores", "k"), [
    (np.zeros((2, 2)), 1), (np.full((1, 2), np.nan), 1), (np.zeros((1, 2)), 3), (np.zeros((1, 2)), 0),
    (np.zeros((0, 1, 2)), 1),
])
def test_scores_that_do_not_fit_are_refused(scores: np.ndarray, k: int) -> None:
    truth = Told(np.array([0.5, 0.2]), np.array([0.5, 0.5]), np.array([1.0, 0.5, 0.3]))
    with pytest.raises(DataError):
        conversion({"a": scores}, pages_of([1], [[1, 2]]), truth, k=k)


def test_pages_and_names_that_do_not_fit_are_refused() -> None:
    truth = Told(np.array([0.5, 0.2]), np.array([0.5, 0.5]), np.array([1.0]))
    with pytest.raises(DataError, match="twice"):
        pages_of([1], [[1, 1]])
    with pytest.raises(DataError, match="shapes"):
        pages_of([1, 2], [[1, 2]])
    with pytest.raises(DataError, match="no policies"):
        conversion({}, pages_of([1], [[1, 2]]), truth)
    found = conversion({"a": np.zeros((1, 2))}, pages_of([1], [[1, 2]]), truth, k=1, resamples=10)
    with pytest.raises(DataError, match="not measured"):
        found.difference("a", "b")
    with pytest.raises(DataError, match="metric"):
        found.difference("a", "a", "revenue")
