"""Teachers of rows weighed by user and by item: shrinkage by hand, what holds of any weights, and that it pays."""

from __future__ import annotations

import functools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

import rows_world
from distilrec.errors import DataError
from distilrec.teachers.row_ensemble import RowEnsemble
from distilrec.teachers.row_local import SHARPNESS, Competence, LocalEnsemble, measure, shrunken
from distilrec.types_rows import Head, Predictor, RowSplit

pytestmark = pytest.mark.req("C9")

N, USERS = 4000, 20


class Said:
    """A predictor that answers from a table, and counts how often it is asked."""

    def __init__(self, answers: np.ndarray, name: str = "said", digest: str = "d") -> None:
        self.answers, self.name, self.digest, self.asked = answers.astype(np.float32), name, digest, 0
        self.parameters = answers.size

    def predict(self, split: RowSplit, rows: np.ndarray) -> np.ndarray:
        self.asked += 1
        return self.answers[rows]


@functools.cache
def world() -> RowSplit:
    return rows_world.table(N)


def table(heads: tuple[Head, ...] = (Head("click"),), seed: int = 0) -> tuple[RowSplit, np.ndarray]:
    """(rows of 20 users and 8 items, half of them for validation and a fourth for test; the true logits [N, O])."""
    made = replace(world(), heads=heads)
    rng = np.random.default_rng(seed + 5)
    outputs = sum(len(head.columns) for head in heads)
    truth = rng.normal(0, 1.5, (N, outputs))
    labels, start = {}, 0
    for head in heads:
        own = truth[:, start : start + len(head.columns)]
        start += len(head.columns)
        labels[head.name] = (own if head.kind == "number" else rng.random(own.shape) < expit(own)).astype(np.float32)
    parts = np.array([0, 1, 1, 2], dtype=np.int8)[np.arange(N) % 4]
    columns = {**made.columns, "user": rng.integers(USERS, size=N).astype(np.int32)}
    return replace(made, labels=labels, parts=parts, columns=columns, groups=columns["user"]), truth


def halves(split: RowSplit, truth: np.ndarray, by: np.ndarray) -> list[Said]:
    """One that knows the truth where `by` is even and says the opposite elsewhere, and the other way around."""
    sign = np.where(by % 2 == 0, 1.0, -1.0)[:, None]
    return [Said(truth * sign, "even"), Said(-truth * sign, "odd")]


def log_loss(teacher: Predictor, split: RowSplit) -> float:
    rows = split.rows("test")
    z, y = teacher.predict(split, rows), split.label_matrix(rows)
    return float((np.logaddexp(0, z) - y * z).mean())


def test_shrinkage_by_hand() -> None:
    # means 2 and -2; within 4 / 2 = 2; between (16 - 2) / (4 - 8 / 4) = 7; each keeps 14 / 16 of its mean
    found = shrunken(np.array([[1.0], [3], [-1], [-3]]), np.array([0, 0, 1, 1]), 3)
    assert found[:, 0] == pytest.approx([1.75, -1.75, 0])
    # two members: both variances are summed, so the second pulls the first
    found = shrunken(np.array([[1.0, 1], [3, -1], [-1, 1], [-3, -1]]), np.array([0, 0, 1, 1]), 2)
    # within (4 + 4) / 2 = 4; between (16 - 4) / 2 = 6; 12 / 16
    assert found == pytest.approx(np.array([[1.5, 0], [-1.5, 0]]))


@pytest.mark.parametrize(("values", "keys"), [
    ([5.0, 5, 5], [1, 1, 1]),  # one key alone
    ([5.0, -5, 0], [0, 1, 2]),  # nothing but single rows: what is chance and what is not cannot be told
    ([1.0, -1, 1, -1], [0, 0, 1, 1]),  # equal means
    ([0.0, 0, 0, 0], [0, 0, 1, 1]),
])
def test_where_keys_cannot_be_told_apart_nothing_is_kept(values: list[float], keys: list[int]) -> None:
    assert not shrunken(np.array(values)[:, None], np.array(keys), 3).any()


