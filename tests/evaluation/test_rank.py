"""Ranking: exact order under ties, masking, sampled candidates, bounded memory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import distilrec.errors
from distilrec import numerics
from distilrec.errors import DataError
from distilrec.evaluation.rank import recommend, recommend_bundle, sample_candidates
from distilrec.numerics import top_k
from distilrec.types import Histories, Recommendations


def naive_top(row: np.ndarray, k: int) -> tuple[list[int], list[float]]:
    order = [int(i) for i in sorted(range(len(row)), key=lambda i: (-row[i], i)) if row[i] > -np.inf][:k]
    missing = k - len(order)
    return order + [-1] * missing, [float(row[i]) for i in order] + [-np.inf] * missing


@pytest.mark.parametrize("seen", ["drop", "keep"])
@pytest.mark.parametrize("part", ["valid", "test"])
def test_recommend_against_loop(make_random_split, table_ranker, monkeypatch, seen: str, part: str) -> None:
    monkeypatch.setattr(numerics, "_BLOCK_BYTES", 3 * 40 * 4)  # three rows a block, so that a batch has several
    split = make_random_split(60, 40, seed=1)
    table = np.random.default_rng(2).integers(0, 9, (60, 40)).astype(np.float32)
    ranker = table_ranker(table)
    result = recommend(ranker, split, part, 12, seen=seen, memory_mb=7 * 40 * 4 / 2**20)
    assert max(ranker.batches) == 7, "memory_mb bounds the batch"
    column = 1 if part == "valid" else 2
    for user, items in zip(result.users, result.items, strict=True):
        row = table[user].copy()
        if seen == "drop":
            row[split.items[split.bounds[user, 0]:split.bounds[user, column]]] = -np.inf
        assert items.tolist() == naive_top(row, 12)[0]
    whole = recommend(table_ranker(table), split, part, 12, seen=seen)
    np.testing.assert_array_equal(whole.items, result.items)


def test_scores_that_the_ranker_keeps_are_not_written_to(make_split) -> None:
    split = make_split([([0, 1], [2], [3]), ([0], [], [2])], 4)

    class Keeper:
        name, parameters = "keeper", 8
        table = np.arange(8, dtype=np.float32).reshape(2, 4)

        def scores(self, histories: Histories) -> np.ndarray:
            return self.table

    recommend(Keeper(), split, "test", 2)
    assert Keeper.table.tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]


def test_read_only_scores_and_short_lists(make_split, table_ranker) -> None:
    """A popularity ranker may hand out a read-only broadcast; a user who saw nearly all gets a short list."""
    split = make_split([([0, 1], [2], [3]), ([0], [], [2])], 4)

    class Popular:
        name, parameters = "popular", 4

        def scores(self, histories: Histories) -> np.ndarray:
            return np.broadcast_to(np.array([4.0, 3.0, 2.0, 1.0]), (len(histories), 4))

    result = recommend(Popular(), split, "test", 3)
    assert result.items.tolist() == [[3, -1, -1], [1, 2, 3]]
    assert result.scores[0].tolist() == [1.0, -np.inf, -np.inf]


def test_sampled_candidates(make_random_split, table_ranker) -> None:
    split = make_random_split(50, 200, seed=5)
    queries = split.queries("test")
    table = sample_candidates(split, queries, 30, seed=9)
    targets, offsets = split.targets(queries)
    for q, row in enumerate(table):
        chosen, own = set(row[row >= 0].tolist()), set(targets[offsets[q]:offsets[q + 1]].tolist())
        history = set(split.items[queries.history_start[q]:queries.history_stop[q]].tolist())
        assert own <= chosen and len(chosen) == len(own) + 30 and not chosen & history
        assert (np.diff(row[row >= 0]) > 0).all()
    # the same whatever the batch, different for another seed
    some = sample_candidates(split, queries.take(np.arange(3, 9)), 30, 9)
    np.testing.assert_array_equal(some[:, :31], table[3:9, :31])
    assert not np.array_equal(sample_candidates(split, queries, 30, 10), table)

    scores = np.random.default_rng(0).integers(0, 5, (50, 200)).astype(np.float32)
    for memory in (256, 0.01):
        result = recommend(table_ranker(scores), split, "test", 8, candidates={"sampled": 30}, seed=9, memory_mb=memory)
        for q, user in enumerate(result.users):
            row = np.full(200, -np.inf)
            row[table[q][table[q] >= 0]] = scores[user, table[q][table[q] >= 0]]
            assert result.items[q].tolist() == naive_top(row, 8)[0]


def test_sampling_is_uniform_and_gives_all_when_few(make_split) -> None:
    split = make_split([([0, 3], [], [5])] * 3000, 8)
    queries = split.queries("test")
    table = sample_candidates(split, queries, 2, seed=0)
    counts = np.bincount(table.ravel(), minlength=8)
    assert counts[[0, 3]].tolist() == [0, 0] and counts[5] == 3000
    free = counts[[1, 2, 4, 6, 7]]  # 6,000 draws over five items: 1,200 each, standard deviation 27
    assert abs(free - 1200).max() < 135
    assert sample_candidates(split, queries, 99, seed=0)[0].tolist() == [1, 2, 4, 5, 6, 7]


@pytest.mark.parametrize("options", [
    {"seen": "hide"}, {"candidates": "some"}, {"candidates": {"sampled": 0}}, {"candidates": {"n": 3}},
    {"memory_mb": 0},
])
def test_wrong_options(make_split, table_ranker, options: dict) -> None:
    with pytest.raises(DataError):
        recommend(table_ranker(np.zeros((1, 2), np.float32)), make_split([([0], [], [1])], 2), "test", 1, **options)


def test_wrong_shape_and_nan_from_a_ranker(make_split, table_ranker) -> None:
    split = make_split([([0], [], [1])], 2)
    with pytest.raises(DataError, match=r"table gave scores of shape \(1, 3\)"):
        recommend(table_ranker(np.zeros((1, 3), np.float32)), split, "test", 1)
    with pytest.raises(DataError, match="NaN"):
        recommend(table_ranker(np.full((1, 2), np.nan, np.float32)), split, "test", 1)


def test_bundle_is_asked_for_the_same_queries(make_random_split, table_ranker) -> None:
    split = make_random_split(30, 25, seed=3)
    table = np.random.default_rng(1).random((30, 25)).astype(np.float32)

    class Served:
        """The bundle's contract on top of `top_k`: what is excluded comes as ragged ids."""

        def recommend(self, history: list[str], k: int = 10) -> None: ...

        def recommend_ids(self, histories: Histories, exclude: Histories, k: int) -> Recommendations:
            scores = table[histories.users].copy()
            scores[np.repeat(np.arange(len(exclude)), exclude.lengths), exclude.items] = -np.inf
            return Recommendations(histories.users, *top_k(scores, k))

    for seen in ("drop", "keep"):
        served = recommend_bundle(Served(), split, "test", 6, seen=seen, batch_size=7)
        expected = recommend(table_ranker(table), split, "test", 6, seen=seen)
        np.testing.assert_array_equal(served.items, expected.items)
        np.testing.assert_array_equal(served.scores, expected.scores)


