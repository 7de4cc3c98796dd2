"""Models that are fitted in one pass: by hand, by a naive second way, and as files."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from core_world import split_of, walk_split
from distilrec.errors import KnowledgeError, TrainingError
from distilrec.models import BASELINES, ease, fitted_settings, model_class
from distilrec.models.als import ALS
from distilrec.models.bpr import BPR, _parts
from distilrec.models.ease import EASE
from distilrec.models.fitted import bag, largest, seen_matrix
from distilrec.models.user_knn import UserKNN
from distilrec.types import Histories, Split

THREE = split_of([([0, 1, 0], [2], []), ([1, 2], [0], []), ([0, 1], [2], [])], 3)  # one pair twice
VECTORS = [name for name in BASELINES if hasattr(model_class(name), "item_vectors")]


@pytest.fixture(scope="module")
def world() -> Split:
    """Somebody has no train event."""
    rows = walk_split(users=25, items=14, length=7)
    parts = [tuple(rows.items[a:b].tolist() for a, b in itertools.pairwise(bounds)) for bounds in rows.bounds]
    return split_of([*parts, ([], [3], [4])], 14)


# --- as files


@pytest.mark.req("B7")
@pytest.mark.parametrize("name", list(BASELINES))
def test_saved_and_loaded_it_answers_the_same(name: str, world: Split, tmp_path: Path) -> None:
    model = model_class(name).fit(world)
    model.settings["temperature"], model.training = 0.5, {"seconds": 1.5}
    model.save(tmp_path / "m")
    found = model_class(name).load(tmp_path / "m", world)
    histories = Histories.of([[1, 2], [], [3, 3], [1]], np.array([-1, -1, 4, 25]))
    assert np.array_equal(found.scores(histories), model.scores(histories))
    assert (found.digest, found.parameters, found.settings) == (model.digest, model.parameters, model.settings)
    assert (found.name, found.training) == (name, {"seconds": 1.5})
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("name", list(BASELINES))
def test_changed_bytes_another_split_and_another_kind_are_refused(name: str, world: Split, tmp_path: Path) -> None:
    cls = model_class(name)
    cls.fit(world).save(tmp_path)
    with pytest.raises(KnowledgeError, match="another data set or split"):
        cls.load(tmp_path, walk_split())
    other = model_class("ease" if name != "ease" else "als")
    with pytest.raises(KnowledgeError, match=f"kind '{name}'"):
        other.load(tmp_path, world)
    data = bytearray((tmp_path / "model.safetensors").read_bytes())
    data[-1] ^= 1
    (tmp_path / "model.safetensors").write_bytes(data)
    with pytest.raises(KnowledgeError, match="has changed"):
        cls.load(tmp_path, world)


@pytest.mark.parametrize("name", list(BASELINES))
def test_the_temperature_divides_the_scores_and_changes_the_digest(name: str, world: Split) -> None:
    model, histories = model_class(name).fit(world), Histories.of([[1, 2], [5]])
    scores, digest = model.scores(histories), model.digest
    model.settings["temperature"] = 0.25
    np.testing.assert_allclose(model.scores(histories), 4 * scores, rtol=1e-6)
    assert model.digest != digest


def test_settings_are_those_of_fit_and_the_temperature() -> None:
    assert fitted_settings("ease") == {"regularization": 100.0, "temperature": 1.0}
    assert "seed" not in fitted_settings("als")
    assert "split" not in fitted_settings("als")


# --- matrices


def test_a_bag_holds_every_item_once() -> None:
    found = bag(Histories.of([[2, 0, 2], [], [1]]), 4).toarray()
    assert found.tolist() == [[1, 0, 1, 0], [0, 0, 0, 0], [0, 1, 0, 0]]
    assert seen_matrix(THREE).toarray().tolist() == [[1, 1, 0], [0, 1, 1], [1, 1, 0]]


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.integers(0, 4), min_size=6, max_size=6), min_size=1, max_size=5), st.integers(1, 4))
def test_the_largest_are_those_of_a_full_sort(rows: list[list[int]], k: int) -> None:
    dense = np.array(rows, dtype=np.float32)
    found = largest(sparse.csr_array(dense), k).toarray()
    for row, kept in zip(dense, found, strict=True):
        best = sorted(np.flatnonzero(row), key=lambda i: (-row[i], i))[:k]
        assert np.flatnonzero(kept).tolist() == sorted(best)
        assert np.array_equal(kept[best], row[best])


# --- EASE


def test_ease_by_hand() -> None:
    # X^T X + 1 = [[3,2,0],[2,4,1],[0,1,2]], whose inverse is [[7,-4,2],[-4,6,-3],[2,-3,8]] / 13
    model = EASE.fit(THREE, regularization=1.0)
    expected = [[0, 4 / 6, -2 / 8], [4 / 7, 0, 3 / 8], [-2 / 7, 3 / 6, 0]]
    np.testing.assert_allclose(model.arrays["weights"], expected, rtol=1e-6)
    scores = model.scores(Histories.of([[0, 2], []]))
    np.testing.assert_allclose(scores, [[-2 / 7, 7 / 6, -1 / 4], [0, 0, 0]], rtol=1e-6)
    assert model.parameters == 9


@pytest.mark.parametrize("double", [1, 10_000])
@pytest.mark.parametrize("rows", [3, 5, 100])
def test_ease_is_the_same_in_blocks_and_in_half_the_memory(
    double: int, rows: int, world: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ease, "_DOUBLE", double)
    monkeypatch.setattr(ease, "_ROWS", rows)
    x = seen_matrix(world).toarray().astype(float)
    inverse = np.linalg.inv(x.T @ x + 7 * np.eye(14))
    expected = -inverse / np.diag(inverse)
    np.fill_diagonal(expected, 0)
    np.testing.assert_allclose(EASE.fit(world, regularization=7.0).arrays["weights"], expected, atol=1e-6)


def test_ease_says_beforehand_what_does_not_fit(world: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ease, "free_memory", lambda: 1000)
    with pytest.raises(TrainingError, match=r"EASE of 14 items is a matrix of .* are free"):
        EASE.fit(world)
    monkeypatch.setattr(ease, "free_memory", lambda: None)
    with pytest.raises(TrainingError, match="above 0"):
        EASE.fit(world, regularization=0.0)


# --- neighbors


def test_user_knn_against_a_naive_second_way(world: Split) -> None:
    rows = [set(np.flatnonzero(row).tolist()) for row in seen_matrix(world).toarray()]
    model = UserKNN.fit(world, neighbors=3, shrink=2.0)
    asked, known = [[1, 2, 2], [4, 5]], [-1, 6]
    for history, user in zip(asked, known, strict=True):
        own = set(history)
        alike = {u: len(own & row) / (np.sqrt(len(own) * len(row)) + 2.0)
                 for u, row in enumerate(rows) if own & row and u != user}
        best = sorted(alike, key=lambda u: (-np.float32(alike[u]), u))[:3]
        expected = [sum(alike[u] for u in best if item in rows[u]) for item in range(14)]
        found = model.scores(Histories.of([history], np.array([user])))[0]
        np.testing.assert_allclose(found, expected, rtol=1e-5)


# --- factors


def test_als_solves_the_published_normal_equations(world: Split) -> None:
    model = ALS.fit(world, dim=5, alpha=8.0, regularization=0.7, seed=3)
    items, histories = model.item_vectors().astype(float), Histories.of([[1, 4, 1], [2]])
    for row, history in enumerate(([1, 4], [2])):
        chosen = items[history]
        left = items.T @ items + 7.0 * chosen.T @ chosen + 0.7 * np.eye(5)
        np.testing.assert_allclose(model.vectors(histories)[row], np.linalg.solve(left, 8.0 * chosen.sum(0)), rtol=1e-3,
                                   atol=1e-5)


def test_als_answers_an_unknown_user_as_if_he_had_been_there(world: Split) -> None:
    model = ALS.fit(world, dim=5)
    users = np.flatnonzero(world.bounds[:, 1] > world.bounds[:, 0]).astype(np.int32)
    train = [world.items[world.bounds[u, 0] : world.bounds[u, 1]] for u in users]
    strange = Histories.of(train)
    np.testing.assert_allclose(model.vectors(strange), model.arrays["users"][users], rtol=1e-3, atol=1e-5)


def test_als_can_answer_everybody_from_the_history_given(world: Split) -> None:
    by_user, by_history = ALS.fit(world, dim=5), ALS.fit(world, dim=5, fold_in="always")
    assert by_user.per_user
    assert not by_history.per_user
    known, strange = Histories.of([[1, 2]], np.array([4])), Histories.of([[1, 2]])
    np.testing.assert_allclose(by_history.vectors(known), by_user.vectors(strange), rtol=1e-5)
    assert np.abs(by_user.vectors(known) - by_user.vectors(strange)).max() > 1e-3
    empty = Histories.of([[]], np.array([4]))
    np.testing.assert_array_equal(by_history.vectors(empty), by_user.arrays["users"][[4]])
    with pytest.raises(TrainingError, match="did you mean 'always'"):
        ALS.fit(world, fold_in="allways")  # type: ignore[arg-type]


def test_the_rate_of_bpr_falls_by_half_a_cosine_over_all_passes() -> None:
    parts = _parts(4, 0.2, "cosine")
    assert [passes for passes, _ in parts] == [1, 1, 1, 1]
    expected = [0.1 * (1 + math.cos(math.pi * at)) for at in (1 / 8, 3 / 8, 5 / 8, 7 / 8)]
    assert [rate for _, rate in parts] == pytest.approx(expected)
    for iterations in (1, 39, 41, 3_500):
        falling = _parts(iterations, 0.1, "cosine")
        assert sum(passes for passes, _ in falling) == iterations
        assert sum(passes * rate for passes, rate in falling) / iterations == pytest.approx(0.05, rel=0.02)


def test_bpr_goes_on_from_its_vectors_whenever_the_rate_falls(world: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library does not promise it: a fit that began anew would leave the last few passes at a rate near 0."""
    kind = pytest.importorskip("implicit.cpu.bpr").BayesianPersonalizedRanking
    plain, before, after, told = kind.fit, [], [], []

    def fit(model: Any, *args: Any, **how: Any) -> None:
        before.append(None if model.item_factors is None else model.item_factors.copy())
        told.append((model.iterations, model.learning_rate, model.random_state))
        plain(model, *args, **how)
        after.append(model.item_factors.copy())

    monkeypatch.setattr(kind, "fit", fit)
    made = BPR.fit(world, dim=3, iterations=50, learning_rate=0.1, schedule="cosine", seed=3)
    assert [one[:2] for one in told] == _parts(50, 0.1, "cosine")
    assert len({seed for *_, seed in told}) == len(told), "the draws of one part are not those of the next"
    assert before[0] is None
    for end, start, moved in zip(after, before[1:], after[1:], strict=False):
        np.testing.assert_array_equal(end, start)
        assert (end != moved).any()
    np.testing.assert_array_equal(made.item_vectors(), after[-1])


