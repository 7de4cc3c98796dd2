"""A small student of rows with drawn weights, as a bundle, for tests of its runtime and of its server."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import rows_world
from distilrec.bundle.row_export import export_rows
from distilrec.bundle.row_runtime import RowBundle
from distilrec.bundle.runtime import load_rows
from distilrec.features import RAGGED_KINDS, Feature
from distilrec.types_rows import Head, RowSplit

__all__ = ["Tiny", "row_bundle", "row_bundle_path", "row_split", "trained"]


class Tiny(nn.Module):
    """A linear model of every kind of feature, written along the contract of models/ and by nothing else of it."""

    def __init__(self, fields: Sequence[Feature], heads: Sequence[int]) -> None:
        super().__init__()
        total = sum(heads)
        generator = torch.Generator().manual_seed(7)

        def drawn(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(shape, generator=generator))

        self.ids = nn.ParameterList([drawn(one.size, total) for one in fields if one.kind == "category"])
        self.ragged = nn.ParameterList([drawn(one.size, total) for one in fields if one.kind in RAGGED_KINDS])
        numbers = sum(one.kind == "number" for one in fields)
        self.numbers = drawn(numbers, total) if numbers else None
        self.vectors = nn.ParameterList([drawn(one.dim, total) for one in fields if one.kind == "vector"])
        self.bias = drawn(total)

    def forward(self, inputs: Any) -> dict[str, Tensor]:
        scores = self.bias.expand(inputs.ids.shape[0], -1)
        for place, table in enumerate(self.ids):
            scores = scores + table[inputs.ids[:, place]]
        for ids, table in zip(inputs.ragged, self.ragged, strict=True):
            valid = (ids >= 0).float()[..., None]
            scores = scores + (table[ids.clamp(min=0)] * valid).sum(1) / valid.sum(1).clamp(min=1)
        if self.numbers is not None:
            scores = scores + inputs.numbers @ self.numbers
        for values, table in zip(inputs.vectors, self.vectors, strict=True):
            scores = scores + values @ table
        return {"scores": scores}


def trained(
    split: RowSplit, names: Sequence[str] | None = None, heads: tuple[Head, ...] | None = None, **changes: Any
) -> Any:
    """What an export reads of a TrainedRows, around a Tiny."""
    features = tuple(split.features[name] for name in names or split.features)
    heads = heads or split.heads
    sizes = [len(head.columns) for head in heads]
    shift = np.linspace(-0.5, 0.5, sum(sizes), dtype=np.float32)
    return SimpleNamespace(**{
        "name": "tiny", "model": Tiny(features, sizes), "features": features, "heads": heads, "shift": shift,
        "split_digest": split.digest, **changes,
    })


@pytest.fixture(scope="session")
def row_split() -> RowSplit:
    return rows_world.table(300)


@pytest.fixture(scope="session")
def row_bundle_path(row_split: RowSplit, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundles") / "rows.bundle"
    metadata = {"student": "small", "thresholds": {"tags": [0.3, 0.7], "click": 0.4}, "seed": 3}
    return export_rows(trained(row_split), row_split, path, card="# Rows\n", metadata=metadata)


@pytest.fixture
def row_bundle(row_bundle_path: Path) -> RowBundle:
    return load_rows(row_bundle_path)
