"""List-wide measures against hand values and naive loops."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from distilrec.errors import DataError
from distilrec.evaluation.catalog import (
    co_occurrence_vectors,
    coverage,
    diversity,
    evaluate_catalog,
    gini,
    novelty,
)
from distilrec.types import Recommendations


def test_coverage_and_gini_by_hand() -> None:
    lists = np.array([[0, 1], [0, -1]])
    assert coverage(lists, 4, 2) == 0.5
    assert coverage(lists, 4, 1) == 0.25
    # shown 0, 0, 1, 2: (-3*0 - 1*0 + 1*1 + 3*2) / (4 * 3)
    assert gini(lists, 4, 2) == pytest.approx(7 / 12)
    assert gini(np.array([[0], [1], [2], [3]]), 4, 1) == 0.0
    assert gini(np.array([[2], [2]]), 4, 1) == 0.75  # one item always: 1 - 1/I
    assert gini(np.array([[-1]]), 4, 1) == 0.0
    with pytest.raises(DataError, match="ids below 4"):
        coverage(np.array([[4]]), 4, 1)


def test_novelty_by_hand() -> None:
    # counts plus one: 4, 2, 2 of 8, so 1, 2 and 2 bits
    values = novelty(np.array([[0, 1], [1, 2], [0, -1], [-1, -1]]), np.array([3, 1, 1]), 2)
    np.testing.assert_allclose(values, [1.5, 2.0, 1.0, np.nan])


def test_diversity_against_all_pairs() -> None:
    rng = np.random.default_rng(0)
    vectors = rng.standard_normal((30, 5)).astype(np.float32)
    vectors[3] = 0.0
    lists = np.array([rng.permutation(30)[:8] for _ in range(50)])
    lists[0, 1:] = -1
    expected = []
    for row in lists:
        usable = [vectors[i].astype(float) for i in row if i >= 0 and i != 3]
        pairs = [1 - a @ b / math.sqrt((a @ a) * (b @ b)) for a, b in itertools.combinations(usable, 2)]
        expected.append(np.mean(pairs) if pairs else np.nan)
    np.testing.assert_allclose(diversity(lists, vectors, 8), expected, atol=1e-6)
    assert np.isnan(expected[0])


def test_diversity_by_co_occurrence(make_split) -> None:
    """Items 0 and 1 share both users, 2 belongs to another one, 3 to nobody."""
    split = make_split([([0, 1, 0], [], [2]), ([0, 1], [], [2]), ([2], [], [0])], 4)
    vectors = co_occurrence_vectors(split)
    assert vectors.toarray().tolist() == [[1, 1, 0], [1, 1, 0], [0, 0, 1], [0, 0, 0]]
    lists = np.array([[0, 1, -1], [0, 2, -1], [0, 1, 2], [0, 3, -1]])
    np.testing.assert_allclose(diversity(lists, vectors, 3), [0, 1, 2 / 3, np.nan], atol=1e-12)


def test_evaluate_catalog_names(make_split) -> None:
    split = make_split([([0, 1], [], [2]), ([1, 2], [], [0])], 4)
    items = np.array([[0, 1], [1, 3]], np.int32)
    lists = Recommendations(np.arange(2, dtype=np.int32), items, np.zeros((2, 2), np.float32))
    values = evaluate_catalog(lists, split, [1, 2])
    # with one item a list has no pair, so diversity@1 has no value and is left out
    names = {f"{name}@{k}" for name in ("coverage", "gini", "novelty", "diversity") for k in (1, 2)}
    assert set(values) == names - {"diversity@1"}
    assert values["coverage@2"] == 0.75
    assert evaluate_catalog(lists, split, [2], np.eye(4))["diversity@2"] == pytest.approx(1.0)