def test_bpr_at_a_constant_rate_is_one_fit_of_the_library(world: Split) -> None:
    kind = pytest.importorskip("implicit.cpu.bpr").BayesianPersonalizedRanking
    whole = kind(factors=3, learning_rate=0.1, iterations=30, num_threads=1, random_state=7)
    whole.fit(sparse.csr_matrix(seen_matrix(world)), show_progress=False)
    made = BPR.fit(world, dim=3, learning_rate=0.1, iterations=30, seed=7)
    np.testing.assert_array_equal(made.item_vectors(), whole.item_factors)


@pytest.mark.parametrize(("given", "told"), [({"learning_rate": 1e30}, "lower learning_rate"),
                                             ({"iterations": 0}, "1 or more")])
def test_what_bpr_cannot_fit_is_told(given: dict[str, Any], told: str, world: Split) -> None:
    with pytest.raises(TrainingError, match=told):
        BPR.fit(world, dim=3, **given)


def test_an_unknown_schedule_of_bpr_is_named(world: Split) -> None:
    with pytest.raises(TrainingError, match="did you mean 'cosine'"):
        BPR.fit(world, dim=3, schedule="cosin")  # type: ignore[arg-type]


def test_bpr_folds_in_by_ridge_regression_of_own_vectors_on_mean_item_vectors(world: Split) -> None:
    model = BPR.fit(world, dim=3, iterations=20)
    items, users = model.item_vectors().astype(float), model.arrays["users"].astype(float)
    seen = seen_matrix(world).toarray()[:-1]
    means = seen @ items / seen.sum(1, keepdims=True)
    gram = means.T @ means
    fold = np.linalg.solve(gram + 1e-3 * np.diag(gram).mean() * np.eye(4), means.T @ users[:-1])
    expected = items[[2, 5]].mean(0) @ fold
    np.testing.assert_allclose(model.vectors(Histories.of([[2, 5, 2]]))[0], expected, rtol=1e-3, atol=1e-5)
    assert (users[:-1, -1] == 1).all(), "the last number of an item is its bias"


@pytest.mark.parametrize("name", VECTORS)
def test_vectors_give_the_scores(name: str, world: Split) -> None:
    model = model_class(name).fit(world, dim=4)
    histories = Histories.of([[1, 2], [], [7], []], np.array([2, -1, -1, 25]))
    scores = model.vectors(histories) @ model.item_vectors().T
    np.testing.assert_allclose(model.scores(histories), scores, rtol=1e-5, atol=1e-6)
    mean = model.arrays["users"][:-1].mean(0)
    np.testing.assert_allclose(model.vectors(histories)[[1, 3]], [mean, mean], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("name", VECTORS)
def test_the_seed_decides_everything(name: str, world: Split) -> None:
    def fit(seed: int) -> Any:
        return model_class(name).fit(world, dim=4, seed=seed)

    first, again, other = fit(1), fit(1), fit(2)
    assert first.digest == again.digest
    assert not np.array_equal(first.item_vectors(), other.item_vectors())