def test_weights_by_hand_and_an_unseen_user_has_the_overall_ones() -> None:
    losses, users = np.array([[1.0, 3], [1, 3], [3, 1], [3, 1]]), np.array([0, 0, 1, 1])
    overall, tables = measure(losses, [users], [np.ones(3, dtype=np.int64)])
    assert overall == pytest.approx([0, 0])
    assert tables[0] == pytest.approx(np.array([[-0.5, 0.5], [0.5, -0.5], [0, 0]]))  # in units of the mean loss, 2
    weights = Competence(overall, tables, 2.0).weights([np.array([0, 1, 2])])
    assert weights[:, 0] == pytest.approx([expit(2), expit(-2), 0.5])
    # a member that is better for all: 1 against 2 is -1/3 and 1/3 of the mean loss 1.5
    overall, tables = measure(np.array([[1.0, 2]] * 4), [users], [np.ones(3, dtype=np.int64)])
    unseen = Competence(overall, tables, 3.0).weights([np.array([2])])
    assert unseen[0] == pytest.approx([expit(2), expit(-2)])
    assert Competence(overall, tables, 0.0).weights([users]) == pytest.approx(0.5)


def test_a_key_without_rows_has_what_those_as_popular_have() -> None:
    losses, items = np.array([[1.0, 3]] * 4 + [[3.0, 1]] * 4), np.array([0, 0, 1, 1, 2, 2, 3, 3])
    _, (of,) = measure(losses, [items], [np.array([1, 1, 2, 2, 1, 2, 0])])
    assert of[4] == pytest.approx([-0.5, 0.5])
    assert of[5] == pytest.approx([0.5, -0.5])
    assert of[6] == pytest.approx([0, 0]), "of a level that was not measured"


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 4), st.integers(1, 60), st.integers(0, 2**16), st.sampled_from(SHARPNESS))
def test_weights_sum_to_one_and_follow_their_members(members: int, rows: int, seed: int, sharpness: float) -> None:
    rng = np.random.default_rng(seed)
    losses = rng.exponential(size=(rows, members)) * rng.choice([1e-9, 1, 1e6])
    keys = [rng.integers(5, size=rows), rng.integers(9, size=rows)]
    levels = [rng.integers(3, size=5), rng.integers(2, size=9)]
    asked = [rng.integers(5, size=30), rng.integers(9, size=30)]
    weights = Competence(*measure(losses, keys, levels), sharpness).weights(asked)
    assert (weights >= 0).all()
    assert weights.sum(1) == pytest.approx(1)
    if members == 1:
        assert (weights == 1).all()
    order = rng.permutation(members)
    moved = Competence(*measure(losses[:, order], keys, levels), sharpness).weights(asked)
    assert moved == pytest.approx(weights[:, order], abs=1e-6)
    units = Competence(*measure(losses * 7, keys, levels), sharpness).weights(asked)
    assert units == pytest.approx(weights, abs=1e-6), "the unit of the loss does not matter"


@pytest.mark.parametrize("axis", ["users", "items"])
def test_members_that_are_each_right_about_one_half_beat_their_mean(axis: str) -> None:
    split, truth = table()
    by = split.groups if axis == "users" else split.columns["item"]
    assert by is not None
    members = halves(split, truth, by)
    if axis == "items":
        split = replace(split, groups=None)
    local = LocalEnsemble(members, split, item="item" if axis == "items" else None)
    assert isinstance(local, Predictor)
    equal, found = log_loss(RowEnsemble(members), split), log_loss(local, split)
    best = log_loss(Said(truth), split)
    assert equal == pytest.approx(np.log(2), abs=1e-3), "their mean says nothing"
    assert found < equal - 0.15
    assert found < best + 0.01
    shares = local.facts()["heads"]["click"]["members"]
    assert shares[0][axis][0] < 0.05 and shares[0][axis][1] > 0.95
    assert 0.3 < shares[0]["mean"] < 0.7
    assert local.facts()["rows_measured"] == {axis: 1.0}
    # in another order: the same answers
    turned = LocalEnsemble(members[::-1], split, item=local.item)
    rows = split.rows("test")
    np.testing.assert_allclose(turned.predict(split, rows), local.predict(split, rows), atol=1e-4)


