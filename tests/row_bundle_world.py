"""A small student of rows with drawn weights, as a bundle, for tests of its runtime and of its server."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import rows_world
from bundle_world import shuffle_weights
from distilrec.bundle.row_export import export_rows
from distilrec.bundle.row_runtime import RowBundle
from distilrec.bundle.runtime import load_rows
from distilrec.models.predictor import TrainedRows, create_rows, features_read
from distilrec.types_rows import RowSplit

__all__ = ["row_bundle", "row_bundle_path", "row_split", "row_student", "trained"]


def trained(
    split: RowSplit, architecture: str = "fm", names: list[str] | None = None, **settings: Any
) -> TrainedRows:
    """A model of the split with drawn weights, and a calibration that would be seen if it were left out."""
    model, settings = create_rows(architecture, split, settings, names)
    size = split.outputs.size
    return TrainedRows(
        "tiny", shuffle_weights(model, 7), architecture, settings, features_read(split, names), split.heads,
        split.digest, scale=np.linspace(0.8, 1.2, size), shift=np.linspace(-0.5, 0.5, size),
    )


@pytest.fixture(scope="session")
def row_split() -> RowSplit:
    return rows_world.table(300)


@pytest.fixture(scope="session")
def row_student(row_split: RowSplit) -> TrainedRows:
    return trained(row_split, dim=4)


@pytest.fixture(scope="session")
def row_bundle_path(row_student: TrainedRows, row_split: RowSplit, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundles") / "rows.bundle"
    metadata = {"student": "small", "thresholds": {"tags": [0.3, 0.7], "click": 0.4}, "seed": 3}
    return export_rows(row_student, row_split, path, card="# Rows\n", metadata=metadata)


@pytest.fixture
def row_bundle(row_bundle_path: Path) -> RowBundle:
    return load_rows(row_bundle_path)
