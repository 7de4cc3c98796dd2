from __future__ import annotations

from datetime import date, datetime

import polars as pl
import pytest

from distilrec.data.read import LINE
from distilrec.data.rows import plain_keys, standardize
from distilrec.errors import DataError


def log(**columns):
    n = len(next(iter(columns.values())))
    return pl.DataFrame({"user_id": ["u"] * n, "item_id": list(range(n)), **columns}, strict=False)


def test_bad_rows_are_set_aside_with_line_and_reason():
    frame = pl.DataFrame(
        {
            "user_id": ["a", "", "b", "c", None, "d", "e", "f", "g", "h", "i", "j", "k"],
            "item_id": ["1"] * 12 + [" "],
            "timestamp": ["5", "6", "x", "-7", "8", "9", None, "nan", "1", "2", "3", "4", "5"],
            "rating": ["1", "1", "1", "1", "1", "nan", "2", "3", "inf", "4", "good", None, "1"],
        }
    )
    rows, bad = standardize(frame, None, "log.csv")
    assert rows["user_id"].to_list() == ["a", "e", "h", "j"]  # a null time or rating is no fault
    assert bad.select("file", "line").rows() == [("log.csv", n) for n in (2, 3, 4, 5, 6, 8, 9, 11, 13)]
    assert bad["reason"].to_list() == [
        "user_id is empty",
        "timestamp is not a number or a date",
        "timestamp is negative",
        "user_id is empty",
        "rating is not a finite number",
        "timestamp is not a number or a date",
        "rating is not a finite number",
        "rating is not a finite number",
        "item_id is empty",
    ]
    assert "'good'" in bad["content"][7]


def test_lines_of_the_file_are_kept():
    frame = pl.DataFrame({"user_id": ["a", None, "b"], "item_id": [1, 2, 3], LINE: [10, 11, 14]})
    rows, bad = standardize(frame, None, "f")
    assert rows[LINE].to_list() == [10, 14]
    assert bad["line"].to_list() == [11]


@pytest.mark.parametrize(
    ("values", "seconds"),
    [
        ([1_600_000_000, 1_600_000_001], [1_600_000_000, 1_600_000_001]),
        ([1_600_000_000_500, 1_600_000_000_900], [1_600_000_000, 1_600_000_000]),
        ([1_600_000_000_500_000], [1_600_000_000]),
        ([1_600_000_000_500_000_000], [1_600_000_000]),
        ([1.6e9 + 0.25, 1.6e9 + 0.75], [1_600_000_000, 1_600_000_000]),
        (["1600000000", "1600000001"], [1_600_000_000, 1_600_000_001]),
        (["2020-09-13", "2020-09-14"], [1_599_955_200, 1_600_041_600]),
        ([datetime(2020, 9, 13, 12, 26, 40)], [1_600_000_000]),
        ([date(1970, 1, 2)], [86_400]),
    ],
)
def test_times_in_every_unit(values, seconds):
    rows, bad = standardize(log(timestamp=values), None, "f")
    assert rows["timestamp"].to_list() == seconds
    assert bad.height == 0
    assert rows["_fine"].is_sorted()
    assert rows["_fine"].n_unique() == len(values)


@pytest.mark.parametrize(
    ("column", "values", "message"),
    [
        ("timestamp", ["soon", "later"], "timestamp is not a number"),
        ("timestamp", [[1], [2]], "has type List"),
        ("rating", ["good", "bad"], "rating is not a finite number"),
        ("seq_pos", [-1, -2], "seq_pos is negative"),
        ("user_id", [[1], [2]], "has type List"),
        ("user_id", ["", None], "user_id is empty"),
    ],
)
def test_a_column_of_the_wrong_type_is_refused(column, values, message):
    with pytest.raises(DataError, match=message):
        standardize(log(x=[0, 0]).with_columns(pl.Series(column, values)), None, "f")


def test_columns_by_name():
    frame = pl.DataFrame({"customer": [1], "sku": ["x"]})
    rows, _ = standardize(frame, {"user_id": "customer", "item_id": "sku"}, "f")
    assert rows.select("user_id", "item_id").rows() == [(1, "x")]
    with pytest.raises(DataError, match="lacks the column 'user_id'"):
        standardize(frame, None, "f")
    with pytest.raises(DataError, match="'custmer', did you mean 'customer'"):
        standardize(frame, {"user_id": "custmer", "item_id": "sku"}, "f")
    with pytest.raises(DataError, match="unknown role 'usr_id', did you mean 'user_id'"):
        standardize(frame, {"usr_id": "customer"}, "f")


@pytest.mark.parametrize(
    ("keys", "plain"),
    [
        (["10", "9"], [10, 9]),
        (["10", "x"], ["10", "x"]),
        (["007", "7"], ["007", "7"]),
        ([1.0, 2.0, float("nan")], [1, 2, None]),
        ([1.5], ["1.5"]),
        (["a", " "], ["a", None]),
        (["99999999999999999999"], ["99999999999999999999"]),
    ],
)
def test_plain_keys(keys, plain):
    assert plain_keys(pl.Series("k", keys)).to_list() == plain
