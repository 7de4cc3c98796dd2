"""Fusion and cascade against values by hand and against slow second ways."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distilrec.errors import DataError
from distilrec.evaluation.contest import Contestant, contest, together
from distilrec.evaluation.fusion import (
    Cascade,
    Fusion,
    cascade,
    fuse,
    fused_scores,
    learn_weights,
    reciprocal_ranks,
    weight_grid,
)
from distilrec.evaluation.metrics import evaluate_lists
from distilrec.evaluation.rank import recommend, recommend_bundle
from distilrec.types import Histories, Lister, Ranker, Recommendations, Split

from .conftest import TableRanker, build_split, random_split

pytestmark = pytest.mark.req("A6")

NOBODY = Histories.of([[]], np.array([0]))


class Bundled:
    """Answers as a bundle does: lists, and scores only of what it lists."""

    n_items = 0

    def __init__(self, ranker: TableRanker) -> None:
        self.ranker, self.name, self.n_items, self.asked = ranker, ranker.name, ranker.table.shape[1], []

    @property
    def parameters(self) -> int:
        return 5

    def recommend_ids(self, histories: Histories, exclude: Histories, k: int) -> Recommendations:
        self.asked.append(k)
        scores = self.ranker.table[histories.users].copy()
        scores[np.repeat(np.arange(len(scores)), exclude.lengths), exclude.items] = -np.inf
        order = np.lexsort((np.broadcast_to(np.arange(scores.shape[1]), scores.shape), -scores), axis=1)[:, :k]
        best = np.take_along_axis(scores, order, axis=1)
        return Recommendations(histories.users, np.where(np.isneginf(best), -1, order).astype(np.int32), best)


def table(rows: list[list[float]], name: str = "table") -> TableRanker:
    return TableRanker(np.array(rows, dtype=np.float32), name)


def only(one: Any, k: int, exclude: Histories = NOBODY) -> list[int]:
    return one.recommend_ids(NOBODY, exclude, k).items[0].tolist()


def test_weighted_fusion_by_hand() -> None:
    logs = [[math.log(p) for p in (0.7, 0.2, 0.1)], [math.log(p) for p in (0.1, 0.6, 0.3)]]
    shifted = [np.array([logs[0]], np.float32) + 5, np.array([logs[1]], np.float32) - 3]  # a softmax knows no level
    found = fused_scores(shifted, np.array([1.0, 3.0]))
    expected = 0.25 * np.array(logs[0]) + 0.75 * np.array(logs[1])
    np.testing.assert_allclose(found[0], expected, atol=1e-6)
    assert only(fuse([table([logs[0]]), table([logs[1]])], weights=[1, 3]), 3) == np.argsort(-expected).tolist()


def test_standard_scores_by_hand_and_what_a_source_rules_out() -> None:
    one, two = np.array([[1.0, 2.0, 3.0, -np.inf]]), np.array([[900.0, 100.0, 500.0, 500.0]])
    found = fused_scores([one, two], np.array([1.0, 1.0]), "standard")
    z = math.sqrt(1.5)
    y = 400 / math.sqrt(80_000)
    np.testing.assert_allclose(found[0], [(-z + y) / 2, (0 - y) / 2, (z + 0) / 2, -np.inf], rtol=1e-6)
    kept = fused_scores([one, two], np.array([0.0, 1.0]), "standard")
    assert np.isfinite(kept).all(), "a source without weight rules nothing out"
    level = fused_scores([np.ones((1, 3))], np.array([1.0]), "standard")
    assert level.tolist() == [[0, 0, 0]]


def test_reciprocal_ranks_by_hand() -> None:
    first, second = np.array([[4, 1, 0]], np.int32), np.array([[1, 3, -1]], np.int32)
    found = reciprocal_ranks([first, second], np.array([1.0, 1.0]))
    np.testing.assert_allclose(found[0], [1 / 63, 1 / 62 + 1 / 61, -np.inf, 1 / 62, 1 / 61], rtol=1e-6)
    doubled = reciprocal_ranks([first, second], np.array([1.0, 2.0]), constant=0.0)
    np.testing.assert_allclose(doubled[0], [1 / 3, 1 / 2 + 2, -np.inf, 1, 1], rtol=1e-6)


def test_rank_fusion_of_a_ranker_and_a_bundle_leaves_out_the_excluded_before_it_ranks() -> None:
    ranker, bundle = table([[9, 8, 7, 6, 5]]), Bundled(table([[1, 2, 3, 4, 9]]))
    fused = fuse([ranker, bundle], "rrf", depth=3)
    # without item 0: 1 2 3 and 4 3 2 -> item 2: 1/62 + 1/63, 3: 1/63 + 1/62, 1: 1/61, 4: 1/61; equals by smaller id
    assert only(fused, 6, Histories.of([[0]])) == [2, 3, 1, 4, -1, -1]
    assert bundle.asked == [5]
    assert fused.parameters == ranker.parameters + 5


@given(st.integers(0, 10_000), st.integers(1, 12))
@settings(max_examples=30, deadline=None)
def test_fusing_one_source_changes_no_list(seed: int, k: int) -> None:
    split = random_split(8, 12, seed)
    one = TableRanker(np.random.default_rng(seed).normal(size=(8, 12)).astype(np.float32))
    expected = recommend(one, split, "test", k).items
    for fused in (fuse([one]), fuse([one], scale="standard"), fuse([one], "rrf"), fuse([Bundled(one)]),
                  cascade(one, one, 4)):
        assert np.array_equal(recommend_bundle(fused, split, "test", k).items, expected)


@given(st.integers(0, 10_000), st.integers(1, 14), st.integers(1, 14))
@settings(max_examples=40, deadline=None)
def test_a_cascade_against_plain_python(seed: int, depth: int, k: int) -> None:
    split, rng = random_split(6, 12, seed), np.random.default_rng(seed)
    student, teacher = (TableRanker(rng.integers(0, 5, (6, 12)).astype(np.float32)) for _ in range(2))
    teacher.table[rng.random((6, 12)) < 0.3] = -np.inf
    found = recommend_bundle(cascade(Bundled(student), teacher, depth), split, "test", k)
    queries = split.queries("test")
    histories = split.histories(queries)
    for row, user in enumerate(queries.users.tolist()):
        past = set(histories.items[histories.offsets[row]:histories.offsets[row + 1]].tolist())
        retrieved = sorted((i for i in range(12) if i not in past), key=lambda i: (-student.table[user, i], i))
        head = retrieved[:depth]
        known = [i for i in head if np.isfinite(teacher.table[user, i])]
        ranked = sorted(known, key=lambda i: (-teacher.table[user, i], i))
        ranked += [i for i in head if i not in known] + retrieved[depth:]
        expected = (ranked + [-1] * k)[:k]
        assert found.items[row].tolist() == expected
        scores = found.scores[row]
        given_items = np.array(expected) >= 0
        assert (np.diff(scores[given_items]) <= 0).all()
        assert np.isneginf(scores[~given_items]).all()


def test_a_cascade_asks_a_teacher_that_can_for_the_candidates_only() -> None:
    teacher = SimpleNamespace(name="t", parameters=1, asked=[])

    def scored(histories: Histories, items: np.ndarray) -> np.ndarray:
        teacher.asked.append(items.tolist())
        return -items.astype(np.float32)

    teacher.pair_scorer = lambda: scored
    one = cascade(table([[1, 9, 5, 7]]), teacher, 2)
    assert only(one, 4) == [1, 3, 2, 0]
    assert teacher.asked == [[[1, 3]]]
    assert one.parameters == 4 + 1
    teacher.pair_scorer = lambda: lambda histories, items: items * np.nan
    with pytest.raises(DataError, match="scored items with NaN"):
        only(cascade(table([[1, 9]]), teacher, 2), 1)


def test_the_grid_holds_every_share_once() -> None:
    assert weight_grid(1).tolist() == [[1.0]]
    assert weight_grid(2).tolist() == [[i / 20, (20 - i) / 20] for i in range(21)]
    three = weight_grid(3)
    assert len(three) == math.comb(14, 2) == 91
    assert len({tuple(row) for row in three.tolist()}) == 91
    np.testing.assert_allclose(three.sum(1), 1.0)
    assert (three >= 0).all()
    with pytest.raises(DataError, match="weights for 101 sources"):
        weight_grid(101)


def knowing(split: Split, part: str, noise: float, seed: int) -> TableRanker:
    """A ranker that likes the targets of a part, more or less."""
    scores = np.random.default_rng(seed).normal(size=(split.n_users, split.n_items))
    users, items, _ = split.events(part)  # type: ignore[arg-type]
    scores[users, items] += noise
    return TableRanker(scores.astype(np.float32))


def test_learned_weights_are_the_best_of_the_grid_on_validation_and_never_read_test() -> None:
    split = random_split(60, 40, 1)
    one, two = knowing(split, "valid", 1.5, 2), knowing(split, "valid", 1.0, 3)
    found = learn_weights([one, two], split, metric="ndcg@5")
    values = [float(np.nanmean(evaluate_lists(recommend_bundle(fuse([one, two], weights=w), split, "valid", 5), split,
                                              "valid", [5])["ndcg@5"])) for w in weight_grid(2)]
    assert values[[tuple(w) for w in weight_grid(2).tolist()].index(tuple(found))] == max(values)
    assert 0 < found[0] < 1, "two that err apart are better together"
    cheat = knowing(split, "test", 50.0, 4)
    assert learn_weights([cheat, one], split, metric="ndcg@5")[0] < 0.5
    assert np.array_equal(fuse([one, two], "learned", split=split, metric="ndcg@5").weights, found)
    assert learn_weights([one, one], split).tolist() == [0.5, 0.5], "of equally good weights the most equal ones"


def test_what_does_not_fit_is_refused() -> None:
    one, split = table([[1, 2]]), build_split([([0], [], [1])], 2)
    for wrong, told in (
        (lambda: fuse([one], "rff"), "did you mean 'rrf'"),
        (lambda: fuse([one], scale="soft"), "log_softmax | standard"),  # type: ignore[arg-type]
        (lambda: fuse([one], weights=[1, 2]), "1 sources with weights"),
        (lambda: fuse([one, one], weights=[1, -1]), "none negative"),
        (lambda: fuse([one], weights=[0]), "not all 0"),
        (lambda: fuse([]), "0 sources"),
        (lambda: fuse([one], "rrf", depth=0), "depth 0"),
        (lambda: fuse([one], "learned"), "without a split"),
        (lambda: fuse([one, one], "learned", split=split), "without validation events"),
        (lambda: cascade(one, one, 0), "depth 0"),
        (lambda: fuse([cascade(one, one, 1)]).recommend_ids(NOBODY, NOBODY, 1), "gives lists and no scores"),
    ):
        with pytest.raises(DataError) as error:
            wrong()
        assert told in str(error.value)


def test_they_answer_like_bundles_and_are_no_rankers() -> None:
    for one in (fuse([table([[1, 2]])]), cascade(table([[1, 2]]), table([[2, 1]]), 2)):
        assert isinstance(one, Lister)
        assert not isinstance(one, Ranker)
    assert isinstance(fuse([table([[1, 2]])]), Fusion)
    assert isinstance(cascade(table([[1, 2]]), table([[2, 1]])), Cascade)


def test_in_a_report_with_quality_parameters_and_milliseconds(tmp_path: Path) -> None:
    split = random_split(40, 30, 5)
    teacher, student = knowing(split, "test", 3.0, 1), knowing(split, "test", 1.0, 2)
    teacher.table[split.events("valid")[0], split.events("valid")[1]] += 3
    chosen = [Contestant("teacher", "teacher", [teacher]), Contestant("student", "student", [student])]
    chosen += together([(teacher, student)], ["weighted", "rrf", "learned"], [5, 30], metric="ndcg@10", seen="drop",
                       learn_from=[(teacher, student, split)])
    report = contest(chosen, split, k=[10, 20])
    models = {one["name"]: one for one in report["models"]}
    assert [n for n in models if models[n]["role"] == "fusion"] == \
        ["fusion-weighted", "fusion-rrf", "fusion-learned", "cascade-5", "cascade-30"]
    for name in list(models)[2:]:
        assert models[name]["latency_ms"]["p50"] > 0
        assert models[name]["parameters"] == teacher.parameters + student.parameters
        assert models[name]["metrics"]["valid"]["ndcg@10"]["mean"] > 0
    quality = {name: models[name]["metrics"]["test"]["ndcg@10"]["mean"] for name in models}
    assert quality["cascade-30"] == pytest.approx(quality["teacher"]), "the teacher re-ranks the whole catalog"
    assert quality["student"] < quality["cascade-5"] < quality["teacher"]
    ((share, rest),) = report["lineage"]["fusion_weights"]["fusion-learned"]
    assert share > 0.5
    assert share + rest == pytest.approx(1)
    files = report.save(tmp_path)
    page = files["page"].read_text(encoding="utf-8")
    assert "cascade-30" in page
    assert "fusion-learned" in page
    assert "cascade-30" in str(report)
