"""Several teachers as one store: a mixture that can be checked by hand, and who gets how much of a say in it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core_world import checkerboard, split_of, walk_split
from distilrec import numerics
from distilrec.errors import KnowledgeError, RecipeError
from distilrec.knowledge import blend as blending
from distilrec.knowledge.blend import blend
from distilrec.knowledge.extract import decisions, extract
from distilrec.knowledge.store import KnowledgeStore, StoreWriter
from distilrec.knowledge.trust import RULED_OUT, agreement
from distilrec.types import Histories, Signal, Split

pytestmark = pytest.mark.req("C9")

TINY = split_of([([0, 1, 2], [3], [4]), ([3, 4], [5], [0])], 6)


class Told:
    """A teacher whose scores are a function of (user, history)."""

    def __init__(self, answer: Any, name: str, vectors: np.ndarray | None = None) -> None:
        self.answer, self.name, self.digest, self.parameters = answer, name, name, 7
        if vectors is not None:
            self.item_vectors = lambda: vectors

    def scores(self, histories: Histories) -> np.ndarray:
        return np.stack([self.answer(int(user), histories.items[a:b].tolist()) for user, a, b in
                         zip(histories.users, histories.offsets[:-1], histories.offsets[1:], strict=True)])


def by_hand(folder: Path, lists: dict[int, tuple[list[int], list[float]]], split: Split = TINY, *, key: str = "event",
            space: str = "logit", name: str = "t") -> KnowledgeStore:
    """A store of {key: (ids, probabilities)}."""
    writer = StoreWriter(folder, {"dataset_digest": split.dataset.digest, "split_digest": split.digest})
    keys = sorted(lists)
    with np.errstate(divide="ignore"):
        logits = np.maximum(np.log(np.array([lists[k][1] for k in keys])), -60_000).astype(np.float16)
    writer.write("response", 0, {"keys": np.array(keys, dtype=np.int64), "logits": logits,
                                 "ids": np.array([lists[k][0] for k in keys], dtype=np.uint16)})
    width = logits.shape[1]
    writer.finish({"response": Signal("response", "response", key, space=space, teacher=name, width=width)},  # type: ignore[arg-type]
                  {"name": name, "parameters": 5})
    return KnowledgeStore(folder, split)


def said(store: KnowledgeStore, key: int) -> dict[int, float]:
    batch = store.batch(np.array([key]))
    return {int(i): float(np.exp(z)) for i, z in zip(batch["response.ids"][0], batch["response"][0], strict=True)}


KEYS = [int(key) for key in decisions(TINY)[0]]  # 1, 2 and 6 of the users' events, then both open decisions


def test_the_mixture_of_two_teachers_by_hand(tmp_path: Path) -> None:
    # both lists of equal entropy, so no temperature is needed: .6/.3/.1 of 5/8 and of 1
    one = by_hand(tmp_path / "a", {key: ([0, 1, 2], [.375, .1875, .0625]) for key in KEYS})
    two = by_hand(tmp_path / "b", {key: ([1, 3, 0], [.6, .3, .1]) for key in KEYS})
    mixed = blend([one, two], TINY, tmp_path / "c", weights="equal")
    # halves of both, brought to the mean of 5/8 and 1, as much as the lists held before
    whole = {0: .6 + .1, 1: .3 + .6, 2: .1, 3: .3}
    expected = {item: p / 2 * (5 / 8 + 1) / 2 for item, p in whole.items()}
    assert mixed.signals["response"].width == 3
    for key in KEYS:
        got = said(mixed, key)
        assert list(got) == [1, 0, 3], "best first; what is kept is as long as the longest list"
        assert got == pytest.approx({item: expected[item] for item in (1, 0, 3)}, rel=2e-3)
        assert mixed.batch(np.array([key]))["response.mass"][0] == pytest.approx(sum(got.values()), rel=1e-4)
    assert mixed.manifest["teacher"]["parameters"] == 10
    assert said(blend([one, two], TINY, tmp_path / "d", weights="equal", top_k=1), KEYS[0]).keys() == {1}


def test_a_flat_teacher_is_heard_as_well_as_a_sharp_one(tmp_path: Path) -> None:
    sharp = by_hand(tmp_path / "a", {key: ([0, 1, 2], [.97, .02, .01]) for key in KEYS})
    flat = by_hand(tmp_path / "b", {key: ([5, 4, 3], [.36, .33, .31]) for key in KEYS})
    mixed = said(blend([sharp, flat], TINY, tmp_path / "c", weights="equal", top_k=3), KEYS[0])
    assert mixed[0] == pytest.approx(mixed[5], rel=.25), "unmixed they differ by a factor of almost three"
    a, b = (blending._scales([sharp, flat]))
    sizes = [blending._entropy(np.log(np.array([p], dtype=np.float32)), t)
             for p, t in (([.97, .02, .01], a), ([.36, .33, .31], b))]
    assert sizes[0] == pytest.approx(sizes[1], abs=.01)
    assert a > 1 > b


def test_a_list_too_short_to_be_as_wide_keeps_its_shape(tmp_path: Path) -> None:
    short = by_hand(tmp_path / "a", {key: ([0, 1], [.7, .3]) for key in KEYS})
    wide = by_hand(tmp_path / "b", {key: ([0, 1, 2, 3, 4, 5], [1 / 6] * 6) for key in KEYS})
    assert blending._scales([short, wide])[0] == 1.0


def test_no_item_stands_in_a_list_twice_and_what_nobody_knows_stays_ruled_out(tmp_path: Path) -> None:
    one = by_hand(tmp_path / "a", {key: ([0, 1, 2, 3], [.9, .1, 0, 0]) for key in KEYS})
    two = by_hand(tmp_path / "b", {key: ([1, 0, 2, 5], [.8, .2, 0, 0]) for key in KEYS})
    mixed = blend([one, two], TINY, tmp_path / "c", weights="equal")
    arrays = mixed.arrays("response")
    for ids, logits in zip(arrays["ids"], arrays["logits"], strict=True):
        assert len(set(ids.tolist())) == 4
        assert set(ids[:2].tolist()) == {0, 1}
        assert (logits[:2] > -5).all()
        assert (logits[2:] < RULED_OUT).all()


def test_a_list_of_scores_says_nothing_of_the_rest_and_so_does_the_mixture(tmp_path: Path) -> None:
    one = by_hand(tmp_path / "a", {key: ([0, 1, 2], [.3, .15, .05]) for key in KEYS})
    lists = {0: ([1, 3, 0], [.6, .3, .1]), 1: ([2, 3, 4], [.6, .3, .1])}
    two = by_hand(tmp_path / "b", lists, key="user", space="score")
    mixed = blend([two, one], TINY, tmp_path / "c", weights="equal")
    assert mixed.signals["response"].key == "event"
    assert mixed.signals["response"].space == "score"
    batch = mixed.batch(np.array(KEYS))
    assert "response.mass" not in batch
    # user 0: item 1 has (.3 + .6) / 2; user 1: item 2 has (.1 + .6) / 2; at each of their decisions
    assert batch["response.ids"][:, :2].tolist() == [[1, 0], [1, 0], [2, 0], [1, 0], [2, 0]]


def test_by_user_alone_stays_by_user(tmp_path: Path) -> None:
    one = by_hand(tmp_path / "a", {0: ([0, 1], [.6, .4]), 1: ([0, 1], [.6, .4])}, key="user")
    two = by_hand(tmp_path / "b", {0: ([2, 1], [.6, .4]), 1: ([0, 3], [.6, .4])}, key="user")
    mixed = blend([one, two], TINY, tmp_path / "c", weights="equal")
    assert mixed.signals["response"].key == "user"
    assert said(mixed, KEYS[0]) == pytest.approx({1: .4, 0: .3}, rel=2e-3)
    assert said(mixed, KEYS[-1]) == pytest.approx({0: .6, 1: .2}, rel=2e-3)


def test_a_teacher_that_confuses_its_users_has_the_least_say(tmp_path: Path) -> None:
    split = checkerboard()

    def own(user: int, past: list[int]) -> np.ndarray:
        del past
        rng = np.random.default_rng(user)
        return ((np.arange(split.n_items) % 2 == user % 2) * 4 + rng.normal(size=split.n_items)).astype(np.float32)

    right, wrong = Told(own, "right"), Told(lambda user, past: own(user + (user > 0), past), "wrong")
    stores = [extract(teacher, split, tmp_path / teacher.name, top_k=8) for teacher in (wrong, right)]
    of_user, of_item = blending._weights(stores, split, "agreement")
    np.testing.assert_allclose(of_user.sum(0), 1, rtol=1e-5)
    np.testing.assert_allclose(of_item.sum(0), 1, rtol=1e-5)
    assert (of_user[0, 1:] < .1).all(), "of all but user 0, whom it alone knows"
    assert (of_item[0] < .1).all()
    # the items of each popularity group that some list of the user holds, by a loop
    groups = numerics.popularity_groups(split.train_counts, 4)
    for store in stores:
        keys = np.asarray(store.arrays("response")["keys"])
        owner = store.users_of(keys)
        held = {(int(u), int(i)) for u, ids in zip(owner, store.arrays("response")["ids"], strict=True) for i in ids}
        users, items, _ = split.events("train")
        hits = np.array([(u, i) in held for u, i in zip(users.tolist(), items.tolist(), strict=True)])
        expected = [hits[groups[items] == g].mean() for g in range(4)]
        np.testing.assert_allclose(blending._found(store, split, owner, groups), expected)
    mixed = blend(stores, split, tmp_path / "mixed")
    believed = agreement(mixed, split).mean()
    assert believed > .8 * agreement(stores[1], split).mean()
    assert believed > 3 * agreement(stores[0], split).mean()


def test_what_only_fills_up_a_list_was_not_found(tmp_path: Path) -> None:
    store = by_hand(tmp_path / "a", {key: ([0, 1, 2], [1, 0, 0]) for key in KEYS})
    owner = store.users_of(np.asarray(store.arrays("response")["keys"]))
    assert blending._found(store, TINY, owner, np.zeros(6, dtype=np.int64))[0] == pytest.approx(1 / 5)


def test_item_tables_lie_side_by_side_at_one_scale(tmp_path: Path) -> None:
    split, rng = walk_split(users=10, items=12), np.random.default_rng(0)
    small, large = rng.normal(size=(12, 2)).astype(np.float32), 1000 * rng.normal(size=(12, 3)).astype(np.float32)
    content = rng.normal(size=(12, 4)).astype(np.float32)

    def flat(user: int, past: list[int]) -> np.ndarray:
        del user, past
        return np.zeros(12, dtype=np.float32)

    stores = [extract(Told(flat, "a", small), split, tmp_path / "a", top_k=4),
              extract(Told(flat, "none"), split, tmp_path / "n", top_k=4),
              extract(Told(flat, "b", large), split, tmp_path / "b", top_k=4, content=content)]
    mixed = blend(stores, split, tmp_path / "c", weights="equal")
    table = mixed.vectors("item_vectors")
    assert table is not None
    assert table.shape == (12, 5)
    assert (table[:, :2] ** 2).mean() == pytest.approx(1, rel=1e-4)
    assert (table[:, 2:] ** 2).mean() == pytest.approx(1, rel=1e-4)
    assert np.array_equal(mixed.vectors("content"), content)  # type: ignore[arg-type]
    assert mixed.manifest["teacher"]["name"] == "a+none+b"


def test_a_killed_blend_goes_on_to_the_same_bytes_and_a_finished_one_is_idle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = walk_split(users=20, items=15)
    stores = [extract(Told(lambda user, past, n=n: np.random.default_rng([n, user, *past]).normal(size=15)
                           .astype(np.float32), f"t{n}"), split, tmp_path / f"t{n}", top_k=5) for n in range(2)]
    blend(stores, split, tmp_path / "whole", part_rows=30)
    calls, original = [], blending._mixed

    def dying(*given):  # type: ignore[no-untyped-def]
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(*given)

    monkeypatch.setattr(blending, "_mixed", dying)
    with pytest.raises(KeyboardInterrupt):
        blend(stores, split, tmp_path / "parted", part_rows=30)
    with pytest.raises(KnowledgeError, match="unfinished"):
        KnowledgeStore(tmp_path / "parted", split)
    calls[:] = [1] * 10
    blend(stores, split, tmp_path / "parted", part_rows=30)
    done = len(calls) - 10
    assert done == -(-len(decisions(split)[0]) // 30) - 2
    for path in sorted((tmp_path / "whole").iterdir()):
        assert path.read_bytes() == (tmp_path / "parted" / path.name).read_bytes()
    before = (tmp_path / "whole" / "manifest.json").stat().st_mtime_ns
    blend(stores, split, tmp_path / "whole", part_rows=30)
    assert (tmp_path / "whole" / "manifest.json").stat().st_mtime_ns == before
    assert len(calls) == 10 + done
    blend(stores, split, tmp_path / "whole", weights="equal", part_rows=30)
    assert json.loads((tmp_path / "whole" / "manifest.json").read_text())["teacher"]["blend"] == "equal"


def test_another_split_one_store_and_a_store_without_answers_are_refused(tmp_path: Path) -> None:
    one = by_hand(tmp_path / "a", {key: ([0, 1], [.6, .4]) for key in KEYS})
    with pytest.raises(KnowledgeError, match="1 stores to blend"):
        blend([one], TINY, tmp_path / "c")
    other = split_of([([0, 1, 2], [3], [4]), ([3, 5], [4], [0])], 6)
    with pytest.raises(KnowledgeError, match="of another split"):
        blend([one, by_hand(tmp_path / "b", {key: ([0, 1], [.6, .4]) for key in KEYS}, other)], TINY, tmp_path / "c")
    writer = StoreWriter(tmp_path / "v", {"dataset_digest": TINY.dataset.digest, "split_digest": TINY.digest})
    writer.write("item_vectors", 0, {"keys": np.arange(6), "values": np.ones((6, 2), dtype=np.float32)})
    writer.finish({"item_vectors": Signal("item_vectors", "vector", "item", width=2)}, {"name": "v", "parameters": 0})
    with pytest.raises(KnowledgeError, match="holds no answers"):
        blend([one, KnowledgeStore(tmp_path / "v", TINY)], TINY, tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_unknown_weights_are_told(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="weights 'agree', did you mean 'agreement'"):
        blend([], None, tmp_path, weights="agree")  # type: ignore[arg-type]
