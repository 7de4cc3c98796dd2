"""Batches of a model that fills gaps: what is masked, what it is trained on, and what a teacher may say of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from core_world import quick, split_of, walk_split
from distilrec.errors import RecipeError
from distilrec.knowledge.extract import extract, open_key
from distilrec.models.trained import create
from distilrec.training.batches import Batch, epoch_batches, training_examples
from distilrec.training.fit import RankWork
from distilrec.training.settings import Augment, TrainSettings
from distilrec.training.train import train
from distilrec.types import Split

pytestmark = pytest.mark.req("B4")

TRAIN_ITEMS = 40
SECRET = 50  # ids that occur in validation and test only
USERS = st.lists(
    st.tuples(st.lists(st.integers(0, TRAIN_ITEMS - 1), max_size=13), st.integers(0, 3), st.integers(0, 3)),
    min_size=1, max_size=12,
)


def planted(users: list[tuple[list[int], int, int]]) -> Split:
    return split_of([(train, [SECRET] * valid, [SECRET + 1] * test) for train, valid, test in users], SECRET + 2)


def epoch(split: Split, share: float, max_length: int = 5, seed: int = 0, **how: object) -> list[Batch]:
    examples = training_examples(split, max_length, **how)  # type: ignore[arg-type]
    return list(epoch_batches(split, examples, 3, np.random.default_rng(seed), mask_share=share))


@given(users=USERS, windows=st.sampled_from(["last", "all"]), open_end=st.booleans(),
       share=st.sampled_from([0.0, 0.4, 0.9]), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_what_is_masked_is_what_is_asked_and_nothing_else(
    users: list, windows: str, open_end: bool, share: float, seed: int,  # type: ignore[type-arg]
) -> None:
    split = planted(users)
    mask, pad = split.n_items + 1, split.n_items
    for batch in epoch(split, share, seed=seed, windows=windows, open_end=open_end):
        assert not np.isin(batch.items, [SECRET, SECRET + 1]).any()
        assert not np.isin(batch.targets, [SECRET, SECRET + 1]).any()
        assert np.array_equal(np.flatnonzero(batch.items.ravel() == mask), batch.positions)
        width = batch.items.shape[1]
        assert width <= 6
        assert np.array_equal(batch.items == pad, np.arange(width) >= batch.lengths[:, None])
        owner, column = batch.positions // width, batch.positions % width
        for row in range(len(batch.items)):
            mine = owner == row
            assert column[mine].max() == batch.lengths[row] - 1, "the last one is always asked"
        assert np.array_equal(batch.soft, ~batch.labeled)
        keys = batch.keys[batch.labeled]
        assert np.array_equal(split.items[keys], batch.targets[batch.labeled])
        for at in np.flatnonzero(batch.labeled):
            begin = batch.keys[at] - column[at]  # the row is a piece of the train part, gaps aside
            whole = split.items[begin : begin + batch.lengths[owner[at]]]
            seen = batch.items[owner[at], : batch.lengths[owner[at]]]
            assert ((seen == whole) | (seen == mask)).all()
            assert split.bounds[batch.users[owner[at]], 0] <= begin
            assert begin + batch.lengths[owner[at]] <= split.bounds[batch.users[owner[at]], 1]


@given(users=USERS, windows=st.sampled_from(["last", "all"]), seed=st.integers(0, 99))
@settings(max_examples=25, deadline=None)
def test_a_teacher_speaks_of_the_open_decision_with_its_whole_history(
    users: list, windows: str, seed: int,  # type: ignore[type-arg]
) -> None:
    split = planted(users)
    spoken = []
    for batch in epoch(split, 0.7, seed=seed, windows=windows, open_end=True):
        width = batch.items.shape[1]
        for at in np.flatnonzero(batch.soft):
            row, column = divmod(int(batch.positions[at]), width)
            user = int(batch.users[row])
            first, last = split.bounds[user, :2]
            history = split.items[max(first, last - 5):last].tolist()
            assert batch.items[row, :column].tolist() == history
            assert batch.keys[at] == open_key(split, np.array([user]))[0]
            spoken.append(user)
    assert sorted(spoken) == np.flatnonzero(split.bounds[:, 1] > split.bounds[:, 0]).tolist()


def test_the_share_of_masks_is_the_one_asked_for() -> None:
    split = walk_split(users=400, length=20)
    counts = [(len(b.positions) - len(b.items), b.lengths.sum() - len(b.items)) for b in epoch(split, 0.3, 50)]
    masked, free = np.sum(counts, axis=0)
    assert masked / free == pytest.approx(0.3, abs=4 * np.sqrt(0.21 / free))


@pytest.mark.parametrize("losses", [
    {"cross_entropy": 0.5, "kl": 0.5}, {"kl": 1.0}, {"cross_entropy": 1.0, "attention_transfer": 1.0, "sobolev": 1.0},
    {"cross_entropy": 1.0, "hint": 1.0},
])
def test_it_learns_from_a_teacher_and_teaches(losses: dict[str, float], tmp_path: Path) -> None:
    split = walk_split()
    model = {"dim": 16, "dropout": 0.0, "max_length": 8, "layers": 1}
    signals = ["attention", "gradient", "query"]
    teacher = train("bert4rec", split, model, quick(epochs=15))
    store = extract(teacher, split, tmp_path / "k", top_k=10, signals=signals)
    students = {name: train(name, split, model, quick(epochs=15), losses=losses, knowledge=store)
                for name in ("bert4rec", "hstu")}
    plain = train("bert4rec", split, model, quick(epochs=1))
    for student in students.values():
        assert student.training["valid"]["ndcg@10"] > plain.training["valid"]["ndcg@10"]


def test_its_soft_answers_are_those_it_is_served_with(tmp_path: Path) -> None:
    """Trained on the answers of another model alone, it gives the same answers after the train part."""
    split = walk_split(users=40)
    model = {"dim": 16, "dropout": 0.0, "max_length": 8, "layers": 1}
    teacher = train("bert4rec", split, model, quick(epochs=10, seed=1))
    store = extract(teacher, split, tmp_path / "k", top_k=split.n_items)
    student = train("bert4rec", split, model, quick(epochs=80, patience=200, learning_rate=1e-2), losses={"kl": 1.0},
                    knowledge=store, metric="ndcg@10")
    histories = split.histories(split.queries("valid"))
    theirs, ours = teacher.scores(histories), student.scores(histories)
    agree = [np.corrcoef(a, b)[0, 1] for a, b in zip(theirs, ours, strict=True)]
    assert np.mean(agree) > 0.95


def test_augmentation_of_a_model_that_masks_by_itself_is_refused() -> None:
    split = walk_split()
    model, _ = create("bert4rec", split, {"dim": 8})
    with pytest.raises(RecipeError, match="augment for a model of kind BERT4Rec"):
        RankWork(model, split, TrainSettings(augment=Augment(crop=0.5)))
