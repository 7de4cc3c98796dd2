"""Reading tables of examples: formats, libFM, joins, types, and rows set aside with a reason."""

from __future__ import annotations

import numpy as np
import polars as pl
import pyarrow as pa
import pytest
from sklearn.datasets import dump_svmlight_file

from distilrec.data.read import LINE
from distilrec.data.row_table import join, libfm, read_rows, settle
from distilrec.errors import DataError

FRAME = pl.DataFrame({"label": [1, 0, 1], "user": ["a", "b", "a"], "price": [1.5, None, 2.0]})


@pytest.mark.parametrize("name", ["t.parquet", "t.csv", "t.jsonl", "folder/ctr.parquet", "folder/rows.csv"])
def test_formats(tmp_path, name):
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True)
    write = {".parquet": FRAME.write_parquet, ".csv": FRAME.write_csv, ".jsonl": FRAME.write_ndjson}
    write[path.suffix](path)
    table = settle(read_rows(path.parent if "/" in name else path), ["price"])
    assert table.frame.drop(LINE).to_dicts() == FRAME.to_dicts()
    assert table.frame[LINE].to_list() == ([2, 3, 4] if path.suffix == ".csv" else [1, 2, 3])


def test_frames_of_other_libraries():
    for frame in (FRAME, FRAME.lazy(), pa.table(FRAME.to_dict(as_series=False))):
        assert read_rows(frame).frame.drop(LINE).to_dicts() == FRAME.to_dicts()


@pytest.mark.parametrize(("source", "said"), [
    ("nothing.parquet", "there is no file"), (3, "a table of type int"), (FRAME.head(0), "has no rows"),
])
def test_what_cannot_be_read(tmp_path, source, said):
    with pytest.raises(DataError, match=said):
        read_rows(tmp_path / source if isinstance(source, str) else source)


def test_names_are_for_libfm_files_only():
    with pytest.raises(DataError, match="leave columns out"):
        read_rows(FRAME, ["a"])


def test_libfm(tmp_path):
    path = tmp_path / "x.libfm"
    good = ["1 3:1 7:1 9:0.5", "-1 4:1  7:1 9:2 ", "", "1 3:1 8:1 9:1"]
    path.write_text("\n".join(good * 10 + ["1 3:1 7:1", "x 3:1 7:1 9:1"][:1]) + "\n")
    table = libfm(path, ["user", "item", "price"])
    assert table.frame.head(3).to_dicts() == [
        {LINE: 1, "label": 1.0, "user": 3, "item": 7, "price": 0.5},
        {LINE: 2, "label": -1.0, "user": 4, "item": 7, "price": 2.0},
        {LINE: 4, "label": 1.0, "user": 3, "item": 8, "price": 1.0},
    ]
    assert table.bad.row(0) == (str(path), 41, "2 fields, expected 3", "1 3:1 7:1")
    assert read_rows(path).frame.columns == [LINE, "label", "f0", "f1", "f2"]
    with pytest.raises(DataError, match="30 of 31 lines"):
        libfm(path, ["user", "item"])
    with pytest.raises(DataError, match="different names"):
        libfm(path, ["user", "label", "item"])


def test_libfm_as_scikit_learn_writes_it(tmp_path):
    matrix = np.zeros((4, 6))
    matrix[np.arange(4), [0, 1, 1, 0]] = 1
    matrix[np.arange(4), [3, 4, 5, 3]] = 1
    dump_svmlight_file(matrix, np.array([0, 1, 1, 0]), str(tmp_path / "x.svm"))
    table = read_rows(tmp_path / "x.svm")
    assert table.frame["f0"].to_list() == [0, 1, 1, 0]
    assert table.frame["f1"].to_list() == [3, 4, 5, 3]


def test_a_libfm_field_is_a_category_or_a_number(tmp_path):
    path = tmp_path / "x.libfm"
    path.write_text("1 3:1\n0 4:2\n")
    with pytest.raises(DataError, match="field 'f0' has 2 indices and values other than 1"):
        libfm(path)


