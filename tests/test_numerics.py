"""Numbers that several rooms need: exact order under ties, in blocks."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from distilrec import numerics
from distilrec.errors import DataError
from distilrec.numerics import block_rows, top_k


def naive_top(row: np.ndarray, k: int) -> tuple[list[int], list[float]]:
    order = [int(i) for i in sorted(range(len(row)), key=lambda i: (-row[i], i)) if row[i] > -np.inf][:k]
    missing = k - len(order)
    return order + [-1] * missing, [float(row[i]) for i in order] + [-np.inf] * missing


@given(
    npst.arrays(np.float32, st.tuples(st.integers(0, 5), st.integers(1, 30)),
                elements=st.sampled_from([-np.inf, -1.0, -0.0, 0.0, 0.5, 0.5000001, 2.0, np.inf])),
    st.integers(1, 35),
)
@settings(max_examples=300, deadline=None)
def test_top_k_is_the_sorted_order(scores: np.ndarray, k: int) -> None:
    items, best = top_k(scores, k)
    for row, got, values in zip(scores, items, best, strict=True):
        want, want_values = naive_top(row, k)
        assert got.tolist() == want
        assert values.tolist() == want_values


def test_top_k_over_many_blocks_with_heavy_ties() -> None:
    scores = np.random.default_rng(0).integers(0, 50, (700, 5000)).astype(np.float32)
    items, best = top_k(scores, 30)
    expected = np.argsort(-scores, axis=1, kind="stable")[:, :30]
    np.testing.assert_array_equal(items, expected)
    np.testing.assert_array_equal(best, np.take_along_axis(scores, expected, axis=1))
    assert items.dtype == np.int32 and best.dtype == np.float32


def test_nan_is_an_error() -> None:
    with pytest.raises(DataError, match="NaN among the scores of 1 of 2"):
        top_k(np.array([[0.0, 1.0], [np.nan, -np.inf]]), 1)
    with pytest.raises(DataError):
        top_k(np.zeros(3), 1)


def test_blocks_are_bounded_by_bytes_and_hold_at_least_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    assert block_rows(2**20) == 1
    assert block_rows(2**18) == 4
    assert block_rows(10**9) == 1
    assert block_rows(0) > 0
    scores = np.random.default_rng(0).integers(0, 5, (7, 40)).astype(np.float32)
    whole = top_k(scores, 6)
    monkeypatch.setattr(numerics, "_BLOCK_BYTES", 3 * 40 * 4)
    assert all(np.array_equal(a, b) for a, b in zip(top_k(scores, 6), whole, strict=True))
