"""Small worlds for the tests of this room."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from distilrec.evaluation.report import ModelResult, build_report
from distilrec.types import Dataset, Histories, Interactions, Split


def build_split(events: list[tuple[list[int], list[int], list[int]]], n_items: int) -> Split:
    """A split from one (train, valid, test) triple of item ids per user."""
    flat, bounds = [], []
    for parts in events:
        edges = [len(flat)]
        for part in parts:
            flat.extend(part)
            edges.append(len(flat))
        bounds.append(edges)
    n = len(flat)
    lengths = [edges[-1] - edges[0] for edges in bounds]
    items = np.array(flat, dtype=np.int32)
    ones, times = np.ones(n, dtype=np.float32), np.arange(n, dtype=np.int64)
    users = np.repeat(np.arange(len(events), dtype=np.int32), lengths)
    dataset = Dataset(
        "world", Interactions(users, items, ones, times),
        np.array([f"u{u}" for u in range(len(events))], dtype=object),
        np.array([f"i{i}" for i in range(n_items)], dtype=object),
    )
    return Split(dataset, "given", items, times, ones, np.array(bounds, dtype=np.int64).reshape(-1, 4))


def random_split(users: int, items: int, seed: int, tests: int = 3) -> Split:
    """Each user has 2 to 8 distinct items for train, 1 for valid and 1 to `tests` for test; low ids are popular."""
    rng = np.random.default_rng(seed)
    weights = 1.0 / np.arange(1, items + 1)
    events = []
    for _ in range(users):
        n_train, n_test = int(rng.integers(2, 9)), int(rng.integers(1, tests + 1))
        drawn = rng.choice(items, n_train + 1 + n_test, replace=False, p=weights / weights.sum()).tolist()
        events.append((drawn[:n_train], drawn[n_train:n_train + 1], drawn[n_train + 1:]))
    return build_split(events, items)


class TableRanker:
    """Scores by user from a fixed table: every test knows what the right list is."""

    def __init__(self, table: np.ndarray, name: str = "table") -> None:
        self.table, self.name = table, name
        self.batches: list[int] = []

    def scores(self, histories: Histories) -> np.ndarray:
        self.batches.append(len(histories))
        return self.table[histories.users]

    @property
    def parameters(self) -> int:
        return self.table.size


@pytest.fixture
def make_split() -> Callable[..., Split]:
    return build_split


@pytest.fixture
def make_random_split() -> Callable[..., Split]:
    return random_split


@pytest.fixture
def table_ranker() -> type[TableRanker]:
    return TableRanker


def build_models(users: int = 400, seeds: int = 2) -> list[ModelResult]:
    """Teacher better than student better than control on most users; a baseline of one seed far behind."""
    rng = np.random.default_rng(0)
    luck = rng.random(users)

    def model(name: str, role: str, rate: float, parameters: int, runs: int = seeds, **more: Any) -> ModelResult:
        gains = np.stack([np.where(luck < rate, 1.0, 0.0) * rng.uniform(0.5, 1.0, users) for _ in range(runs)])
        tail = np.arange(users) % 5 == 0
        return ModelResult(
            name, role, {"ndcg@10": gains, "recall@10": (gains > 0) * 1.0}, parameters,
            valid={"ndcg@10": [rate] * runs},
            groups={"head": {"ndcg@10": np.where(tail, np.nan, gains)},
                    "tail": {"ndcg@10": np.where(tail, gains, np.nan)}},
            catalog={"coverage@10": [0.4] * runs}, **more,
        )

    fast, slow = {"p50": 0.05, "p99": 0.09}, {"p50": 0.9, "p99": 1.8}
    curves = [{"seed": seed, "step": 10 * i, "seconds": float(i), "loss": 3.0 / i, "valid": 0.1 * i}
              for seed in range(seeds) for i in range(1, 4)]
    return [
        model("big", "teacher", 0.40, 4_000_000, bytes=16_000_000, train_seconds=400.0, latency_ms=slow),
        model("small", "student", 0.36, 400_000, bytes=1_600_000, train_seconds=45.0, latency_ms=fast, curves=curves),
        model("alone", "control", 0.25, 400_000, bytes=1_600_000, train_seconds=44.0, latency_ms=fast),
        model("popular", "baseline", 0.05, 500, runs=1),
    ]


def build_sample_report(models: list[ModelResult] | None = None, **more: Any) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "task": "rank", "recipe": {"name": "sample"},
        "dataset": {"name": "sample", "digest": "ab12", "users": 400, "items": 50, "interactions": 4000},
        "protocol": {"split": "leave-last-out", "candidates": "full", "selection": "validation", "seeds": [0, 1],
                     "k": [10], "seen": "drop"},
        "models": build_models() if models is None else models, "metric": "ndcg@10",
        "lineage": {"teacher": {"digest": "cd34"}}, "resamples": 500,
    }
    return build_report(**{**arguments, **more})


@pytest.fixture
def make_models() -> Callable[..., list[ModelResult]]:
    return build_models


@pytest.fixture
def make_report() -> Callable[..., dict[str, Any]]:
    return build_sample_report
