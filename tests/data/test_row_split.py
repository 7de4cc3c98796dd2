"""Splits of tables: shares, groups that stay together, time, given parts, folds, and what is refused."""

from __future__ import annotations

from datetime import date

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distilrec.data.row_split import check_classes, divide_rows, row_split_settings, split_faults
from distilrec.errors import DataError
from distilrec.types_rows import Head


def divide(frame: pl.DataFrame, given, seed: int = 0):
    return divide_rows(frame, row_split_settings(given), seed)


def numbered(n: int) -> pl.DataFrame:
    return pl.DataFrame({"row": range(n)})


def test_random_shares_by_seed():
    parts, method, counts = divide(numbered(1000), "random")
    assert np.bincount(parts).tolist() == [800, 100, 100] and method == "random" and counts == {}
    np.testing.assert_array_equal(parts, divide(numbered(1000), "random")[0])
    assert (parts != divide(numbered(1000), "random", 1)[0]).any()
    own = {"method": "random", "seed": 1, "parts": [0.5, 0.25, 0.25]}
    assert np.bincount(divide(numbered(1000), own)[0]).tolist() == [500, 250, 250]
    np.testing.assert_array_equal(divide(numbered(1000), own, 5)[0], divide(numbered(1000), own, 6)[0])


KEYS = st.lists(st.tuples(st.one_of(st.none(), st.sampled_from("abcdefgh")), st.integers(0, 5)), min_size=60,
                max_size=120)


@given(KEYS, st.sampled_from(["random", "k-fold"]), st.integers(0, 5))
@settings(max_examples=25, deadline=None)
def test_rows_that_are_equal_stay_together(keys, method, seed):
    frame = pl.DataFrame(keys, schema={"u": pl.String, "c": pl.Int64}, orient="row")
    try:
        parts, _, _ = divide(frame, {"method": method, "by": ["u", "c"]}, seed)
    except DataError:  # few groups, and one part empty
        assert frame.n_unique() < 40
        return
    for _, own in frame.with_columns(part=parts).group_by("u", "c"):
        assert own["part"].n_unique() == 1
    # the part belongs to the group, not to the place of its rows
    back, _, _ = divide(frame.reverse(), {"method": method, "by": ["u", "c"]}, seed)
    np.testing.assert_array_equal(back[::-1], parts)


def test_folds_cover_every_row_once():
    frame = pl.DataFrame({"u": np.arange(200) % 40})
    tests = np.stack([
        divide(frame, {"method": "k-fold", "fold": fold, "folds": 4, "by": "u"})[0] == 2 for fold in range(4)
    ])
    assert (tests.sum(0) == 1).all() and (tests.sum(1) == 50).all()
    parts, method, counts = divide(frame, {"method": "k-fold", "fold": 1, "folds": 4})
    assert np.bincount(parts).tolist() == [135, 15, 50] and method == "k-fold 2/4"
    assert counts == {"rows moved from train to valid": 15}


@pytest.mark.parametrize("times", [
    [5, 1, 2, 3, 4, 6, 7, 8, 9, 10],
    [date(2020, 1, day) for day in (5, 1, 2, 3, 4, 6, 7, 8, 9, 10)],
    [f"2020-01-{day:02}" for day in (5, 1, 2, 3, 4, 6, 7, 8, 9, 10)],
])
def test_time(times):
    frame = pl.DataFrame({"timestamp": times})
    parts, _, _ = divide(frame, {"method": "time", "parts": [0.6, 0.2, 0.2]})
    assert parts.tolist() == [0, 0, 0, 0, 0, 0, 1, 1, 2, 2]


def test_moments_stay_together_and_rows_without_time_are_dropped():
    frame = pl.DataFrame({"t": [1.0, 1.0, 2.0, 2.0, 2.0, 3.0, 3.0, None, float("nan")]})
    parts, _, counts = divide(frame, {"method": "time", "column": "t", "parts": [0.3, 0.4, 0.3]})
    assert parts.tolist() == [0, 0, 1, 1, 1, 2, 2, -1, -1]
    assert counts == {"dropped: rows without time": 2}


def test_given():
    frame = pl.DataFrame({"split": ["train", "Valid", "test", None, "train "]})
    parts, method, counts = divide(frame, "given")
    assert parts.tolist() == [0, 1, 2, -1, 0] and method == "given"
    assert counts == {"dropped: rows without a part": 1}


