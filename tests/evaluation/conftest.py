"""Small worlds for the tests of this room."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

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
