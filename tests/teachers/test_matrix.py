"""Sources of outside models: raw numbers, encoded columns, one column per value, counts."""

from __future__ import annotations

import numpy as np
import pytest

from distilrec.errors import DataError
from distilrec.teachers.matrix import arrays, frame, matrix
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
