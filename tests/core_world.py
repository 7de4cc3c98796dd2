"""Small splits for the tests of models, losses, training, knowledge and teachers, and one quick way to train."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from distilrec.training.settings import TrainSettings
from distilrec.types import Dataset, Interactions, Split

Parts = tuple[Sequence[int], Sequence[int], Sequence[int]]


def split_of(users: Sequence[Parts], n_items: int, name: str = "world") -> Split:
    """A split from one (train, valid, test) triple of item ids per user."""
    flat = [item for parts in users for part in parts for item in part]
    sizes = np.array([[len(part) for part in parts] for parts in users], dtype=np.int64).reshape(-1, 3)
    stops = np.cumsum(sizes.ravel()).reshape(-1, 3)
    bounds = np.concatenate([stops[:, :1] - sizes[:, :1], stops], axis=1)
    items = np.array(flat, dtype=np.int32)
    ones, times = np.ones(len(flat), dtype=np.float32), np.arange(len(flat), dtype=np.int64)
    owner = np.repeat(np.arange(len(users), dtype=np.int32), sizes.sum(1))
    dataset = Dataset(
        name,
        Interactions(owner, items, ones, times),
        np.array([f"u{u}" for u in range(len(users))], dtype=object),
        np.array([f"i{i}" for i in range(n_items)], dtype=object),
    )
    return Split(dataset, "given", items, times, ones, bounds)


def walk_split(users: int = 60, items: int = 30, length: int = 9, seed: int = 0) -> Split:
    """Users walk round a ring of items, one or two steps at a time: there is something to learn from the order."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(users):
        n = int(rng.integers(max(3, length - 3), length + 4))
        walk = ((rng.integers(items) + np.cumsum(rng.integers(1, 3, n))) % items).tolist()
        rows.append((walk[:-2], walk[-2:-1], walk[-1:]))
    return split_of(rows, items)


def checkerboard(users: int = 60, items: int = 20, seed: int = 0) -> Split:
    """User u likes the items of its own parity in an order of its own; the withheld test item is the diagonal one.

    Of the items of its parity only that one is left unseen, so it must come first.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(users):
        diagonal = user % items
        liked = rng.permutation([i for i in range(items) if i % 2 == user % 2 and i != diagonal]).tolist()
        rows.append((liked[:-1], liked[-1:], [diagonal]))
    return split_of(rows, items)


def quick(**changes: object) -> TrainSettings:
    """Settings that learn a small world in a second."""
    return TrainSettings(**{"epochs": 12, "batch_size": 16, "learning_rate": 1e-2, "negatives": "full", **changes})  # type: ignore[arg-type]
