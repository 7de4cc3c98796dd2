"""A teacher that is asked in the step says what its store would have said."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core_world import split_of, walk_split
from distilrec.knowledge.extract import decisions, extract, open_key
from distilrec.knowledge.live import LiveTeacher
from distilrec.models.popularity import Popularity
from distilrec.models.sasrec import SASRec
from distilrec.models.trained import Trained
from distilrec.teachers.ensemble import Ensemble
from distilrec.types import Histories, Knowledge, Split

pytestmark = pytest.mark.req("C11")


@pytest.fixture(scope="module")
def split() -> Split:
    return walk_split(users=15, items=14)


def transformer(split: Split, name: str = "t") -> Trained:
    net = SASRec(split.n_items, dim=8, layers=1, max_length=5)
    return Trained(name, net, "sasrec", {"dim": 8, "layers": 1, "max_length": 5}, split.digest, {}, "cpu", None)


class Prefixes:
    """Answers history by history; without a digest."""

    name, parameters = "prefixes", 0

    def __init__(self, n_items: int) -> None:
        self.n_items = n_items

    def scores(self, histories: Histories) -> np.ndarray:
        pasts = [histories.items[a:b].tolist()
                 for a, b in zip(histories.offsets[:-1], histories.offsets[1:], strict=True)]
        return np.float32([np.random.default_rng([7, *past]).normal(size=self.n_items) for past in pasts])


@pytest.mark.parametrize("kind", ["in steps", "by prefix"])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_equal_to_the_store_of_the_same_teacher(kind: str, temperature: float, split: Split, tmp_path: Path) -> None:
    teacher: Any = transformer(split) if kind == "in steps" else Prefixes(split.n_items)
    store = extract(teacher, split, tmp_path, top_k=6, temperature=temperature)
    live = LiveTeacher(teacher, split, top_k=6, temperature=temperature)
    assert isinstance(live, Knowledge)
    keys = np.random.default_rng(0).permutation(decisions(split)[0])
    ours, theirs = live.batch(keys), store.batch(keys)
    assert ours.keys() == theirs.keys()
    assert np.array_equal(ours["response.ids"], theirs["response.ids"])
    np.testing.assert_allclose(ours["response"], theirs["response"], rtol=2**-10, atol=1e-6)  # the store has 16 bits
    np.testing.assert_allclose(ours["response.mass"], theirs["response.mass"], rtol=5e-3)
    assert live.signals["response"].width == store.signals["response"].width


def test_the_one_who_replaces_it_answers_from_then_on(split: Split) -> None:
    keys = decisions(split)[0][:9]
    first, second = transformer(split, "first"), transformer(split, "second")
    live = LiveTeacher(first, split, top_k=4)
    before, digest = live.batch(keys), live.digest
    live.replace(second)
    after = live.batch(keys)
    assert live.signals["response"].teacher == "second"
    assert live.digest != digest
    assert np.array_equal(after["response"], LiveTeacher(second, split, top_k=4).batch(keys)["response"])
    assert not np.array_equal(after["response"], before["response"])
    live.replace(first)
    assert live.digest == digest


def test_the_digest_is_of_all_that_changes_answers(split: Split) -> None:
    teacher = transformer(split)
    base = LiveTeacher(teacher, split, top_k=4).digest
    assert LiveTeacher(teacher, split, top_k=4).digest == base
    assert LiveTeacher(teacher, split, top_k=5).digest != base
    assert LiveTeacher(teacher, split, top_k=4, temperature=2.0).digest != base
    nameless = Prefixes(split.n_items)
    live = LiveTeacher(nameless, split)
    assert live.digest == live.digest
    assert live.digest != LiveTeacher(nameless, split).digest, "without a digest nothing says that it is the same"


@pytest.mark.parametrize("kind", ["in steps", "by prefix"])
def test_users_without_history_are_answered_as_an_empty_one(kind: str) -> None:
    split = split_of([([0, 1, 2], [3], [1]), ([], [4], [0]), ([2, 3], [], [0]), ([], [], [])], 6)
    teacher: Any = transformer(split) if kind == "in steps" else Prefixes(6)
    live = LiveTeacher(teacher, split, top_k=6)
    users = np.array([1, 0, 3, 2])
    got = live.batch(open_key(split, users))
    expected = teacher.scores(Histories.of([split.items[slice(*split.bounds[u, :2])] for u in users],
                                           users.astype(np.int32)))
    for row, scores in enumerate(expected):
        order = np.argsort(-scores, kind="stable")
        assert got["response.ids"][row].tolist() == order.tolist()
        np.testing.assert_allclose(np.diff(got["response"][row]), np.diff(scores[order]), atol=1e-5)
    first = live.batch(np.array([0]))  # the decision of a user's first event
    assert np.array_equal(first["response"][0], got["response"][0])


def test_a_list_of_scores_has_no_share_of_the_catalog(split: Split) -> None:
    teacher = Prefixes(split.n_items)
    teacher.keyed = "user"  # type: ignore[attr-defined]
    live = LiveTeacher(teacher, split, top_k=3)
    assert live.signals["response"].space == "score"
    assert "response.mass" not in live.batch(decisions(split)[0][:4])


def test_vectors_are_the_teachers_if_it_has_any(split: Split) -> None:
    teacher = transformer(split)
    assert np.array_equal(LiveTeacher(teacher, split).vectors("item_vectors"), teacher.item_vectors())  # type: ignore[arg-type]
    assert LiveTeacher(teacher, split).vectors("content") is None
    without = Ensemble([Popularity.fit(split), Prefixes(split.n_items)])
    assert LiveTeacher(without, split).vectors("item_vectors") is None