ITEMS = pl.DataFrame({"item": [1, 2, 3], "title": ["A", "B", "C"], "label": [7, 8, 9]})
LOG = pl.DataFrame({"item": ["1", "3", "4", None], "label": [1, 0, 1, 0]})


def test_join(tmp_path):
    ITEMS.write_csv(tmp_path / "items.csv")
    LOG.write_parquet(tmp_path / "rows.parquet")
    table = join(read_rows(tmp_path), [{"path": "items.csv", "on": "item", "prefix": "item_"}])
    assert table.frame["item_title"].to_list() == ["A", "C", None, None]
    assert table.frame["label"].to_list() == [1, 0, 1, 0] and table.frame["item_label"].to_list()[:2] == [7, 9]
    assert table.counts == {"rows without a partner in items.csv": 2}
    chosen = join(read_rows(LOG), [{"frame": ITEMS, "on": "item", "columns": ["title"]}])
    assert chosen.frame.columns == [LINE, "item", "label", "title"]


@pytest.mark.parametrize(("given", "said"), [
    ({"frame": ITEMS, "on": "item"}, "columns label are in both tables"),
    ({"frame": ITEMS, "on": "itm"}, "did you mean 'item'"),
    ({"frame": pl.concat([ITEMS, ITEMS]), "on": "item", "columns": ["title"]}, "3 repeated values of 'item'"),
    ({"frame": ITEMS, "key": "item"}, "unknown settings 'key'"),
    ({"frame": ITEMS, "path": "x", "on": "item"}, "path or frame"),
    ({"path": "none.csv", "on": "item"}, "there is no file"),
])
def test_wrong_joins(given, said):
    with pytest.raises(DataError, match=said):
        join(read_rows(LOG), [given])


def test_text_in_a_number_column_is_blamed(tmp_path):
    values = [str(n / 2) for n in range(97)]
    pl.DataFrame({"price": [*values, "cheap", "", "inf"]}).write_csv(tmp_path / "t.csv")
    table = settle(read_rows(tmp_path / "t.csv"), ["price"])
    assert table.frame.height == 98 and table.frame["price"].dtype == pl.Float64
    assert table.frame["price"].to_list()[-1] is None
    reason = "price is not a finite number"
    assert table.bad.rows() == [
        (str(tmp_path / "t.csv"), 99, reason, "{'price': 'cheap'}"),
        (str(tmp_path / "t.csv"), 101, reason, "{'price': 'inf'}"),
    ]


def test_too_much_text_in_number_columns_is_an_error():
    frame = pl.DataFrame({"a": ["1", "x", "y", "z", "2"], "b": [1.0, float("inf"), 2.0, 3.0, 4.0]})
    with pytest.raises(DataError) as caught:
        settle(read_rows(frame), ["a", "b"])
    said = str(caught.value)
    assert "column 'a' is not a finite number in 3 of 5 rows, such as 'x', 'y', 'z'" in said
    assert "column 'b' is not a finite number in 1 of 5 rows, such as inf" in said


def test_types():
    frame = pl.DataFrame({
        "whole": ["1", "2", None], "zeros": ["007", "7", "8"], "small": pl.Series([0.1, 0.2, None], dtype=pl.Float32),
        "tags": ["a| b", "", None], "array": pl.Series([[1, 2]] * 3, dtype=pl.Array(pl.Int64, 2)),
    })
    table = settle(read_rows(frame), (), {"tags": "|"}).frame
    assert table["whole"].to_list() == [1, 2, None]
    assert table["zeros"].to_list() == ["007", "7", "8"]
    assert table["small"].to_list() == [0.1, 0.2, None]
    assert table["tags"].to_list() == [["a", "b"], [], None]
    assert table["array"].dtype == pl.List(pl.Int64)


def test_a_join_that_finds_nothing():
    other = pl.DataFrame({"k": [0, 1], "v": [5, 6]})
    with pytest.raises(DataError, match="no row has a partner in joins.0; 'k' is 'a', 'b' here and '0', '1' there"):
        join(read_rows(pl.DataFrame({"k": ["a", "b"]})), [{"frame": other, "on": "k"}])