_MEMORY = """
import resource, sys
import numpy as np
sys.path.insert(0, {folder!r})
from core_world import split_of
from distilrec.evaluation.metrics import evaluate_groups, evaluate_lists
from distilrec.evaluation.rank import recommend

users, items, dim = 6040, 100_000, 32
rng = np.random.default_rng(0)
events = rng.integers(0, items, (users, 10)).tolist()
split = split_of([(row[:8], row[8:9], row[9:]) for row in events], items)

class InnerProduct:
    name, parameters = "inner product", (users + items) * dim
    left = rng.standard_normal((users, dim), dtype=np.float32)
    right = rng.standard_normal((items, dim), dtype=np.float32)
    def scores(self, histories):
        return self.left[histories.users] @ self.right.T

result = recommend(InnerProduct(), split, "test", 100)
values = evaluate_lists(result, split, "test")
groups = evaluate_groups(result, split, "test")
assert len(result) == users and (result.items >= 0).all()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10)
"""


def test_peak_memory_of_a_large_evaluation() -> None:
    """6,040 users x 100,000 items (2.4 GB of scores) in a fresh process stays below 1.5 GB."""
    script = _MEMORY.format(folder=str(Path(__file__).parents[1]))
    source = str(Path(distilrec.errors.__file__).parents[1])
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=300,
        env={**os.environ, "PYTHONPATH": source},
    )
    assert done.returncode == 0, done.stderr
    assert float(done.stdout) < 1536, f"{float(done.stdout):.0f} MB"
