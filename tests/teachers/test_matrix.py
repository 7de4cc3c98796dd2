"""Sources of outside models: raw numbers, encoded columns, one column per value, counts."""

from __future__ import annotations

import dataclasses

import numpy as np
import pyarrow as pa
import pytest

from distilrec.errors import DataError
from distilrec.teachers.matrix import arrays, frame, matrix, named_or_matrix
from distilrec.types_rows import RowSplit


def test_every_kind_of_source_side_by_side(clicks: RowSplit) -> None:
    rows = np.array([5, 0, 17])
    values, names = matrix(clicks, rows, ["price", "encoded:item", "hot:colors", "count:past", "encoded:picture"])
    assert names == ["price", "item", "colors=red", "colors=green", "colors=blue", "past (count)",
                     "picture[0]", "picture[1]", "picture[2]"]
    assert values.dtype == np.float32
    raw = clicks.raw.to_pylist()
    for place, row in enumerate(rows):
        one = raw[row]
        assert values[place, 0] == pytest.approx(one["price"] if one["price"] is not None else np.nan, nan_ok=True)
        assert values[place, 1] == clicks.columns["item"][row]
        assert values[place, 2:5].tolist() == [float(color in one["colors"]) for color in ("red", "green", "blue")]
        assert values[place, 5] == min(4, len(one["past"]))
        assert values[place, 6:] == pytest.approx(one["picture"] or [0, 0, 0])


def test_a_missing_raw_number_is_nan_and_an_encoded_one_is_0(clicks: RowSplit) -> None:
    row = np.flatnonzero([one is None for one in clicks.raw.column("price").to_pylist()])[:1]
    assert np.isnan(matrix(clicks, row, ["price"])[0]).all()
    assert matrix(clicks, row, ["encoded:price"])[0].tolist() == [[0.0]]


def test_named_inputs_keep_their_types(clicks: RowSplit) -> None:
    rows = np.array([3, 1])
    given = arrays(clicks, rows, {"i": "encoded:item", "p": "encoded:past", "t": "title", "m": ["price", "hot:colors"]})
    assert given["i"].dtype == np.int32 and given["i"].shape == (2,)
    assert (given["p"] == clicks.columns["past"][rows]).all()
    assert given["t"].dtype == object and given["t"][1] == clicks.raw.column("title")[1].as_py()
    assert given["m"].shape == (2, 4)


def test_no_columns_and_no_rows(clicks: RowSplit) -> None:
    assert matrix(clicks, np.arange(4), [])[0].shape == (4, 0)
    assert matrix(clicks, np.arange(0), ["price", "hot:colors"])[0].shape == (0, 4)


@pytest.mark.parametrize(("source", "text"), [
    ("prise", "no raw column 'prise', did you mean 'price'"),
    ("encoded:itm", "no feature 'itm', did you mean 'item'"),
    ("hot:price", "'price' is a number"),
    ("encoded:colors", "write hot:colors or count:colors"),
    ("item", "holds string.*write encoded:item"),
    ("colors", "holds list.*write hot:colors"),
])
def test_sources_that_cannot_be_numbers_say_what_to_write(source: str, text: str, clicks: RowSplit) -> None:
    with pytest.raises(DataError, match=f"(?s){text}"):
        matrix(clicks, np.arange(3), [source])


def test_pandas_is_asked_for_by_name_only(clicks: RowSplit) -> None:
    try:
        import pandas  # noqa: F401
    except ImportError:
        with pytest.raises(DataError, match="pip install pandas"):
            frame(clicks, np.arange(3), "pandas")
    else:
        assert frame(clicks, np.arange(3), "pandas").shape == (3, 7)


@pytest.fixture
def seconds(clicks: RowSplit) -> RowSplit:
    """With a raw column of Unix seconds, and one of the same where some are missing."""
    times = pa.array(np.arange(300) + 1_700_000_001)
    gaps = pa.array([None if i % 7 == 0 else 1_700_000_001.0 + i for i in range(300)])
    return dataclasses.replace(clicks, raw=clicks.raw.append_column("seen_at", times).append_column("gaps", gaps))


def test_whole_numbers_that_float32_makes_equal_are_refused(seconds: RowSplit) -> None:
    rows = np.arange(1, 5)
    for column in ("seen_at", "gaps"):
        with pytest.raises(DataError, match=rf"(?s)'{column}' holds 17000000\d\d.*encoded:{column}"):
            matrix(seconds, rows, ["price", column])
        with pytest.raises(DataError, match=column):
            arrays(seconds, rows, {"x": ["price", column]})
        with pytest.raises(DataError, match=column):
            named_or_matrix([column])(seconds, rows)
    assert matrix(seconds, rows, ["seen_at"], np.float64)[0][:, 0].tolist() == (rows + 1_700_000_001).tolist()
    assert arrays(seconds, rows, {"x": ["seen_at"]}, wide=["x"])["x"][:, 0].tolist() == (rows + 1_700_000_001).tolist()
    assert arrays(seconds, rows, {"x": "seen_at"})["x"].dtype == np.int64


def test_fractions_and_whole_numbers_that_fit_are_taken(clicks: RowSplit) -> None:
    values = [2.0**24, -(2.0**24), 2.0**40, 1e9 + 0.3, float("nan"), float("inf")]  # 2^40 is a float32
    raw = clicks.raw.append_column("some", pa.array([*values, *[0.0] * 294]))
    found = matrix(dataclasses.replace(clicks, raw=raw), np.arange(6), ["some"])[0][:, 0]
    assert found == pytest.approx(np.array(values, dtype=np.float32), nan_ok=True)
