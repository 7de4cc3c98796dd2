"""New interactions, users and items: old answers are carried over in new ids, and nobody is asked twice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from core_world import split_of
from distilrec.data.split import split as make_split
from distilrec.errors import KnowledgeError
from distilrec.knowledge import extend as extending
from distilrec.knowledge.blend import blend
from distilrec.knowledge.extend import Elder, extend
from distilrec.knowledge.extract import decisions, extract, open_key
from distilrec.knowledge.overlap import informed_users
from distilrec.knowledge.store import KnowledgeStore
from distilrec.knowledge.trust import Trusted
from distilrec.types import Dataset, Histories, Interactions, Split

pytestmark = pytest.mark.req("C11")


def keyed(rows: dict[str, tuple[str, str, str]], items: str) -> Split:
    """A split of users with (train, valid, test) items, one letter each; ids in the order of the keys."""
    place = {key: number for number, key in enumerate(items)}
    split = split_of([tuple([place[i] for i in part] for part in rows[user]) for user in sorted(rows)], len(items))  # type: ignore[misc]
    dataset = replace(split.dataset, user_keys=np.array(sorted(rows), dtype=object),
                      item_keys=np.array(list(items), dtype=object))
    return Split(dataset, split.method, split.items, split.timestamps, split.weights, split.bounds)


OLD = keyed({"bob": ("ceg", "i", "c"), "dan": ("gce", "c", "i"), "eve": ("ic", "e", "g")}, "cegi")
# bob's validation and test events are history now, ann is new, items a, d and z are; dan's log was mended
NEW = keyed({"ann": ("dc", "a", "z"), "bob": ("cegic", "d", "z"), "dan": ("gie", "d", "a"), "eve": ("ic", "e", "g")},
            "acdegiz")


class Knower:
    """Scores by the keys of users and items, so that it can answer in the ids of any split; writes down what it was
    asked; can be killed."""

    parameters = 3

    def __init__(self, split: Split, *, digest: str = "k", dies_after: int | None = None, temperature: float = 1.0,
                 vectors: bool = True) -> None:
        self.split, self.name, self.digest, self.left, self.scale = split, "knower", digest, dies_after, temperature
        self.asked: list[tuple[str, str]] = []
        if vectors:
            self.item_vectors = lambda: np.array([[ord(key), 1] for key in split.dataset.item_keys], dtype=np.float32)

    def scores(self, histories: Histories) -> np.ndarray:
        out = []
        for user, a, b in zip(histories.users, histories.offsets[:-1], histories.offsets[1:], strict=True):
            who = "?" if user < 0 else str(self.split.dataset.user_keys[user])
            past = "".join(self.split.dataset.item_keys[histories.items[a:b]])
            if past:  # a probe with nothing in it is no question
                if self.left is not None:
                    self.left -= 1
                    if self.left < 0:
                        raise KeyboardInterrupt
                self.asked.append((who, past))
            out.append(self.answer(who, past))
        return np.stack(out)

    def answer(self, who: str, past: str) -> np.ndarray:
        seeds = [[ord(letter) for letter in who + "|" + past + "|" + key] for key in self.split.dataset.item_keys]
        return np.array([np.random.default_rng(seed).normal() for seed in seeds], dtype=np.float32)


def told(store: KnowledgeStore, split: Split) -> dict[tuple[str, str], list[tuple[str, float]]]:
    """{(user, history): [(item, log-probability)]} in keys."""
    keys, users, start, stop = decisions(split)
    batch = store.batch(keys)
    names = split.dataset.item_keys
    return {(split.dataset.user_keys[u], "".join(names[split.items[a:b]])):
            [(names[i], round(float(z), 2)) for i, z in zip(ids, logits, strict=True)]
            for u, a, b, ids, logits in zip(users, start, stop, batch["response.ids"], batch["response"], strict=True)}


def questions(split: Split) -> set[tuple[str, str]]:
    return set(zip(*_named(split), strict=True))


def _named(split: Split) -> tuple[Sequence[str], Sequence[str]]:
    _, users, start, stop = decisions(split)
    return ([split.dataset.user_keys[u] for u in users],
            ["".join(split.dataset.item_keys[split.items[a:b]]) for a, b in zip(start, stop, strict=True)])


@pytest.fixture
def store(tmp_path: Path) -> KnowledgeStore:
    return extract(Knower(OLD), OLD, tmp_path / "old", top_k=3)


def test_old_answers_in_new_ids_and_only_the_rest_is_asked(store: KnowledgeStore, tmp_path: Path) -> None:
    teacher = Knower(NEW)
    longer, copied = extend(store, OLD, teacher, NEW, tmp_path / "new")
    before, now = told(store, OLD), told(longer, NEW)
    assert set(now) == questions(NEW)
    same = questions(OLD) & questions(NEW)
    # bob's three old decisions, dan's first one, all of eve's: the open ones among them where nothing was added
    assert same == {("bob", "c"), ("bob", "ce"), ("bob", "ceg"), ("dan", "g"), ("eve", "i"), ("eve", "ic")}
    assert copied == len(same)
    assert sorted(teacher.asked) == sorted(questions(NEW) - same), "each once, and nothing that was known"
    for question in same:
        assert now[question] == before[question]
        assert not {"a", "d", "z"} & {item for item, _ in now[question]}
    direct = told(extract(Knower(NEW), NEW, tmp_path / "direct", top_k=3), NEW)
    for question in questions(NEW) - same:
        assert now[question] == direct[question]
    assert longer.manifest["teacher"]["asked"] == len(questions(NEW)) - copied
    assert np.array_equal(longer.vectors("item_vectors")[:, 0], [ord(key) for key in "acdegiz"])  # type: ignore[index]


def test_a_teacher_of_the_old_split_is_asked_in_its_own_ids(store: KnowledgeStore, tmp_path: Path) -> None:
    teacher = Knower(OLD)
    longer, copied = extend(store, OLD, teacher, NEW, tmp_path / "new")
    assert copied == 6
    # ann is a stranger to it, and d never was: what is left of her histories is nothing, and c
    assert sorted(teacher.asked) == [("?", "c"), ("bob", "cegi"), ("bob", "cegic"), ("dan", "gi"), ("dan", "gie")]
    now = told(longer, NEW)
    for (user, past), answer in now.items():
        assert {item for item, _ in answer} <= set("cegi"), "three of the four that it knows"
        if user == "bob":
            scores = dict(zip("cegi", Knower(OLD).answer("bob", past), strict=True))
            assert [item for item, _ in answer] == sorted(scores, key=lambda i: -scores[i])[:3]
    vectors = longer.vectors("item_vectors")
    assert vectors is not None
    assert vectors[:, 0].tolist() == [0, ord("c"), 0, ord("e"), ord("g"), ord("i"), 0], "new ones start at random"


def test_the_same_items_and_other_users_do_not_mislead_it(store: KnowledgeStore, tmp_path: Path) -> None:
    new = keyed({"ann": ("ce", "g", "i"), "bob": ("ceg", "i", "c"), "dan": ("gce", "c", "i"), "eve": ("ic", "e", "g")},
                "cegi")
    teacher = Knower(OLD)  # the one who made the store: `bob` is user 0 to it, and user 1 now
    _, copied = extend(store, OLD, teacher, new, tmp_path / "a")
    assert copied == len(questions(OLD))
    assert sorted(teacher.asked) == [("?", "c"), ("?", "ce")]
    another = Knower(new, digest="trained on the new log")
    extend(store, OLD, another, new, tmp_path / "b")
    assert sorted(another.asked) == [("ann", "c"), ("ann", "ce")]


def test_new_answers_have_the_temperature_of_the_old(tmp_path: Path) -> None:
    store = extract(Knower(OLD), OLD, tmp_path / "old", top_k=3, temperature=2.0)
    longer, _ = extend(store, OLD, Knower(NEW), NEW, tmp_path / "new")
    direct = extract(Knower(NEW), NEW, tmp_path / "direct", top_k=3, temperature=2.0)
    question = ("ann", "dc")
    assert told(longer, NEW)[question] == told(direct, NEW)[question]


def test_what_was_extended_is_extended_again(store: KnowledgeStore, tmp_path: Path) -> None:
    middle, _ = extend(store, OLD, Knower(NEW), NEW, tmp_path / "new")
    later = keyed({"ann": ("dcaz", "e", "g"), "bob": ("cegic", "d", "z"), "dan": ("gie", "d", "a"),
                   "eve": ("ic", "e", "g")}, "acdegiz")
    teacher = Knower(later, digest="later")
    last, copied = extend(middle, NEW, teacher, later, tmp_path / "later")
    assert sorted(teacher.asked) == [("ann", "dca"), ("ann", "dcaz")]
    assert copied == len(questions(NEW))
    assert told(last, later).items() >= told(middle, NEW).items()


def test_a_killed_extension_goes_on_where_it_stopped(
    store: KnowledgeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extending, "_ROWS", 2)
    whole, _ = extend(store, OLD, Knower(NEW), NEW, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        extend(store, OLD, Knower(NEW, dies_after=3), NEW, tmp_path / "parted")
    rest = Knower(NEW)
    parted, copied = extend(store, OLD, rest, NEW, tmp_path / "parted")
    assert copied == 6
    assert len(rest.asked) == len(questions(NEW)) - 6 - 2, "one part of two was whole"
    assert told(parted, NEW) == told(whole, NEW)
    for path in (tmp_path / "whole").iterdir():
        assert path.read_bytes() == (tmp_path / "parted" / path.name).read_bytes()
    idle = Knower(NEW)
    assert extend(store, OLD, idle, NEW, tmp_path / "parted")[1] == 6
    assert not idle.asked
    nameless = Knower(NEW, digest="")
    extend(store, OLD, nameless, NEW, tmp_path / "parted")
    assert nameless.asked, "without a digest nothing says that it is the same teacher"


def test_content_of_the_new_items_is_kept(store: KnowledgeStore, tmp_path: Path) -> None:
    content = np.arange(14, dtype=np.float32).reshape(7, 2)
    longer, _ = extend(store, OLD, Knower(NEW, vectors=False), NEW, tmp_path / "new", content=content)
    assert np.array_equal(longer.vectors("content"), content)  # type: ignore[arg-type]
    assert longer.vectors("item_vectors") is None


def test_what_cannot_be_extended_is_refused(store: KnowledgeStore, tmp_path: Path) -> None:
    with pytest.raises(KnowledgeError, match="of another split than the one it is extended from"):
        extend(store, NEW, Knower(NEW), NEW, tmp_path / "new")
    fewer = keyed({"bob": ("ceg", "e", "c")}, "ceg")
    with pytest.raises(KnowledgeError, match="1 items of the old data are not in the new"):
        extend(store, OLD, Knower(fewer), fewer, tmp_path / "new")
    with pytest.raises(KnowledgeError, match="scores 3 items\n  expected: the 4 of the old split or the 7 of the new"):
        extend(store, OLD, Knower(fewer), NEW, tmp_path / "new")
    by_user: Any = Knower(OLD, digest="by user")
    by_user.per_user = True
    listed = extract(by_user, OLD, tmp_path / "listed", top_k=3)
    with pytest.raises(KnowledgeError, match="kept by user(.|\n)*distilrec extract"):
        extend(listed, OLD, Knower(NEW), NEW, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_an_elder_answers_in_steps_only_where_no_event_is_lost() -> None:
    class Steps(Knower):
        def step_scores(self, histories: Histories) -> np.ndarray:
            return np.repeat(np.arange(self.split.n_items, dtype=np.float32)[None], len(histories.items), 0)

    assert Elder(Steps(OLD), OLD, NEW).step_scores is None
    again = keyed({"ann": ("ce", "g", "i"), "bob": ("ceg", "i", "c")}, "cegi")
    elder = Elder(Steps(OLD), OLD, again)
    assert elder.step_scores is not None
    assert elder.step_scores(Histories.of([[0, 1]], np.array([0]))).shape == (2, 4)
    assert elder.digest
    assert Elder(Steps(OLD, digest=""), OLD, again).digest == ""
    assert open_key(again, np.array([1])).tolist() == [len(again.items) + 1]


# --- labels that the old teacher was trained on

# of bob the second of two events is held back now; cat and the nine others have gone on as all do
GROWN = {f"u{n}": ("ceg", "i", "c") for n in range(9)} | {"cat": ("cegic", "d", "z")}
THEN = keyed({f"u{n}": ("c", "e", "g") for n in range(9)} | {"cat": ("ceg", "i", "c"), "bob": ("ic", "", "")}, "cegi")
NOW = keyed({**GROWN, "bob": ("i", "c", "z")}, "acdegiz")


def of_split(split: Split, digest: str = "k") -> Knower:
    teacher: Any = Knower(split, digest=digest, vectors=False)
    teacher.split_digest = split.digest
    return teacher


def test_users_whose_label_the_old_teacher_knows_are_left_out(tmp_path: Path) -> None:
    store = extract(of_split(THEN), THEN, tmp_path / "old", top_k=3)
    assert ("bob", "i") in questions(THEN) & questions(NOW), "its answer was trained on c, which is to be predicted now"
    teacher = of_split(THEN)
    longer, copied = extend(store, THEN, teacher, NOW, tmp_path / "new")
    assert "bob" not in {user for user, _ in teacher.asked}
    facts = longer.manifest["teacher"]
    assert (facts["left_out"], facts["left_out_users"], facts["copied"]) == (1, 1, copied)
    assert copied + facts["asked"] + facts["left_out"] == len(questions(NOW))
    keys, users, _, _ = decisions(NOW)
    bob = NOW.dataset.user_keys[users] == "bob"
    batch = longer.batch(keys)
    assert np.array_equal(batch["response.trust"], ~bob)
    assert np.ptp(batch["response"][bob]) == 0, "and nothing of what it said of him is written"
    # whoever weighs decisions, or mixes stores, leaves them out as well
    for rules in ([], ["confidence"], ["agreement"]):
        trusted = Trusted(longer, NOW, rules)
        weights = trusted.batch(keys)["response.trust"]
        assert (weights[bob] == 0).all()
        if trusted.mean > 0.05:
            assert weights[~bob].mean() == pytest.approx(1, rel=1e-4)
    other = extract(of_split(NOW, "other"), NOW, tmp_path / "other", top_k=3)
    mixed = blend([other, longer], NOW, tmp_path / "mixed", weights="equal")
    assert np.array_equal(mixed.batch(keys)["response.trust"], ~bob)


def test_a_teacher_of_the_new_split_is_asked_about_them(tmp_path: Path) -> None:
    store = extract(of_split(THEN), THEN, tmp_path / "old", top_k=3)
    teacher = of_split(NOW, "new")
    longer, _ = extend(store, THEN, teacher, NOW, tmp_path / "new")
    assert ("bob", "i") in teacher.asked
    assert longer.manifest["teacher"]["left_out"] == 0
    assert "response.trust" not in longer.batch(decisions(NOW)[0])
    unknown = Knower(NOW, digest="says not what it was trained on")
    extend(store, THEN, unknown, NOW, tmp_path / "unknown")
    assert ("bob", "i") not in unknown.asked


def test_what_was_left_out_is_asked_when_it_is_extended_again(tmp_path: Path) -> None:
    store = extract(of_split(THEN), THEN, tmp_path / "old", top_k=3)
    middle, _ = extend(store, THEN, of_split(THEN), NOW, tmp_path / "new")
    later = keyed({**GROWN, "bob": ("ic", "z", "a")}, "acdegiz")
    teacher = of_split(later, "later")
    last, _ = extend(middle, NOW, teacher, later, tmp_path / "later")
    assert sorted(teacher.asked) == [("bob", "i"), ("bob", "ic")]
    assert last.manifest["teacher"]["left_out"] == 0


def log(users: int, length: int) -> Dataset:
    """Users who take other items at other times, `length` events of each."""
    rng = np.random.default_rng(0)
    items = np.stack([rng.permutation(40)[:20] for _ in range(users)])[:, :length].astype(np.int32)
    owner = np.repeat(np.arange(users, dtype=np.int32), length)
    times = (np.arange(length) * 1000 + np.arange(users)[:, None]).ravel().astype(np.int64)
    events = Interactions(owner, items.ravel(), np.ones(owner.size, dtype=np.float32), times)
    return Dataset("log", events, np.array([f"u{u}" for u in range(users)], dtype=object),
                   np.array([f"i{i}" for i in range(40)], dtype=object))


@pytest.mark.parametrize("method", ["leave-last-out", "time", "random", "k-fold"])
def test_splits_that_follow_time_go_on_and_those_by_chance_are_refused(method: str, tmp_path: Path) -> None:
    old, new = (make_split(log(30, length), method) for length in (8, 12))
    store = extract(of_split(old), old, tmp_path / "old", top_k=3)
    if method in ("leave-last-out", "time"):
        longer, copied = extend(store, old, of_split(old), new, tmp_path / "new")
        assert copied > 0
        assert longer.manifest["teacher"]["left_out"] == 0
        return
    for teacher in (of_split(old), of_split(new, "new")):
        with pytest.raises(KnowledgeError, match="were train events of the old one(.|\n)*by time or leave-last-out"):
            extend(store, old, teacher, new, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_an_item_that_is_taken_again_is_known_by_its_time() -> None:
    again = keyed({"bob": ("cegi", "c", "e"), "ann": ("c", "e", "g")}, "cegi")
    later = keyed({"bob": ("cegic", "e", "c"), "ann": ("c", "e", "g")}, "cegi")
    assert not informed_users(again, later).any(), "as often in train as before: the new ones are others"
    rows: dict[str, tuple[str, str, str]] = {f"u{n}": ("ceg", "i", "") for n in range(20)}
    swapped = keyed({**rows, "bob": ("cc", "e", "")}, "cegi")
    held = keyed({**rows, "bob": ("cc", "c", "")}, "cegi")
    place = held.bounds[0, 1]
    assert held.dataset.user_keys[0] == "bob"
    assert not informed_users(swapped, held).any()
    moved = held.timestamps.copy()
    moved[place] = swapped.timestamps[0]
    assert informed_users(swapped, replace(held, timestamps=moved)).tolist() == [True] + [False] * 20