def test_given_without_validation_is_carved_by_groups():
    frame = pl.DataFrame({"split": ["train"] * 100 + ["test"] * 10, "u": np.arange(110) // 5})
    parts, method, counts = divide(frame, {"method": "given", "by": "u"})
    assert "carved" in method and counts == {"rows moved from train to valid": 10}
    assert frame.with_columns(part=parts).group_by("u").agg(pl.col("part").n_unique())["part"].max() == 1
    few = pl.DataFrame({"split": ["train"] * 3 + ["test"]})
    assert np.bincount(divide(few, "given")[0]).tolist() == [2, 1, 1]


@pytest.mark.parametrize(("frame", "given", "said"), [
    (numbered(9), "given", "needs the column 'split'"),
    (numbered(9), {"method": "random", "by": "rw"}, "did you mean 'row'"),
    (pl.DataFrame({"split": ["train", "tset"]}), "given", "holds 'tset'"),
    (pl.DataFrame({"split": ["valid", "test"]}), "given", "leaves train empty"),
    (pl.DataFrame({"split": ["train", "valid", "test"], "u": [1, 2, 1]}), {"method": "given", "by": "u"},
     "1 groups of equal u have rows in several parts"),
    (pl.DataFrame({"timestamp": range(10), "u": [0, 1] * 5}), {"method": "time", "by": ["u"]}, "2 groups"),
    (pl.DataFrame({"timestamp": [1] * 10}), "time", "empty"),
    (pl.DataFrame({"timestamp": ["soon"] * 10}), "time", "no dates"),
    (pl.DataFrame({"timestamp": [[1]] * 10}), "time", "of type List"),
    (pl.DataFrame({"u": [1] * 10}), {"method": "random", "by": "u"}, "1 groups"),
    (pl.DataFrame({"u": [1, 2] * 5}), {"method": "k-fold", "by": "u"}, "5 folds of 2 groups"),
])
def test_refused(frame, given, said):
    with pytest.raises(DataError, match=said):
        divide(frame, given)


@pytest.mark.parametrize(("given", "places"), [
    ("randm", ["method"]), (3, [""]), ({"method": "random", "parts": [0.5, 0.5, 0.5]}, ["parts"]),
    ({"method": "random", "parts": [1, 0, 0], "bye": 1}, ["parts", "bye"]),
    ({"method": "k-fold", "fold": 5}, ["fold"]), ({"method": "k-fold", "folds": 1}, ["folds"]),
    ({"method": "given", "carve": 1.5, "column": 3, "by": 3}, ["carve", "column", "by"]),
    ({"method": "random", "seed": -1}, ["seed"]),
])
def test_faults_of_settings(given, places):
    assert [".".join(place) for place, _, _ in split_faults(given)] == places
    with pytest.raises(DataError, match="split"):
        row_split_settings(given)


def test_parts_of_one_class():
    parts = np.array([0, 0, 1, 1, 2, 2], dtype=np.int8)
    click = Head("click")
    check_classes(parts, (click,), {"click": np.float32([[0], [1], [0], [1], [0], [1]])})
    with pytest.raises(DataError, match="valid has only the label 1 in 2 rows of 'click'; test has no label of"):
        check_classes(parts, (click,), {"click": np.float32([[0], [1], [1], [1], [np.nan], [np.nan]])})
    two = {"click": np.float32([[0], [1], [1], [1], [0], [1]]), "buy": np.float32([[0], [1], [0], [0], [0], [0]])}
    check_classes(parts, (click, Head("buy")), two)  # beside another head only train counts
    two["buy"][:] = 0
    with pytest.raises(DataError, match="train has only the label 0 in 2 rows of 'buy'"):
        check_classes(parts, (click, Head("buy")), two)


def test_more_folds_than_a_byte_counts():
    for fold in (0, 150, 299):
        parts, _, _ = divide(numbered(600), {"method": "k-fold", "folds": 300, "fold": fold})
        assert (parts == 2).sum() == 2


def test_a_number_head_needs_a_label_in_train():
    parts = np.array([0, 1, 2], dtype=np.int8)
    with pytest.raises(DataError, match="train has no label of 'stars'"):
        check_classes(parts, (Head("stars", "number"),), {"stars": np.float32([[np.nan], [1], [2]])})
