"""What stands in a batch: every target once, nothing of validation or test, the right keys."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core_world import split_of, walk_split
from distilrec.knowledge.extract import decisions, open_key
from distilrec.training.batches import Batch, epoch_batches, training_examples
from distilrec.training.settings import Augment
from distilrec.types import Split

pytestmark = pytest.mark.req("C6")

TRAIN_ITEMS = 40
SECRET = 50  # ids that occur in validation and test only
USERS = st.lists(
    st.tuples(st.lists(st.integers(0, TRAIN_ITEMS - 1), max_size=13), st.integers(0, 3), st.integers(0, 3)),
    min_size=1,
    max_size=12,
)
AUGMENT = st.builds(
    Augment, crop=st.sampled_from([0.0, 0.7]), mask=st.sampled_from([0.0, 0.7]), reorder=st.sampled_from([0.0, 0.7])
)


def planted(users: list[tuple[list[int], int, int]]) -> Split:
    """Validation and test hold items that the train part never has."""
    return split_of([(train, [SECRET] * valid, [SECRET + 1] * test) for train, valid, test in users], SECRET + 2)


def epoch(
    split: Split, max_length: int = 5, batch_size: int = 3, seed: int = 0, augment: Augment = Augment(), **how: object
) -> list[Batch]:
    examples = training_examples(split, max_length, **how)  # type: ignore[arg-type]
    needs = bool(how.get("needs_history", True))
    return list(
        epoch_batches(split, examples, batch_size, np.random.default_rng(seed), augment=augment, needs_history=needs)
    )


def history_of(batch: Batch, decision: int) -> list[int]:
    """The items that the model may look at when it takes a decision."""
    row, column = divmod(int(batch.positions[decision]), batch.items.shape[1])
    return batch.items[row, : column + 1].tolist()


@given(
    users=USERS,
    windows=st.sampled_from(["last", "all"]),
    open_end=st.booleans(),
    augment=AUGMENT,
    seed=st.integers(0, 99),
)
@settings(max_examples=60, deadline=None)
def test_nothing_of_validation_or_test_is_ever_seen(
    users: list,
    windows: str,
    open_end: bool,
    augment: Augment,
    seed: int,  # type: ignore[type-arg]
) -> None:
    split = planted(users)
    for batch in epoch(split, seed=seed, windows=windows, open_end=open_end, augment=augment):
        assert not np.isin(batch.items, [SECRET, SECRET + 1]).any()
        assert not np.isin(batch.targets, [SECRET, SECRET + 1]).any()
    for batch in epoch(split, needs_history=False):
        assert not np.isin(batch.items, [SECRET, SECRET + 1]).any()
        assert not np.isin(batch.targets, [SECRET, SECRET + 1]).any()


@given(
    users=USERS,
    windows=st.sampled_from(["last", "all"]),
    open_end=st.booleans(),
    max_length=st.integers(1, 6),
    batch_size=st.integers(1, 5),
    seed=st.integers(0, 99),
)
@settings(max_examples=80, deadline=None)
def test_every_train_event_is_a_target_once_behind_its_own_history(
    users: list,
    windows: str,
    open_end: bool,
    max_length: int,
    batch_size: int,
    seed: int,  # type: ignore[type-arg]
) -> None:
    split = planted(users)
    keys: list[int] = []
    open_keys: list[int] = []
    for batch in epoch(split, max_length, batch_size, seed, windows=windows, open_end=open_end):
        assert batch.items.shape[1] <= max_length
        assert batch.soft.all()
        rows = batch.positions // batch.items.shape[1]
        for i, key in enumerate(batch.keys):
            user = int(batch.users[rows[i]])
            first, stop = split.bounds[user, :2]
            at = int(key) if batch.labeled[i] else int(stop)
            past = split.items[first:at].tolist()
            seen = history_of(batch, i)
            assert seen == past[-len(seen) :], "the latest events before the target, in order, and nothing else"
            if batch.labeled[i]:
                assert batch.targets[i] == split.items[key]
                assert first < key < stop
                keys.append(int(key))
            else:
                assert key == open_key(split, np.array([user]))[0]
                open_keys.append(int(key))
    assert len(set(keys)) == len(keys)
    assert len(set(open_keys)) == len(open_keys)
    trained = [u for u, (train, _, _) in enumerate(users) if train]
    assert sorted(open_keys) == ([len(split.items) + u for u in trained] if open_end else [])
    every = [k for u in range(len(users)) for k in range(split.bounds[u, 0] + 1, split.bounds[u, 1])]
    latest = [
        k
        for u in range(len(users))
        for k in range(max(split.bounds[u, 0] + 1, split.bounds[u, 1] - max_length + open_end), split.bounds[u, 1])
    ]
    assert sorted(keys) == (every if windows == "all" else latest)


@given(users=USERS, open_end=st.booleans(), augment=AUGMENT, seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_knowledge_covers_every_key_and_augmented_targets_stay_unique(
    users: list,
    open_end: bool,
    augment: Augment,
    seed: int,  # type: ignore[type-arg]
) -> None:
    split = planted(users)
    known = decisions(split)[0]
    counts = np.zeros(split.n_items, dtype=int)
    for how in ({"windows": "all", "open_end": open_end}, {"needs_history": False}):
        for batch in epoch(split, 4, 3, seed, augment, **how):  # type: ignore[arg-type]
            assert np.isin(batch.keys, known).all()
            if "windows" in how:
                counts += np.bincount(batch.targets[batch.labeled], minlength=split.n_items)
    later = np.bincount(
        split.items[decisions(split)[0][decisions(split)[0] < len(split.items)]], minlength=split.n_items
    )
    assert (counts <= later).all(), "an event is a target at most once, shuffled or not"
    assert augment.crop > 0 or (counts == later).all()


def test_a_model_without_history_sees_every_train_event_under_the_open_key() -> None:
    split = planted([([1, 2, 3], 1, 1), ([], 1, 0), ([4], 0, 1)])
    batches = epoch(split, needs_history=False)
    targets = np.concatenate([b.targets for b in batches])
    users = np.concatenate([b.users[b.positions // b.items.shape[1]] for b in batches])
    assert sorted(zip(users.tolist(), targets.tolist(), strict=True)) == [(0, 1), (0, 2), (0, 3), (2, 4)]
    keys = np.concatenate([b.keys for b in batches])
    assert (keys == len(split.items) + users).all()


def test_a_crop_keeps_keys_targets_and_soft_labels() -> None:
    split = walk_split(users=40, length=12)
    shortened = 0
    for batch in epoch(split, 20, 8, augment=Augment(crop=1.0)):
        assert batch.soft.all()
        assert np.array_equal(batch.targets, split.items[batch.keys])
        for row, user in enumerate(batch.users):
            keys = batch.keys[batch.positions // batch.items.shape[1] == row]
            assert (np.diff(keys) == 1).all(), "a crop is a contiguous part"
            whole = int(split.bounds[user, 1] - split.bounds[user, 0]) - 1
            assert whole // 2 <= len(keys) <= whole
            shortened += len(keys) < whole
    assert shortened > 20


@pytest.mark.parametrize("kind", ["mask", "reorder"])
def test_an_altered_history_switches_its_soft_labels_off(kind: str) -> None:
    split = walk_split(users=200, items=60, length=12)
    plain = {int(u): row for b in epoch(split, 20, 8) for u, row in zip(b.users, b.items, strict=True)}
    altered = kept = 0
    for batch in epoch(split, 20, 8, augment=Augment(**{kind: 0.5})):
        rows = batch.positions // batch.items.shape[1]
        for row, user in enumerate(batch.users):
            size = int(batch.lengths[row])
            same = np.array_equal(batch.items[row, :size], plain[int(user)][:size])
            soft = batch.soft[rows == row]
            assert soft.all() or not soft.any()
            assert same or not soft.any(), "an altered history under soft labels"
            altered, kept = altered + (not same), kept + bool(soft.all())
            if kind == "mask":
                changed = batch.items[row, :size] != plain[int(user)][:size]
                assert (batch.items[row, :size][changed] == split.n_items + 1).all()
                assert np.array_equal(batch.targets[rows == row], split.items[batch.keys[rows == row]])
    assert altered > 40
    assert kept > 40


def test_the_targets_of_a_shuffled_history_follow_its_new_order() -> None:
    """Else the model would be asked for an item that it has just been shown."""
    split = split_of([(list(range(u, u + 12)), [], []) for u in range(100)], 120)
    shuffled = 0
    for batch in epoch(split, 20, 8, augment=Augment(reorder=1.0)):
        width = batch.items.shape[1]
        for row, size in enumerate(batch.lengths):
            line = batch.items[row, :size]
            targets = batch.targets[batch.positions // width == row]
            assert np.array_equal(targets[:-1], line[1:])
            assert not np.isin(targets[-1], line)
            moved = np.flatnonzero(line != np.sort(line))
            shuffled += len(moved) > 0
            assert len(moved) == 0 or moved[-1] - moved[0] < 12 // 3, "only a third is shuffled"
    assert shuffled > 50


def test_little_padding_and_a_new_order_every_epoch() -> None:
    rng = np.random.default_rng(0)
    lengths = np.minimum(rng.geometric(1 / 8, size=3000) + 1, 60)
    split = split_of([(rng.integers(0, 40, n).tolist(), [], []) for n in lengths], 40)
    first, second = epoch(split, 50, 64, seed=0), epoch(split, 50, 64, seed=1)
    cells, filled = sum(b.items.size for b in first), sum(int(b.lengths.sum()) for b in first)
    assert 1 - filled / cells < 0.08
    assert 1 - filled / (len(lengths) * max(b.items.shape[1] for b in first)) > 0.8, "what padding to one width costs"
    assert [b.users.tolist() for b in first] != [b.users.tolist() for b in second]
    sizes = np.array([b.items.shape[1] for b in first])
    assert np.abs(np.corrcoef(np.arange(len(sizes)), sizes)[0, 1]) < 0.5, "short and long batches alternate"


def test_users_with_too_few_events_are_left_out() -> None:
    split = planted([([], 1, 1), ([3], 1, 1), ([4, 5], 0, 1)])
    assert training_examples(split, 5).users.tolist() == [2]
    assert training_examples(split, 5, open_end=True).users.tolist() == [1, 2]
    assert training_examples(split, 5, needs_history=False).users.tolist() == [1, 2]


def test_users_without_history_are_not_sorted_by_how_much_they_did() -> None:
    """A step takes the mean over its labels: in sorted batches a label of a short user would weigh more."""
    split = walk_split(users=64, items=30, length=9)
    examples = training_examples(split, 200, needs_history=False)
    batches = list(epoch_batches(split, examples, 8, np.random.default_rng(0), needs_history=False))
    order = np.random.default_rng(0).permutation(len(examples))
    assert np.concatenate([batch.users for batch in batches]).tolist() == examples.users[order].tolist()
    assert all(len(batch.users) == 8 for batch in batches)
