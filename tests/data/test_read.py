from __future__ import annotations

import gzip
import json

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distilrec.data.read import LINE, read_raw, read_table
from distilrec.errors import DataError

ROWS = [{"user_id": "a", "item_id": 1, "rating": 2.5}, {"user_id": "b", "item_id": 2, "rating": 4.0}]


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".tsv", ".jsonl", ".ndjson", ".csv.gz", ".jsonl.gz"])
def test_every_format_gives_the_same_table(tmp_path, suffix):
    frame, path = pl.DataFrame(ROWS), tmp_path / f"t{suffix}"
    if suffix == ".parquet":
        frame.write_parquet(path)
    else:
        separator = "\t" if ".tsv" in suffix else ","
        text = frame.write_ndjson() if "json" in suffix else frame.write_csv(separator=separator)
        path.write_bytes(gzip.compress(text.encode()) if suffix.endswith(".gz") else text.encode())
    assert read_table(path).rows(named=True) == ROWS
    assert read_table(path, ["rating", "user_id"]).columns == ["rating", "user_id"]


def test_missing_column_names_the_nearest(tmp_path):
    pl.DataFrame({"userid": [1], "item_id": [2]}).write_parquet(tmp_path / "t.parquet")
    with pytest.raises(DataError, match="lacks the column 'user_id', did you mean 'userid'"):
        read_table(tmp_path / "t.parquet", ["user_id"])


@pytest.mark.parametrize("name", ["t.csv", "t.jsonl", "t.parquet", "t.tsv"])
def test_empty_file(tmp_path, name):
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(DataError, match="is empty"):
        read_table(tmp_path / name)


def test_header_without_rows_is_empty(tmp_path):
    (tmp_path / "t.csv").write_text("user_id,item_id\n")
    with pytest.raises(DataError, match="is empty"):
        read_table(tmp_path / "t.csv")


@pytest.mark.parametrize("kept", [10, 0.5, -4])
def test_truncated_parquet(tmp_path, kept):
    path = tmp_path / "t.parquet"
    pl.DataFrame({"user_id": range(1000)}).write_parquet(path)
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept)] if isinstance(kept, float) else data[:kept])
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        read_table(path)


def test_truncated_gzip(tmp_path):
    path = tmp_path / "t.csv.gz"
    path.write_bytes(gzip.compress(b"user_id,item_id\n" + b"1,2\n" * 1000)[:-12])
    with pytest.raises(DataError, match="not a whole gzip"):
        read_table(path)


def test_unknown_suffix_and_missing_file(tmp_path):
    (tmp_path / "t.xlsx").write_text("x")
    with pytest.raises(DataError, match="unknown suffix"):
        read_table(tmp_path / "t.xlsx")
    with pytest.raises(DataError, match="no file"):
        read_table(tmp_path / "nothing.csv")


def test_bad_lines_keep_the_good_ones_and_their_numbers(tmp_path):
    (tmp_path / "t.csv").write_text("user_id,item_id\n1,2\n3,4,5\n6,7\n")
    table = read_raw(tmp_path / "t.csv")
    assert table.frame.rows() == [("1", "2", 2), ("6", "7", 4)]
    assert table.bad.select("line", "reason").rows() == [(3, "3 cells, expected 2")]
    (tmp_path / "t.jsonl").write_text('{"user_id": 1}\n{"user_id":\n\n[1]\n{"user_id": 2}\n')
    table = read_raw(tmp_path / "t.jsonl")
    assert table.frame.select("user_id", LINE).rows() == [(1, 1), (2, 5)]
    assert table.bad["line"].to_list() == [2, 4]
    with pytest.raises(DataError, match="2 bad lines"):
        read_table(tmp_path / "t.jsonl")


def test_python_literals_of_2014_are_read_as_data(tmp_path):
    (tmp_path / "t.json").write_text("{'asin': 'A', 'title': \"it's\"}\n{'asin': __import__('os')}\n")
    table = read_raw(tmp_path / "t.json")
    assert table.frame.select("asin", "title").rows() == [("A", "it's")]
    assert table.bad["line"].to_list() == [2]


@given(st.lists(st.tuples(st.text(min_size=1, max_size=8), st.integers(-10, 10**12)), min_size=1, max_size=20))
def test_json_lines_round_trip(tmp_path_factory, rows):
    path = tmp_path_factory.mktemp("json") / "t.jsonl"
    path.write_text("".join(json.dumps({"a": a, "b": b}) + "\n" for a, b in rows))
    assert read_table(path, ["a", "b"]).rows() == rows


