"""A table with one click head, and a true logit of it that every kind of teacher can be made to answer."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import rows_world
from distilrec.types_rows import Head, RowSplit


@pytest.fixture(scope="session")
def clicks() -> RowSplit:
    """300 rows with the head `click` alone; a price and an item are missing here and there."""
    return rows_world.table(300, heads=(Head("click"),))


@pytest.fixture(scope="session")
def both() -> RowSplit:
    """300 rows with a click and a rating."""
    return rows_world.table(300, heads=(Head("click"), Head("rating", "number")))


@pytest.fixture(scope="session")
def other(clicks: RowSplit) -> RowSplit:
    """The same rows with other labels."""
    return dataclasses.replace(clicks, labels={"click": 1 - clicks.labels["click"]})


@pytest.fixture(scope="session")
def everything(clicks: RowSplit) -> np.ndarray:
    return np.arange(len(clicks))
