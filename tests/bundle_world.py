"""A small world and small students whose weights are drawn, so that every list is different from the next."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch
from torch import nn

from distilrec.bundle.export import export
from distilrec.bundle.runtime import Bundle, load
from distilrec.models.sasrec import SASRec
from distilrec.types import Dataset, Interactions, Split

ITEMS = 83


def build_split(n_items: int = ITEMS, n_users: int = 12, length: int = 6, *, titles: bool = True) -> Split:
    rng = np.random.default_rng(0)
    n = n_users * length
    items = rng.integers(0, n_items, n).astype(np.int32)
    users = np.repeat(np.arange(n_users, dtype=np.int32), length)
    ones, times = np.ones(n, dtype=np.float32), np.arange(n, dtype=np.int64)
    content = pa.table({"title": [f"Title <{i}>" if i % 5 else None for i in range(n_items)]}) if titles else None
    dataset = Dataset(
        "world", Interactions(users, items, ones, times),
        np.array([f"user-{u}" for u in range(n_users)], dtype=object),
        np.array([f"item-{i}" for i in range(n_items)], dtype=object), items=content,
    )
    starts = np.arange(n_users) * length
    bounds = np.stack([starts, starts + length - 2, starts + length - 1, starts + length], axis=1)
    return Split(dataset, "given", items, times, ones, bounds)


def shuffle_weights(model: nn.Module, seed: int = 0) -> nn.Module:
    """Every parameter and buffer gets values of its own: equal ones would be stored once and hide mistakes."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for tensor in (*model.parameters(), *model.buffers()):
            if tensor.is_floating_point():
                tensor.add_(torch.randn(tensor.shape, generator=generator) * 0.3)
    return model.eval()


@pytest.fixture(scope="session")
def split() -> Split:
    return build_split()


@pytest.fixture(scope="session")
def student() -> nn.Module:
    return shuffle_weights(SASRec(ITEMS, dim=8, max_length=9, bias=True))


@pytest.fixture(scope="session")
def bundle_path(student: nn.Module, split: Split, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundles") / "world.bundle"
    return export(student, split, path, card="# World\n", metadata={"student": "small", "seed": 3})


@pytest.fixture
def bundle(bundle_path: Path) -> Bundle:
    return load(bundle_path)
