"""From a teacher to a store: the right answers to the right questions, and a kill costs one part."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from core_world import split_of, walk_split
from distilrec.errors import KnowledgeError
from distilrec.knowledge import extract as extraction
from distilrec.knowledge.extract import decisions, extract, open_key, top_log_probabilities
from distilrec.knowledge.store import KnowledgeStore, StoreWriter
from distilrec.models.sasrec import SASRec
from distilrec.models.trained import Trained
from distilrec.types import Histories, Split

pytestmark = pytest.mark.req("A3")

SECRET = 20


class Recorder:
    """A teacher whose scores follow the history, that writes down all that it is asked, and can be killed."""

    def __init__(
        self, n_items: int, *, name: str = "recorder", dies_after: int | None = None, digest: str = "r"
    ) -> None:
        self.n_items, self.name, self.left, self.digest = n_items, name, dies_after, digest
        self.parameters = 0
        self.asked: list[tuple[int, list[int]]] = []

    def scores(self, histories: Histories) -> np.ndarray:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                raise KeyboardInterrupt
        out = np.empty((len(histories), self.n_items), dtype=np.float32)
        for row, user in enumerate(histories.users):
            past = histories.items[histories.offsets[row] : histories.offsets[row + 1]].tolist()
            self.asked.append((int(user), past))
            out[row] = self.answer(int(user), past)
        return out

    def answer(self, user: int, past: list[int]) -> np.ndarray:
        return 2 * np.random.default_rng([user, *past]).normal(size=self.n_items).astype(np.float32)


@pytest.fixture(scope="module")
def split() -> Split:
    return walk_split(users=25, items=18)


def naive(scores: np.ndarray, k: int) -> tuple[list[int], list[float]]:
    """By sorting in Python: score descending, then smaller id; log-softmax in double precision."""
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], i))[:k]
    finite = [float(s) for s in scores if s > -np.inf]
    log_z = max(finite) + np.log(sum(np.exp(s - max(finite)) for s in finite))
    return order, [float(scores[i]) - log_z for i in order]


@given(
    seed=st.integers(0, 2**20),
    values=st.sampled_from([2, 5, 1000]),
    k=st.integers(1, 12),
    holes=st.booleans(),
    t=st.sampled_from([0.5, 1.0, 4.0]),
)
@settings(max_examples=60, deadline=None)
def test_top_log_probabilities_against_a_naive_way(seed: int, values: int, k: int, holes: bool, t: float) -> None:
    rng = np.random.default_rng(seed)
    scores = rng.integers(0, values, (6, 12)).astype(np.float32) / 4  # few values: ties everywhere
    if holes:
        scores[rng.random(scores.shape) < 0.4] = -np.inf
        scores[:, 3] = 1.0
    before = scores.copy()
    ids, logits = top_log_probabilities(scores, k, t)
    assert np.array_equal(scores, before)
    assert (ids.shape, ids.dtype) == ((6, k), np.int32)
    for row in range(6):
        expected_ids, expected = naive(scores[row] / np.float32(t), k)
        assert ids[row].tolist() == expected_ids
        np.testing.assert_allclose(logits[row], np.maximum(expected, -60_000), atol=1e-5, rtol=1e-5)


def test_ruled_out_items_and_huge_scores_fit_into_float16() -> None:
    scores = np.array([[1e6, -1e6, -np.inf, 0.0]], dtype=np.float32)
    ids, logits = top_log_probabilities(scores, 4)
    assert ids.tolist() == [[0, 3, 1, 2]]
    small = logits.astype(np.float16)
    assert np.isfinite(small).all()
    assert np.exp(small.astype(np.float32)).tolist() == [[1.0, 0.0, 0.0, 0.0]]


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_nan_and_infinity_are_refused(bad: float) -> None:
    scores = np.zeros((3, 4), dtype=np.float32)
    scores[1, 2] = bad
    with pytest.raises(KnowledgeError, match="row 1"):
        top_log_probabilities(scores, 2)
    with pytest.raises(KnowledgeError, match="row 0 is -inf"):
        top_log_probabilities(np.full((1, 4), -np.inf, dtype=np.float32), 2)


@given(
    users=st.lists(
        st.tuples(st.lists(st.integers(0, SECRET - 1), max_size=8), st.integers(0, 2), st.integers(0, 2)),
        min_size=1,
        max_size=8,
    )
)
@settings(max_examples=40, deadline=None)
def test_no_event_of_validation_or_test_is_ever_in_a_history(users: list) -> None:  # type: ignore[type-arg]
    split = split_of([(train, [SECRET] * valid, [SECRET] * test) for train, valid, test in users], SECRET + 1)
    keys, owners, start, stop = decisions(split)
    assert (np.diff(keys) > 0).all()
    expected = []
    for user, (train, _, _) in enumerate(users):
        expected += [(int(split.bounds[user, 0]) + i, user, train[:i]) for i in range(1, len(train))]
        expected += [(int(open_key(split, np.array(user))), user, train)] if train else []
    found = [
        (int(key), int(user), split.items[a:b].tolist())
        for key, user, a, b in zip(keys, owners, start, stop, strict=True)
    ]
    assert found == sorted(expected)


def test_the_store_answers_every_decision_as_the_teacher_did(split: Split, tmp_path: Path) -> None:
    teacher = Recorder(split.n_items)
    store = extract(teacher, split, tmp_path, top_k=6, part_rows=32)
    keys, users, start, stop = decisions(split)
    batch = store.batch(keys)
    for row in range(len(keys)):
        ids, logits = naive(teacher.answer(int(users[row]), split.items[start[row] : stop[row]].tolist()), 6)
        assert batch["response.ids"][row].tolist() == ids
        # float16 keeps 11 bits: an error of at most 2^-11 of the value
        assert (np.abs(batch["response"][row] - logits) <= 2.0**-11 * np.abs(logits) + 1e-6).all()
        assert batch["response.mass"][row] == pytest.approx(np.exp(logits).sum(), rel=0.005)
    asked = sorted((user, tuple(past)) for user, past in teacher.asked)
    assert asked == sorted(
        (int(u), tuple(split.items[a:b].tolist())) for u, a, b in zip(users, start, stop, strict=True)
    )


def test_a_killed_extraction_goes_on_to_the_same_bytes(split: Split, tmp_path: Path) -> None:
    whole = Recorder(split.n_items)
    extract(whole, split, tmp_path / "whole", top_k=5, part_rows=20)
    with pytest.raises(KeyboardInterrupt):
        extract(Recorder(split.n_items, dies_after=3), split, tmp_path / "parted", top_k=5, part_rows=20)
    with pytest.raises(KnowledgeError, match="unfinished"):
        KnowledgeStore(tmp_path / "parted", split)
    rest = Recorder(split.n_items)
    extract(rest, split, tmp_path / "parted", top_k=5, part_rows=20)
    assert len(rest.asked) == len(whole.asked) - 60
    names = sorted(path.name for path in (tmp_path / "whole").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "parted").iterdir())
    for name in names:
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "parted" / name).read_bytes()


@pytest.mark.parametrize(
    "change", [{"digest": "other"}, {"top_k": 4}, {"temperature": 2.0}, {"digest": ""}, {"content": 1}]
)
@pytest.mark.parametrize("finished", [True, False])
def test_old_answers_are_kept_only_where_they_are_the_same(
    change: dict[str, Any], finished: bool, split: Split, tmp_path: Path
) -> None:
    how: dict[str, Any] = {"top_k": 5, "part_rows": 20}
    start = Recorder(split.n_items, dies_after=None if finished else 3, digest=str(change.get("digest", "r")) and "r")
    if change.get("digest") == "":
        start.digest = ""  # a teacher that cannot be told from another one
    try:
        extract(start, split, tmp_path, **how)
    except KeyboardInterrupt:
        assert not finished
    again = Recorder(split.n_items, digest=str(change.get("digest", "r")))
    changes = {name: value for name, value in change.items() if name != "digest"}
    if "content" in changes:
        changes["content"] = np.ones((split.n_items, 2), dtype=np.float32)
    extract(again, split, tmp_path, **{**how, **changes})
    assert len(again.asked) == len(decisions(split)[0]), "all was asked anew"
    if "digest" not in change:
        same = Recorder(split.n_items)
        extract(same, split, tmp_path, **{**how, **changes})
        assert same.asked == []


def test_a_store_of_other_data_is_not_overwritten(split: Split, tmp_path: Path) -> None:
    extract(Recorder(split.n_items), split, tmp_path, top_k=3)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    other = walk_split(users=25, items=18, seed=4)
    with pytest.raises(KnowledgeError, match="another data set"):
        extract(Recorder(other.n_items), other, tmp_path, top_k=3)
    assert before == {path.name: path.read_bytes() for path in tmp_path.iterdir()}


def test_a_teacher_of_users_is_asked_once_for_each(split: Split, tmp_path: Path) -> None:
    teacher = Recorder(split.n_items)
    teacher.keyed = "user"  # type: ignore[attr-defined]
    store = extract(teacher, split, tmp_path, top_k=4)
    assert sorted(user for user, _ in teacher.asked) == list(range(split.n_users))
    assert store.signals["response"].key == "user"
    assert store.signals["response"].space == "score"
    keys, users, _, _ = decisions(split)
    ids = store.batch(keys)["response.ids"]
    for user in range(split.n_users):
        assert (ids[users == user] == ids[users == user][0]).all()


def test_more_than_65536_items_need_wider_ids(tmp_path: Path) -> None:
    split = split_of([([0, 69_999, 3], [1], [2])], 70_000)

    class Last(Recorder):
        def answer(self, user: int, past: list[int]) -> np.ndarray:
            return np.arange(self.n_items, dtype=np.float32) / 10

    batch = extract(Last(70_000), split, tmp_path, top_k=2).batch(decisions(split)[0])
    assert (batch["response.ids"] == [69_999, 69_998]).all()


def test_answers_in_steps_are_those_of_every_prefix(tmp_path: Path) -> None:
    """One pass over a history gives what asking for each of its beginnings gives; long ones see their latest events."""
    torch.manual_seed(0)
    trained = Trained("t", SASRec(50, dim=8, layers=2, max_length=6).eval(), "sasrec", {}, "",
                      {"settings": {"score_scale": 3.0}})
    rng = np.random.default_rng(0)
    histories = Histories.of([rng.integers(0, 50, n) for n in (1, 6, 7, 20, 3, 0, 9, 12)])
    steps = trained.step_scores(histories)
    assert trained.score_scale == 3.0
    for start, stop in zip(histories.offsets[:-1], histories.offsets[1:], strict=True):
        for place in sorted({*range(min(6, stop - start)), stop - start - 1} - {-1}):
            prefix = Histories.of([histories.items[start : start + place + 1]])
            np.testing.assert_allclose(steps[start + place], trained.scores(prefix)[0], atol=1e-5)


def test_parts_without_their_marker_belong_to_nobody(split: Split, tmp_path: Path) -> None:
    """A kill in the middle of a clean-up must not hand the parts of one teacher to another."""
    first = StoreWriter(tmp_path, {"dataset_digest": "a", "split_digest": "b", "teacher": "one"})
    first.write("response", 0, {"keys": np.arange(3)})
    (tmp_path / "parts" / "identity.json").unlink()
    second = StoreWriter(tmp_path, {"dataset_digest": "a", "split_digest": "b", "teacher": "two"})
    assert not second.has("response", 0)


class Million:
    """A teacher of a million items, that likes the item after the last one best and counts the answers it is asked."""

    name, parameters, n_items = "million", 0, 1_000_000
    taste = np.random.default_rng(0).random(n_items, dtype=np.float32)

    def __init__(self, steps: bool) -> None:
        self.asked: list[int] = []
        if steps:
            self.step_scores = self._after_each

    def scores(self, histories: Histories) -> np.ndarray:
        return self._of(histories.items[histories.offsets[1:] - 1])

    def _after_each(self, histories: Histories) -> np.ndarray:
        return self._of(histories.items)

    def _of(self, last: np.ndarray) -> np.ndarray:
        self.asked.append(len(last))
        out = np.empty((len(last), self.n_items), dtype=np.float32)
        out[:] = self.taste
        out[np.arange(len(last)), last + 1] = 20.0
        return out


@pytest.fixture(scope="module")
def wide() -> Split:
    """Six users of four events, and one whose answers would take 160 MB at once."""
    rng = np.random.default_rng(0)
    sizes = [4, 4, 4, 40, 4, 4, 4]
    return split_of([(rng.integers(0, Million.n_items - 1, n).tolist(), [1], [2]) for n in sizes], Million.n_items)


@pytest.mark.parametrize("steps", [False, True])
def test_a_million_items_are_asked_for_in_bounded_memory(steps: bool, wide: Split, tmp_path: Path) -> None:
    assert wide.digest
    teacher = Million(steps)
    tracemalloc.start()
    try:
        store = extract(teacher, wide, tmp_path, top_k=5)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert max(teacher.asked) * Million.n_items * 4 <= 128 * 2**20
    assert len(teacher.asked) <= 4
    assert peak < 170 * 2**20, "the scores of one call, and a few rows that are worked on"
    keys, _, _, stop = decisions(wide)
    assert (store.batch(keys)["response.ids"][:, 0] == wide.items[stop - 1] + 1).all()


def test_a_catalog_wider_than_a_call_is_asked_row_by_row(
    split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher = Recorder(split.n_items)
    expected = extract(teacher, split, tmp_path / "whole", top_k=6).batch(decisions(split)[0])
    monkeypatch.setattr(extraction, "_SCORES", 1)
    sizes: list[int] = []
    monkeypatch.setattr(teacher, "scores", lambda h, real=teacher.scores: sizes.append(len(h)) or real(h))
    found = extract(teacher, split, tmp_path / "rows", top_k=6).batch(decisions(split)[0])
    assert set(sizes) == {1}
    assert all(np.array_equal(expected[name], found[name]) for name in expected)


@given(st.lists(st.integers(1, 12), max_size=15), st.integers(1, 10))
def test_groups_hold_everybody_once_and_no_more_than_the_budget(lengths: list[int], budget: int) -> None:
    sizes = np.array(lengths, dtype=np.int64)
    groups = list(extraction._groups(sizes, budget))
    assert [place for group in groups for place in group] == list(range(len(lengths)))
    assert all(sizes[group].sum() <= budget or len(group) == 1 for group in groups)