def test_members_that_cannot_be_told_apart_weigh_the_same() -> None:
    split, truth = table(seed=3)
    rng = np.random.default_rng(1)
    members = [Said(truth + rng.normal(0, 0.5, truth.shape)) for _ in range(3)]
    local = LocalEnsemble(members, split, item="item")
    rows = split.rows("test")
    np.testing.assert_allclose(local.predict(split, rows), RowEnsemble(members).predict(split, rows), atol=0.15)
    assert log_loss(local, split) < log_loss(RowEnsemble(members), split) + 2e-3


def test_every_head_has_weights_of_its_own_and_unknown_labels_count_for_nothing() -> None:
    heads = (Head("click"), Head("stars", "number"), Head("tags", "tags", ("new", "cheap")))
    split, truth = table(heads)
    noise = np.random.default_rng(2).normal(0, 2, (2, *truth.shape))
    first, second = truth + noise[0], truth + noise[1]
    first[:, 0], second[:, 1:] = truth[:, 0], truth[:, 1:]  # one knows clicks, the other all else
    split.labels["stars"][::3] = np.nan
    split.labels["tags"][::5, 0] = np.nan
    local = LocalEnsemble([Said(first), Said(second)], split, item="item")
    mean = {name: [one["mean"] for one in of["members"]] for name, of in local.facts()["heads"].items()}
    assert mean["click"][0] > 0.8
    assert mean["stars"][1] > 0.8 and mean["tags"][1] > 0.8
    assert all(sum(one) == pytest.approx(1, abs=1e-3) for one in mean.values())


def test_test_labels_are_not_read_and_members_only_when_needed() -> None:
    split, truth = table()
    assert split.groups is not None
    members = halves(split, truth, split.groups)
    local = LocalEnsemble(members, split)
    assert local.digest and local.parameters == 2 * truth.size + 2 * (1 + USERS) + 1
    assert members[0].asked == 0
    other = dict(split.labels)
    other["click"] = np.where(split.parts[:, None] == 2, 1 - other["click"], other["click"]).astype(np.float32)
    blind = LocalEnsemble(members, replace(split, labels=other))
    rows = split.rows("train")
    np.testing.assert_array_equal(blind.predict(split, rows), local.predict(split, rows))
    assert LocalEnsemble(members, split, item="item").digest != local.digest
    assert LocalEnsemble([members[0], Said(truth, digest="")], split).digest == ""
    assert local.predict(split, rows[:0]).shape == (0, 1)


def test_one_member_is_believed_whatever_it_says() -> None:
    split, truth = table()
    rows = split.rows("test")
    np.testing.assert_array_equal(LocalEnsemble([Said(-truth)], split, item="item").predict(split, rows),
                                  (-truth[rows]).astype(np.float32))


def test_errors_name_what_is_missing() -> None:
    split, truth = table()
    member = Said(truth)
    with pytest.raises(DataError, match="without members"):
        LocalEnsemble([], split)
    with pytest.raises(DataError, match="without either"):
        LocalEnsemble([member], replace(split, groups=None))
    with pytest.raises(DataError, match="'itm' is no category feature, did you mean 'item'"):
        LocalEnsemble([member], split, item="itm")
    with pytest.raises(DataError, match="'price' is no category feature"):
        LocalEnsemble([member], split, item="price")
    blank = np.where(split.parts[:, None] == 1, np.nan, split.labels["click"]).astype(np.float32)
    with pytest.raises(DataError, match="no validation row has a label of 'click'"):
        LocalEnsemble([member], replace(split, labels={"click": blank}))
    local, users = LocalEnsemble([member], split), split.columns["user"]
    with pytest.raises(DataError, match="numbered"):
        local.predict(replace(split, groups=users + 50), np.array([0]))
    with pytest.raises(DataError, match="rows without groups"):
        local.predict(replace(split, groups=None), np.array([0]))