def test_a_field_of_mixed_kinds_becomes_text(tmp_path):
    rows = [{"a": "x", "b": 1, "c": None}, {"a": ["y", "z"], "b": 2.5, "d": {"k": 1}}, {"b": 3}]
    (tmp_path / "t.jsonl").write_text("\n\n".join(json.dumps(row) for row in rows))
    found = read_table(tmp_path / "t.jsonl")
    assert found.select("a", "b").rows() == [("x", 1.0), ("y z", 2.5), (None, 3.0)]


def test_fields_not_asked_for_are_not_read(tmp_path):
    rows = [{"a": n, "free": {f"key{n}": n}} for n in range(2000)] + [{"a": "late text", "free": 1}]
    (tmp_path / "t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    table = read_raw(tmp_path / "t.jsonl", ["a"], optional=["b"])
    assert table.frame.columns == ["a", LINE]
    assert table.frame["a"].to_list()[-2:] == ["1999", "late text"]
    with pytest.raises(DataError, match="lacks the column 'b'"):
        read_raw(tmp_path / "t.jsonl", ["b"])


CAFE = "café".encode("latin-1")  # not UTF-8: a byte 0xe9 that nothing follows


@pytest.mark.parametrize(("suffix", "blank"), [(".csv", b","), (".tsv", b"\t"), (".csv.gz", b",")])
def test_lines_that_are_not_utf8_are_set_aside_and_none_is_altered(tmp_path, suffix, blank):
    rows = [b"user_id,item_id", b"1,caf\xc3\xa9", b"2," + CAFE, b'3,"two\nlines ' + CAFE + b'"', b"4,x"]
    data = b"\n".join(rows).replace(b",", blank)
    path = tmp_path / f"t{suffix}"
    path.write_bytes(gzip.compress(data) if suffix.endswith(".gz") else data)
    table = read_raw(path)
    assert table.frame.rows() == [("1", "café", 2), ("4", "x", 6)]
    sign = blank.decode()
    assert table.bad.rows() == [
        (str(path), 3, "not utf-8: byte 0xe9 in place 6", f"2{sign}caf\\xe9"),
        (str(path), 5, "not utf-8: byte 0xe9 in place 16", f"3{sign}two\nlines caf\\xe9"),
    ]
    with pytest.raises(DataError, match="2 bad lines.*line 3: not utf-8"):
        read_table(path)


def test_json_lines_that_are_not_utf8_are_set_aside(tmp_path):
    path = tmp_path / "t.jsonl"
    path.write_bytes(b'{"a": "caf\xc3\xa9"}\n{"a": "' + CAFE + b'"}\n{"a": "\\u00e9"}\n')
    for columns in (None, ["a"]):
        table = read_raw(path, columns)
        assert table.frame.rows() == [("café", 1), ("é", 3)]
        assert table.bad.rows() == [(str(path), 2, "not utf-8: byte 0xe9 in place 11", '{"a": "caf\\xe9"}')]


@pytest.mark.parametrize("data", [b"user_id," + CAFE + b"\n1,2\n", "user_id,item_id\n1,2\n".encode("utf-16")])
def test_a_header_in_another_encoding_is_refused(tmp_path, data):
    (tmp_path / "t.csv").write_bytes(data)
    with pytest.raises(DataError, match="first line of .* is not UTF-8"):
        read_raw(tmp_path / "t.csv")


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"\xef\xbb\xbfuser_id,item_id\n1,2\n1,2,3\n")
    assert read_raw(tmp_path / "t.csv", ["user_id"]).frame.rows() == [("1", 2)]


@given(st.lists(st.binary(min_size=1, max_size=12).filter(lambda b: not set(b) & set(b'\r\n",\x00 ')), min_size=1))
def test_every_line_is_kept_as_it_is_or_set_aside(tmp_path_factory, cells):
    path = tmp_path_factory.mktemp("bytes") / "t.csv"
    path.write_bytes(b"user_id,item_id\n" + b"".join(b"u," + cell + b"\n" for cell in cells))
    table = read_raw(path)
    kept = {line: item.encode() for _, item, line in table.frame.rows()}
    assert sorted([*kept, *table.bad["line"]]) == list(range(2, len(cells) + 2))
    assert all(cells[line - 2] == cell for line, cell in kept.items())
