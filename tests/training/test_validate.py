"""Ranks by counting against the lists and metrics of the evaluation room."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from core_world import split_of
from distilrec.errors import RecipeError, TrainingError
from distilrec.evaluation.metrics import METRICS as ALL
from distilrec.evaluation.rank import recommend
from distilrec.training.validate import METRICS, validate
from distilrec.types import Histories, Split

pytestmark = pytest.mark.req("A5")


class Table(nn.Module):
    """A model whose answer to a user is a row of a table: the query is one-hot, the items are the columns."""

    def __init__(self, scores: np.ndarray, bias: np.ndarray | None = None) -> None:
        super().__init__()
        self.scores = torch.as_tensor(scores, dtype=torch.float32)
        self.bias = None if bias is None else torch.as_tensor(bias, dtype=torch.float32)
        self.max_length, self.n_items = 4, scores.shape[1]

    def last(self, items: Tensor, lengths: Tensor, users: Tensor) -> Tensor:
        return torch.eye(len(self.scores))[users.long()]

    def item_vectors(self) -> Tensor:
        return self.scores.T

    def item_bias(self) -> Tensor | None:
        return self.bias


def world(seed: int, users: int = 300, items: int = 25) -> Split:
    """Repeated events, targets that the history holds, the same target twice: all that a log may do."""
    rng = np.random.default_rng(seed)
    return split_of(
        [
            (
                rng.integers(0, items, rng.integers(0, 9)).tolist(),
                rng.integers(0, items, rng.integers(0, 4)).tolist(),
                rng.integers(0, items, rng.integers(0, 5)).tolist(),
            )
            for _ in range(users)
        ],
        items,
    )


@pytest.mark.parametrize("seen", ["drop", "keep"])
@pytest.mark.parametrize("part", ["valid", "test"])
@pytest.mark.parametrize("values", [3, 10_000])
def test_equals_the_lists_and_metrics_of_the_evaluation(seen: Any, part: Any, values: int) -> None:
    split = world(values)
    rng = np.random.default_rng(1)
    table = rng.integers(0, values, (split.n_users, split.n_items)).astype(np.float32)  # three values: ties everywhere
    bias = rng.integers(0, 2, split.n_items).astype(np.float32)
    model = Table(table, bias)
    ranker: Any = SimpleNamespace(name="table", scores=lambda h: table[h.users] + bias, parameters=0)
    targets, offsets = split.targets(split.queries(part))
    for k in (1, 5, 20):
        lists = recommend(ranker, split, part, k, seen=seen).items
        for name in METRICS:
            expected = ALL[name](lists, targets, offsets, k).mean()
            assert validate(model, split, f"{name}@{k}", part=part, seen=seen) == pytest.approx(expected, abs=1e-12)


def test_many_targets_of_few_users_cross_the_blocks() -> None:
    rng = np.random.default_rng(0)
    split = split_of([([1], rng.permutation(3000)[:2500].tolist(), []) for _ in range(3)], 3000)
    table = rng.normal(size=(3, 3000)).astype(np.float32)
    ranker: Any = SimpleNamespace(name="t", scores=lambda h: table[h.users], parameters=0)
    targets, offsets = split.targets(split.queries("valid"))
    expected = ALL["ndcg"](recommend(ranker, split, "valid", 50).items, targets, offsets, 50).mean()
    assert validate(Table(table), split, "ndcg@50") == pytest.approx(expected, abs=1e-12)


def test_a_sample_of_users_is_the_same_every_time() -> None:
    split = world(5)
    model = Table(np.random.default_rng(2).normal(size=(split.n_users, split.n_items)))
    few = [validate(model, split, "ndcg@5", max_users=40, seed=seed) for seed in (0, 0, 1)]
    assert few[0] == few[1] != few[2]


def test_nan_never_looks_like_a_perfect_model() -> None:
    split = world(6)
    table = np.random.default_rng(2).normal(size=(split.n_users, split.n_items))
    table[7] = np.nan
    with pytest.raises(TrainingError, match="NaN"):
        validate(Table(table), split, "ndcg@5")


def test_nobody_to_validate_on_is_an_error() -> None:
    with pytest.raises(TrainingError, match="no events"):
        validate(Table(np.zeros((1, 4))), split_of([([1, 2], [], [3])], 4), "ndcg@5")


@pytest.mark.parametrize("metric", ["ndgc@10", "ndcg", "ndcg@0", "ndcg@x", "map@10", "@5"])
def test_other_metrics_are_refused(metric: str) -> None:
    with pytest.raises(RecipeError, match="cannot validate"):
        validate(Table(np.zeros((1, 4))), split_of([([1, 2], [3], [])], 4), metric)


def test_the_model_is_asked_with_its_latest_events() -> None:
    """`last` gets the cropped history and its length; asked is checked by answering from the last item."""
    split = split_of([(list(range(9)), [9], []), ([3], [4], [])], 12)

    class Next(Table):
        def last(self, items: Tensor, lengths: Tensor, users: Tensor) -> Tensor:
            assert items.shape[1] <= 4
            assert (items[torch.arange(len(items)), lengths - 1] == torch.tensor([[3], [8]])[:, 0]).all()
            return torch.eye(12)[items[torch.arange(len(items)), lengths - 1] + 1]

    assert validate(Next(np.eye(12)), split, "hit_rate@1") == 1.0


def test_histories_stay_as_they_are() -> None:
    split = world(8)
    before = split.items.copy()
    validate(Table(np.zeros((split.n_users, split.n_items))), split, "mrr@3")
    assert np.array_equal(split.items, before)
    assert isinstance(split.histories(split.queries("valid")), Histories)
