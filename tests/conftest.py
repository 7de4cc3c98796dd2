"""Shared fixtures: where the real data are, and a tiny split."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from distilrec.data import prepare
from distilrec.types import Split


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Without DISTILREC_DATA the tests on real data are deselected with one line; with CI=true that is an error."""
    if os.environ.get("DISTILREC_DATA"):
        return
    needing = [item for item in items if item.get_closest_marker("data")]
    if not needing:
        return
    if os.environ.get("CI") == "true":
        raise pytest.UsageError(
            f"{len(needing)} tests need real data: set DISTILREC_DATA to their folder (CI=true skips nothing)"
        )
    config.hook.pytest_deselected(items=needing)
    items[:] = [item for item in items if item not in set(needing)]
    if not hasattr(config, "workerinput"):
        print(f"\n{len(needing)} tests on real data are deselected: DISTILREC_DATA is not set")


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder of the real data sets. Read in place, never written."""
    root = Path(os.environ["DISTILREC_DATA"])
    if not root.is_dir():
        pytest.fail(f"DISTILREC_DATA names {root}, which is no folder")
    return root


@pytest.fixture(scope="session")
def tiny_split() -> Callable[..., Split]:
    """tiny_split(users=8, items=12, events=6, seed=0, split="leave-last-out"): `events` items for each user."""

    def make(users: int = 8, items: int = 12, events: int = 6, seed: int = 0, split: str = "leave-last-out") -> Split:
        random = np.random.default_rng(seed)
        # every item occurs: the first ones are dealt out in turn, the others drawn
        chosen = [
            np.unique(np.r_[np.arange(u, items, users), random.permutation(items)], return_index=True)
            for u in range(users)
        ]
        order = [
            np.r_[np.arange(u, items, users), random.permutation(items)][np.sort(index)][:events]
            for u, (_, index) in enumerate(chosen)
        ]
        log = pl.DataFrame(
            {
                "user_id": np.repeat([f"u{u}" for u in range(users)], events),
                "item_id": [f"i{i:03d}" for i in np.concatenate(order)],
                "timestamp": np.tile(np.arange(events), users) * 60 + 1_000_000_000,
            }
        )
        table = pl.DataFrame(
            {"item_id": [f"i{i:03d}" for i in range(items)], "title": [f"thing number {i}" for i in range(items)]}
        )
        return prepare(log, items=table, split=split, name="tiny", seed=seed)

    return make
