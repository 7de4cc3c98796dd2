"""Every metric against hand-computed values, a naive second implementation, ir-measures and scikit-learn."""

from __future__ import annotations

import math

import ir_measures
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ir_measures import AP, RR, P, R, Success, nDCG
from sklearn.metrics import average_precision_score, ndcg_score

from distilrec.errors import DataError
from distilrec.evaluation import metrics
from distilrec.evaluation.metrics import METRICS, evaluate_groups, evaluate_lists, tail_items
from distilrec.types import Recommendations


def flat(targets: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    items = np.array([item for row in targets for item in row], dtype=np.int32)
    return items, np.concatenate([[0], np.cumsum([len(row) for row in targets])]).astype(np.int64)


def naive(name: str, ranked: list[int], wanted: set[int], k: int) -> float:
    """The textbook, one query at a time."""
    if not wanted:
        return math.nan
    top = list(ranked[:k])
    places = [rank for rank, item in enumerate(top, 1) if item in wanted]
    if name == "hit_rate":
        return float(bool(places))
    if name == "recall":
        return len(places) / len(wanted)
    if name == "precision":
        return len(places) / k
    if name == "f1":
        p, r = len(places) / k, len(places) / len(wanted)
        return 2 * p * r / (p + r) if places else 0.0
    if name == "ndcg":
        best = sum(1 / math.log2(rank + 1) for rank in range(1, min(k, len(wanted)) + 1))
        return sum(1 / math.log2(rank + 1) for rank in places) / best
    if name == "mrr":
        return 1 / places[0] if places else 0.0
    if name == "map":
        return sum((i + 1) / rank for i, rank in enumerate(places)) / len(wanted)
    raise KeyError(name)


def test_hand_values() -> None:
    """One list of four, targets at ranks 2 and 4, a third target that is missed."""
    recommended = np.array([[7, 3, 9, 1]], dtype=np.int32)
    targets, offsets = flat([[1, 3, 5]])
    values = {name: float(metric(recommended, targets, offsets, 4)[0]) for name, metric in METRICS.items()}
    gain = 1 / math.log2(3) + 1 / math.log2(5)
    assert values == pytest.approx({
        "hit_rate": 1.0, "recall": 2 / 3, "precision": 0.5, "f1": 4 / 7, "mrr": 0.5, "map": (1 / 2 + 2 / 4) / 3,
        "ndcg": gain / (1 + 1 / math.log2(3) + 0.5),
    })


@given(st.data())
@settings(max_examples=150, deadline=None)
def test_against_naive(data: st.DataObject) -> None:
    n_items = data.draw(st.integers(1, 12))
    k = data.draw(st.integers(1, 6))
    queries = data.draw(st.integers(1, 5))
    lists, wanted = [], []
    for _ in range(queries):
        ranked = data.draw(st.permutations(range(n_items)))[: data.draw(st.integers(0, k + 2))]
        lists.append(list(ranked) + [-1] * (k + 2 - len(ranked)))
        wanted.append(data.draw(st.lists(st.integers(0, n_items - 1), max_size=6)))  # repeats are one target
    targets, offsets = flat(wanted)
    recommended = np.array(lists, dtype=np.int32)
    for name, metric in METRICS.items():
        expected = [naive(name, row, set(goal), k) for row, goal in zip(lists, wanted, strict=True)]
        np.testing.assert_allclose(metric(recommended, targets, offsets, k), expected, atol=1e-12, err_msg=name)


def test_against_ir_measures() -> None:
    rng = np.random.default_rng(3)
    lists = np.array([rng.permutation(60)[:20] for _ in range(80)], dtype=np.int32)
    wanted = [rng.choice(60, rng.integers(1, 9), replace=False).tolist() for _ in range(80)]
    targets, offsets = flat(wanted)
    qrels = [ir_measures.Qrel(str(q), str(i), 1) for q, row in enumerate(wanted) for i in row]
    run = [
        ir_measures.ScoredDoc(str(q), str(i), 100.0 - rank) for q, row in enumerate(lists) for rank, i in enumerate(row)
    ]
    for k in (1, 5, 20):
        theirs = {"hit_rate": Success @ k, "recall": R @ k, "precision": P @ k, "ndcg": nDCG @ k,
                  "mrr": RR @ k, "map": AP @ k}
        found = ir_measures.iter_calc(list(theirs.values()), qrels, run)
        values = {(m.measure, int(m.query_id)): m.value for m in found}
        for name, measure in theirs.items():
            expected = [values[measure, q] for q in range(80)]
            ours = METRICS[name](lists, targets, offsets, k)
            np.testing.assert_allclose(ours, expected, atol=1e-9, err_msg=f"{name}@{k}")


def test_against_scikit_learn() -> None:
    """On complete rankings, where the two mean the same thing."""
    rng = np.random.default_rng(4)
    n = 30
    scores = rng.random((40, n))
    relevant = rng.random((40, n)) < 0.2
    relevant[:, 0] = True
    lists = np.argsort(-scores, axis=1).astype(np.int32)
    targets, offsets = flat([np.flatnonzero(row).tolist() for row in relevant])
    for k in (5, 30):
        expected = [ndcg_score([r], [s], k=k) for r, s in zip(relevant, scores, strict=True)]
        np.testing.assert_allclose(metrics.ndcg(lists, targets, offsets, k), expected, atol=1e-12)
    expected = [average_precision_score(r, s) for r, s in zip(relevant, scores, strict=True)]
    np.testing.assert_allclose(metrics.average_precision(lists, targets, offsets, n), expected, atol=1e-12)


@pytest.mark.parametrize(("recommended", "targets", "offsets", "k"), [
    ([[1, 1]], [1], [0, 1], 2),  # the same hit twice
    ([[1, 2]], [1], [0, 1], 3),  # shorter than k
    ([[1, 2]], [1], [0, 2], 2),  # offsets past the end
    ([[1, 2]], [1], [0, 1], 0),
])
def test_refuses(recommended: list, targets: list, offsets: list, k: int) -> None:
    with pytest.raises(DataError):
        metrics.ndcg(np.array(recommended), np.array(targets), np.array(offsets), k)


def test_evaluate_lists_and_its_errors(make_split) -> None:
    split = make_split([([0, 1], [2], [3]), ([1], [0], []), ([2], [1], [0, 4])], 5)
    items = np.array([[3, 4], [1, 4]], np.int32)
    lists = Recommendations(np.array([0, 2], np.int32), items, np.zeros((2, 2), np.float32))
    values = evaluate_lists(lists, split, "test", k=[1, 2])
    assert set(values) == {f"{name}@{k}" for name in METRICS for k in (1, 2)}
    assert values["recall@2"].tolist() == [1.0, 0.5]
    assert values["hit_rate@1"].tolist() == [1.0, 0.0]
    with pytest.raises(DataError, match="did you mean 'ndcg'"):
        evaluate_lists(lists, split, "test", k=[1], metrics=["ndgc"])
    with pytest.raises(DataError, match="not those of the valid"):
        evaluate_lists(lists, split, "valid", k=[1])


def test_groups_count_only_their_own_targets(make_split) -> None:
    """Item 0 holds 8 of 10 train interactions; 1 and 2 are the tail."""
    split = make_split([([0] * 4, [1], [0, 1]), ([0] * 4, [], [0]), ([1, 2], [], [2])], 3)
    lists = Recommendations(
        np.array([0, 1, 2], np.int32), np.array([[0, 2], [1, 2], [2, 0]], np.int32), np.zeros((3, 2), np.float32))
    groups = evaluate_groups(lists, split, "test", k=[2], metrics=["recall"])
    np.testing.assert_array_equal(groups["head"]["recall@2"], [1.0, 0.0, np.nan])
    np.testing.assert_array_equal(groups["tail"]["recall@2"], [0.0, np.nan, 1.0])


def test_tail_holds_the_last_fifth() -> None:
    assert tail_items(np.array([8, 1, 1])).tolist() == [False, True, True]
    assert tail_items(np.array([8, 2, 0])).tolist() == [False, True, True]
    # equal counts: the larger id is the less popular one, and the tail never holds more than its share
    assert tail_items(np.array([1, 1, 1, 1, 1])).tolist() == [False, False, False, False, True]
    assert tail_items(np.array([3])).tolist() == [False]
    counts = np.random.default_rng(0).zipf(1.5, 500).clip(max=1000)
    tail = tail_items(counts)
    assert counts[tail].sum() <= 0.2 * counts.sum() < counts[tail].sum() + counts[~tail].min()
    assert counts[tail].max() <= counts[~tail].min()
    with pytest.raises(DataError):
        tail_items(counts, 1.5)
