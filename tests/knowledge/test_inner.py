"""Query vectors, states of layers, attention and sensitivity in a store: what the teacher itself would say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from core_world import split_of, walk_split
from distilrec.errors import KnowledgeError
from distilrec.knowledge import inner as inner_room
from distilrec.knowledge.extract import decisions, extract, open_key
from distilrec.knowledge.inner import INNER, inner, lacks
from distilrec.knowledge.store import KnowledgeStore
from distilrec.models.popularity import Popularity
from distilrec.models.sensitivity import sensitivity
from distilrec.models.trained import Trained, create
from distilrec.types import Histories, Split

pytestmark = [pytest.mark.req(number) for number in ("A3", "C3", "C5", "C7")]

LAYERS = 2
LENGTH = 5  # shorter than most histories
TOP = 4


def trained(name: str, split: Split) -> Trained:
    net: nn.Module = create(name, split, {"dim": 8, "max_length": LENGTH, "dropout": 0.3}, seed=1)[0]
    with torch.no_grad():
        for weight in net.parameters():
            weight.add_(0.4 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(2)))
    return Trained(name, net, name, {}, split.digest, {"settings": {"score_scale": 2.0}})


@pytest.fixture(scope="module")
def split() -> Split:
    """With a user of one train event, one of none, and one who is longer than the model."""
    users = [([1, 2, 3], [4], [5]), ([], [1], [2]), ([7], [8], [9]), (list(range(12)), [12], [13]), ([3, 1], [], [0])]
    return split_of([*users, *[(row[:-1], row[-1:], []) for row in walks()]], 15)


def walks() -> list[list[int]]:
    world = walk_split(users=6, items=15, length=8)
    return [world.items[a:b].tolist() for a, _, _, b in world.bounds]


@pytest.fixture(scope="module")
def teacher(split: Split) -> Trained:
    return trained("sasrec", split)


@pytest.fixture(scope="module")
def store(split: Split, teacher: Trained, tmp_path_factory: pytest.TempPathFactory) -> KnowledgeStore:
    return extract(teacher, split, tmp_path_factory.mktemp("store"), top_k=TOP, signals=INNER)


def prefix(split: Split, start: int, stop: int, user: int) -> Histories:
    return Histories.of([split.items[start:stop]], np.array([user]))


def test_what_is_kept_of_each_signal(split: Split, store: KnowledgeStore) -> None:
    keys = decisions(split)[0]
    active = np.flatnonzero(split.bounds[:, 1] > split.bounds[:, 0])
    said = store.signals
    assert [(said[name].kind, said[name].key, said[name].width, said[name].rows) for name in INNER] == [
        ("vector", "event", 8, len(keys)), ("hidden", "event", LAYERS * 8, len(keys)),
        ("attention", "user", LENGTH, len(active)), ("gradient", "user", LENGTH, len(active))]
    assert np.array_equal(store.arrays("query")["keys"], keys)
    assert np.array_equal(store.arrays("layers")["keys"], keys)
    assert store.arrays("layers")["values"].dtype == np.float16
    numbers = store.manifest["signals"]["layers"]["bytes"] - 8 * len(keys)  # less the keys
    assert 0 < numbers - 2 * LAYERS * 8 * len(keys) < 200, "and a header"
    for name in ("attention", "gradient"):
        assert np.array_equal(store.arrays(name)["keys"], active)
    batch = store.batch(keys)
    assert batch["query"].shape == (len(keys), 8)
    assert batch["layers"].shape == (len(keys), LAYERS, 8)
    assert batch["attention"].shape == batch["gradient"].shape == (len(keys), LENGTH)
    assert all(batch[name].dtype == np.float32 and np.isfinite(batch[name]).all() for name in INNER)


def test_a_query_is_the_vector_that_the_answer_came_from(
    split: Split, teacher: Trained, store: KnowledgeStore
) -> None:
    keys, users, start, stop = decisions(split)
    batch, table = store.batch(keys), teacher.item_vectors()
    for row, (a, b) in enumerate(zip(start, stop, strict=True)):
        if b - a <= LENGTH or keys[row] >= len(split.items):  # in between, windows stand in for the latest events
            direct = teacher.vectors(prefix(split, a, b, users[row]))[0]
            np.testing.assert_allclose(batch["query"][row], direct, atol=2e-3, rtol=2e-3)
        scores = 2.0 * batch["query"][row] @ table.T  # and everywhere the answer beside it is that of the query
        log_p = scores - scores.max() - np.log(np.exp(scores - scores.max()).sum())
        np.testing.assert_allclose(log_p[batch["response.ids"][row]], batch["response"][row], atol=0.05)


def test_the_states_of_the_layers_are_those_that_the_query_came_from(
    split: Split, teacher: Trained, store: KnowledgeStore
) -> None:
    keys, users, start, stop = decisions(split)
    batch = store.batch(keys)
    net: Any = teacher.model.eval()
    with torch.no_grad():
        answers = net.leave(net.norm(torch.as_tensor(batch["layers"][:, -1]))).numpy()
    np.testing.assert_allclose(answers, batch["query"], atol=5e-3, rtol=5e-3)
    for row, (a, b) in enumerate(zip(start, stop, strict=True)):
        if b - a <= LENGTH or keys[row] >= len(split.items):
            direct = teacher.layers(prefix(split, a, b, users[row]))[0]
            np.testing.assert_allclose(batch["layers"][row], direct, atol=3e-3, rtol=2e-3)


@pytest.mark.parametrize(("rows", "events"), [(1, 2**15), (512, 1), (3, 9)])
def test_calls_of_any_size_say_the_same_and_none_is_asked_for_more_events(
    rows: int, events: int, split: Split, teacher: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, users, start, stop = decisions(split)
    order = np.lexsort((stop, users))
    asked = (users[order], start[order], stop[order], np.zeros(len(users), dtype=np.int64))
    for name in inner_room.BY_DECISION:
        whole = inner(teacher, name, split, *asked)
        sizes: list[list[int]] = []
        with monkeypatch.context() as patch:
            patch.setattr(inner_room, "_ROWS", rows)
            patch.setattr(inner_room, "_EVENTS", events)
            patch.setattr(Trained, "_in_steps", noting(sizes))
            parted = inner(teacher, name, split, *asked)
        np.testing.assert_allclose(parted.astype(np.float32), whole.astype(np.float32), atol=4e-3, rtol=2e-3)
        assert len(sizes) > 1
        assert all(len(one) <= rows and (len(one) == 1 or sum(one) <= events) for one in sizes)


def noting(sizes: list[list[int]]) -> Any:
    original = Trained._in_steps

    def note(self: Trained, histories: Histories, *more: Any) -> np.ndarray:
        sizes.append(histories.lengths.tolist())
        return original(self, histories, *more)

    return note


def test_a_model_that_fills_gaps_tells_its_states_at_the_mask(split: Split, tmp_path: Path) -> None:
    teacher = trained("bert4rec", split)
    found = extract(teacher, split, tmp_path, top_k=TOP, signals=["layers"])
    keys, users, start, stop = decisions(split)
    batch = found.batch(keys)
    for row in range(0, len(keys), 3):
        direct = teacher.layers(prefix(split, start[row], stop[row], users[row]))[0]
        np.testing.assert_allclose(batch["layers"][row], direct, atol=3e-3, rtol=2e-3)


def test_attention_by_steps_back_is_what_the_teacher_is_asked_for(
    split: Split, teacher: Trained, store: KnowledgeStore
) -> None:
    active = np.flatnonzero(split.bounds[:, 1] > split.bounds[:, 0])
    found = store.batch(open_key(split, active))["attention"]
    net: Any = teacher.model.eval()
    for row, user in enumerate(active):
        start, stop = split.bounds[user, :2]
        past = split.items[start:stop][-LENGTH:].astype(np.int64)
        size = len(past)
        with torch.no_grad():
            weights = net.attention(torch.as_tensor(past)[None], torch.tensor([size]), torch.tensor([size - 1]))[0]
        np.testing.assert_allclose(found[row, :size], weights.numpy()[::-1], atol=1e-3)
        assert (found[row, size:] == 0).all()
        assert found[row].sum() == pytest.approx(1.0, abs=5e-3)


def test_the_gradient_is_of_the_teachers_best_item(split: Split, teacher: Trained, store: KnowledgeStore) -> None:
    active = np.flatnonzero(split.bounds[:, 1] > split.bounds[:, 0])
    batch = store.batch(open_key(split, active))
    net: Any = teacher.model.eval()
    for row, user in enumerate(active):
        start, stop = split.bounds[user, :2]
        past = torch.as_tensor(split.items[start:stop][-LENGTH:].astype(np.int64))[None]
        size, best = past.shape[1], batch["response.ids"][row, 0]
        slope = sensitivity(net, past, torch.tensor([size]), torch.tensor([size - 1]), torch.tensor([int(best)]))[0]
        np.testing.assert_allclose(batch["gradient"][row, :size], slope.numpy()[::-1], rtol=5e-3, atol=1e-3)
        assert (batch["gradient"][row, size:] == 0).all()
    assert np.abs(batch["gradient"]).max() > 0.01


def test_what_is_kept_by_user_is_handed_to_all_decisions_of_the_user(split: Split, store: KnowledgeStore) -> None:
    keys, users, _, _ = decisions(split)
    batch = store.batch(keys)
    for name in ("attention", "gradient"):
        assert np.array_equal(batch[name], store.batch(open_key(split, users))[name])


@pytest.mark.parametrize("part_rows", [1, 7])
def test_parts_of_any_size_hold_the_same(
    part_rows: int, split: Split, teacher: Trained, store: KnowledgeStore, tmp_path: Path
) -> None:
    """Within the model's length; in the midst of longer histories it is the windows that a part's end may move."""
    other = extract(teacher, split, tmp_path, top_k=TOP, signals=INNER, part_rows=part_rows)
    keys, _, start, stop = decisions(split)
    keys = keys[(stop - start <= LENGTH) | (keys >= len(split.items))]
    one, two = store.batch(keys), other.batch(keys)
    for name in one:
        np.testing.assert_allclose(one[name], two[name], atol=2e-3, rtol=2e-3)


class Dying(Trained):
    """Dies at a certain call of one of its methods, and counts the calls of all."""

    left: dict[str, int]
    calls: dict[str, int]

    def _note(self, name: str) -> None:
        self.calls[name] = self.calls.get(name, 0) + 1
        self.left[name] = self.left.get(name, 10**9) - 1
        if self.left[name] < 0:
            raise KeyboardInterrupt

    def _attention(self, histories: Histories) -> np.ndarray:
        self._note("attention")
        return super()._attention(histories)

    def _sensitivity(self, histories: Histories, best: np.ndarray) -> np.ndarray:
        self._note("gradient")
        return super()._sensitivity(histories, best)

    def _in_steps(self, histories: Histories, shape: tuple[int, ...], *more: Any) -> np.ndarray:
        self._note({(8,): "query", (LAYERS, 8): "layers"}.get(shape, "response"))
        return super()._in_steps(histories, shape, *more)


def dying(teacher: Trained, **left: int) -> Dying:
    made = Dying(teacher.name, teacher.model, teacher.architecture, teacher.settings, teacher.split_digest,
                 teacher.training)
    made.left, made.calls = left, {}
    return made


@pytest.mark.parametrize("where", ["response", "query", "layers", "attention", "gradient"])
def test_a_killed_extraction_goes_on_with_the_signal_that_was_missing(
    where: str, split: Split, teacher: Trained, store: KnowledgeStore, tmp_path: Path
) -> None:
    how: dict[str, Any] = {"top_k": TOP, "signals": INNER, "part_rows": 10}
    whole = dying(teacher)
    extract(whole, split, tmp_path / "whole", **how)
    first = dying(teacher, **{where: 2})
    with pytest.raises(KeyboardInterrupt):
        extract(first, split, tmp_path / "parted", **how)
    with pytest.raises(KnowledgeError, match="unfinished"):
        KnowledgeStore(tmp_path / "parted", split)
    second = dying(teacher)
    found = extract(second, split, tmp_path / "parted", **how)
    for name in whole.calls:  # the call that died is made again, no other
        assert first.calls.get(name, 0) + second.calls.get(name, 0) == whole.calls[name] + (name == where)
    assert found.digest == KnowledgeStore(tmp_path / "whole", split).digest
    third = dying(teacher)
    assert extract(third, split, tmp_path / "parted", **how).digest == found.digest
    assert third.calls == {}


def test_other_signals_are_another_store(split: Split, teacher: Trained, tmp_path: Path) -> None:
    plain = extract(teacher, split, tmp_path, top_k=TOP)
    assert "query" not in plain.signals
    assert set(plain.batch(decisions(split)[0])) == {"response", "response.ids", "response.mass"}
    more = extract(teacher, split, tmp_path, top_k=TOP, signals=["query", "response"])
    assert set(more.signals) == {"response", "item_vectors", "query"}
    with pytest.raises(KeyError):
        more.rows("attention", decisions(split)[0])


def test_a_model_without_history_is_kept_by_user(split: Split, tmp_path: Path) -> None:
    teacher = trained("mf", split)
    found = extract(teacher, split, tmp_path, top_k=TOP, signals=["query"], part_rows=4)
    active = np.flatnonzero(split.bounds[:, 1] > split.bounds[:, 0])
    assert (found.signals["query"].key, found.signals["query"].rows) == ("user", len(active))
    keys, users, _, _ = decisions(split)
    own = teacher.model.users.detach().numpy()
    np.testing.assert_allclose(found.batch(keys)["query"], own[users], atol=2e-3)


@pytest.mark.parametrize(("name", "signal"), [
    ("mf", "attention"), ("mf", "gradient"), ("mf", "layers"), ("gru4rec", "attention"), ("gru4rec", "layers")])
def test_a_teacher_that_cannot_say_it_is_refused_at_once(
    name: str, signal: str, split: Split, tmp_path: Path
) -> None:
    teacher = trained(name, split)
    assert lacks(teacher, signal)
    with pytest.raises(KnowledgeError, match=f"gives no '{signal}'"):
        extract(teacher, split, tmp_path / "s", top_k=TOP, signals=[signal])
    assert not (tmp_path / "s").exists()
    assert all(lacks(Popularity.fit(split), signal) for signal in INNER)


def test_an_unknown_signal_is_refused_with_the_nearest_name(split: Split, teacher: Trained, tmp_path: Path) -> None:
    with pytest.raises(KnowledgeError, match=r"(?s)'atention' is unknown.*attention"):
        extract(teacher, split, tmp_path, top_k=TOP, signals=["atention"])


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e6])
def test_numbers_that_a_store_cannot_hold_are_refused(bad: float, split: Split) -> None:
    class Broken:
        name = "broken"

        def vectors(self, histories: Histories) -> np.ndarray:
            return np.full((len(histories), 3), bad, dtype=np.float32)

    _, users, start, stop = decisions(split)
    with pytest.raises(KnowledgeError, match="broken"):
        inner(Broken(), "query", split, users, start, stop, np.zeros(len(users), dtype=np.int64))


def test_nothing_beyond_the_train_part_is_looked_at(split: Split, teacher: Trained, tmp_path: Path) -> None:
    """The same world with other validation and test items says the same."""
    items = split.items.copy()
    for _, valid, _, stop in split.bounds:
        items[valid:stop] = (items[valid:stop] + 5) % split.n_items
    other = Split(split.dataset, split.method, items, split.timestamps, split.weights, split.bounds)
    found = extract(teacher, other, tmp_path, top_k=TOP, signals=INNER)
    same = extract(teacher, split, tmp_path / "same", top_k=TOP, signals=INNER)
    assert found.digest == same.digest
