"""Ensembles of row teachers: the mean, given weights, learned weights."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit

import rows_world
from distilrec.errors import DataError
from distilrec.teachers.row_ensemble import RowEnsemble, learn_weights
from distilrec.types_rows import Head, Predictor, RowSplit


class Said:
    """A predictor that answers from a table."""

    def __init__(self, answers: np.ndarray, name: str = "said", digest: str = "d") -> None:
        self.answers, self.name, self.digest = answers.astype(np.float32), name, digest
        self.parameters = answers.size

    def predict(self, split: RowSplit, rows: np.ndarray) -> np.ndarray:
        return self.answers[rows]


@pytest.fixture(scope="module")
def split() -> RowSplit:
    """A click and a rating, with labels drawn from known logits; 4000 rows, 1600 of them for validation."""
    made = rows_world.table(4000, heads=(Head("click"), Head("rating", "number")))
    rng = np.random.default_rng(8)
    truth = rng.normal(size=(4000, 2))
    labels = {"click": (rng.random((4000, 1)) < expit(truth[:, :1] * 2)).astype(np.float32),
              "rating": (truth[:, 1:] + 3).astype(np.float32)}
    labels["rating"][::7] = np.nan
    parts = (np.arange(4000) % 5 // 2).astype(np.int8)
    return RowSplit("made", "given", made.features, made.columns, made.heads, labels, parts, made.raw)


@pytest.fixture(scope="module")
def members() -> list[Said]:
    """Half of the true logit, that with noise, and noise alone."""
    rng = np.random.default_rng(8)
    rng_truth = rng.normal(size=(4000, 2))
    noise = np.random.default_rng(9).normal(size=(3, 4000, 2))
    known = rng_truth + np.array([0, 3])
    return [Said(known * [1, 1], digest="a"), Said(known + noise[0], digest="b"), Said(noise[1], digest="c")]


def test_the_mean_and_given_weights(split: RowSplit, members: list[Said]) -> None:
    rows = np.array([5, 1])
    equal = RowEnsemble(members)
    assert isinstance(equal, Predictor)
    assert equal.predict(split, rows) == pytest.approx(np.mean([m.answers[rows] for m in members], axis=0), abs=1e-6)
    assert equal.parameters == 3 * 8000
    assert equal.members == members
    weighted = RowEnsemble(members, weights=[3, 1, 0])
    assert weighted.predict(split, rows) == pytest.approx(
        0.75 * members[0].answers[rows] + 0.25 * members[1].answers[rows], abs=1e-6)
    by_head = RowEnsemble(members, weights={"click": [2, 0, 0], "rating": [0, 1, 0]})
    assert by_head.predict(split, rows)[:, 0] == pytest.approx(2 * members[0].answers[rows, 0])
    assert by_head.predict(split, rows)[:, 1] == pytest.approx(members[1].answers[rows, 1])


def test_learned_weights_find_the_member_that_knows(split: RowSplit, members: list[Said]) -> None:
    weights = learn_weights(members, split)
    assert weights["click"][0] == pytest.approx(2.0, abs=0.35)  # its logits are half of the true ones
    assert max(weights["click"][1:]) < 0.25
    assert weights["rating"] == pytest.approx([1, 0, 0], abs=0.01)
    assert min(weights["click"] + weights["rating"]) >= 0
    rows = split.rows("valid")
    learned, equal = RowEnsemble(members, weights=weights), RowEnsemble(members)
    y = split.labels["click"][rows, 0]

    def loss(z: np.ndarray) -> float:
        return float(np.mean(np.logaddexp(0, z) - y * z))

    assert loss(learned.predict(split, rows)[:, 0]) < loss(equal.predict(split, rows)[:, 0])


def test_members_that_say_the_same_share_their_weight(split: RowSplit, members: list[Said]) -> None:
    weights = learn_weights([members[0], members[0]], split)
    assert weights["click"][0] == pytest.approx(weights["click"][1], abs=1e-3)
    assert weights["rating"][0] == pytest.approx(weights["rating"][1], abs=1e-3)


def test_the_digest_follows_members_and_weights(members: list[Said]) -> None:
    digests = [RowEnsemble(members).digest, RowEnsemble(members[:2]).digest,
               RowEnsemble(members, weights=[1, 2, 3]).digest,
               RowEnsemble(members, weights={"click": [1, 2, 3], "rating": [1, 1, 1]}).digest]
    assert len(set(digests)) == 4
    assert RowEnsemble([*members, Said(members[0].answers, digest="")]).digest == ""


def test_wrong_members_and_weights_are_refused(split: RowSplit, members: list[Said]) -> None:
    with pytest.raises(DataError, match="without members"):
        RowEnsemble([])
    with pytest.raises(DataError, match="without members"):
        learn_weights([], split)
    for weights in ([1, 2], [1, -1, 1], [0, 0, 0], [1, float("nan"), 1]):
        with pytest.raises(DataError, match="one number of at least 0"):
            RowEnsemble(members, weights=weights)
    with pytest.raises(DataError, match="weights for the heads click"):
        RowEnsemble(members, weights={"click": [1, 1, 1]}).predict(split, np.array([0]))
    blind = RowSplit(split.name, "given", split.features, split.columns, split.heads,
                     {**split.labels, "rating": np.full((4000, 1), np.nan, np.float32)}, split.parts, split.raw)
    with pytest.raises(DataError, match="no validation row has a label of 'rating'"):
        learn_weights(members, blind)
    backwards = [Said(-members[0].answers)]
    with pytest.raises(DataError, match="no member says anything about 'click'"):
        learn_weights(backwards, split)
