from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

import rows_world
from distilrec.bundle.row_offline import predict_file, told
from distilrec.bundle.row_runtime import RowBundle
from distilrec.cli import app
from distilrec.errors import DataError

N = 23


@pytest.fixture
def raw() -> dict[str, list]:
    columns = rows_world.raw_columns(N, seed=4)
    columns["item"] = [item or "i8" for item in columns["item"]]
    return columns


def write(path: Path, columns: dict[str, list]) -> Path:
    if path.suffix == ".parquet":
        pq.write_table(pa.table(columns), path)
    elif path.suffix == ".jsonl":
        rows = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(columns)
            for row in zip(*columns.values(), strict=True):
                writer.writerow("|".join(map(str, one)) if isinstance(one, list) else one for one in row)
    return path


@pytest.mark.parametrize("source", [".parquet", ".csv", ".jsonl"])
@pytest.mark.parametrize("target", [".parquet", ".csv", ".jsonl"])
def test_every_format_gives_what_the_bundle_gives(
    row_bundle: RowBundle, raw: dict[str, list], tmp_path: Path, source: str, target: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("distilrec.bundle.row_offline._BLOCK", 7)
    file = write(tmp_path / f"rows{source}", {**raw, "key": [f"00{n}" for n in range(N)], "label": [1] * N})
    out = tmp_path / f"out{target}"
    counts = predict_file(row_bundle, file, out, keep=["key"])
    expected = row_bundle.predict(raw)
    if target == ".parquet":
        rows = pq.read_table(out).to_pylist()
    elif target == ".jsonl":
        rows = [json.loads(line) for line in out.read_text().splitlines()]
    else:
        rows = list(csv.DictReader(out.open()))
    assert [int(row["row"]) for row in rows] == list(range(N))
    assert [row["key"] for row in rows] == [f"00{n}" for n in range(N)]
    assert list(rows[0]) == ["row", "key", "prediction.click", "prediction.buy", "prediction.rating",
                             "prediction.tags", "prediction.tags.new", "prediction.tags.cheap"]
    for head in ("click", "buy", "rating"):
        np.testing.assert_allclose([float(row[f"prediction.{head}"]) for row in rows], expected[head], rtol=1e-5)
    for place, row in enumerate(rows):
        new, cheap = expected["tags"][place]
        np.testing.assert_allclose(float(row["prediction.tags.cheap"]), cheap, rtol=1e-5)
        given = row["prediction.tags"]
        given = [one for one in given.split("|") if one] if isinstance(given, str) else given
        assert set(given) == {*(["new"] if new >= 0.3 else []), *(["cheap"] if cheap >= 0.7 else [])}
    assert counts["rows"] == N
    assert counts["missing"]["item"] == raw["item"].count("i8")
    assert counts["unread"] == ["label"]
    assert not counts["absent"]


def test_faults_name_the_rows_and_leave_no_file(
    row_bundle: RowBundle, raw: dict[str, list], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distilrec.bundle.row_offline._BLOCK", 10)
    out = tmp_path / "out.csv"
    out.write_text("old")
    raw["price"] = ["cheap" if n == 13 else 4.5 for n in range(N)]
    file = write(tmp_path / "a.csv", raw)
    with pytest.raises(DataError, match=r"rows 10 to 19(.|\n)*row 3: field 'price': 'cheap'(.|\n)*a finite number"):
        predict_file(row_bundle, file, out)
    raw["price"] = [None] * N
    raw["item"][21] = None
    with pytest.raises(DataError, match=r"rows 20 to 22(.|\n)*row 1: the required field 'item' is missing"):
        predict_file(row_bundle, write(tmp_path / "b.jsonl", raw), out)
    del raw["item"]
    with pytest.raises(DataError, match="every row: the required field 'item' is missing"):
        predict_file(row_bundle, write(tmp_path / "c.jsonl", raw), out)
    with pytest.raises(DataError, match="is a field of this bundle"):
        predict_file(row_bundle, write(tmp_path / "d.jsonl", {"x": [1]}), out)
    raw["item"] = ["i1"] * N
    for name in ("e.jsonl", "e.csv", "e.parquet"):
        with pytest.raises(DataError, match="no column 'users', did you mean 'user'"):
            predict_file(row_bundle, write(tmp_path / name, {**raw, "price": [1.0] * N}), out, keep=["users"])
    assert out.read_text() == "old"
    assert {one.name for one in tmp_path.iterdir() if one.name.startswith("out")} == {"out.csv"}


@pytest.mark.parametrize(("name", "content", "words"), [
    ("a.parquet", b"PAR1 not so", "cannot be read"), ("a.csv", b"", "is empty"), ("a.txt", b"x", "cannot tell"),
    ("a.jsonl", b'{"item": "i1"}\n{"item', "line 2 is not JSON"), ("a.jsonl", b'[1]\n', "line 1 is"),
    ("a.csv", b"item,price\ni1\n", "cannot be read"), ("a.jsonl", b"\xff\xfe", "cannot be read"),
    ("missing.csv", None, "does not exist"),
])
def test_bad_files(row_bundle: RowBundle, tmp_path: Path, name: str, content: bytes | None, words: str) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=words):
        predict_file(row_bundle, tmp_path / name, tmp_path / "out.jsonl")
    assert not (tmp_path / "out.jsonl").exists()


def test_the_command_prints_what_it_did_not_know(row_bundle_path: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("item,usr,price\ni1,u1,3\nodd,u1,\n")
    out = tmp_path / "out.csv"
    done = CliRunner().invoke(app, ["predict", str(row_bundle_path), "--rows", str(tmp_path / "rows.csv"), "--out",
                                    str(out), "--keep", "usr"])
    assert done.exit_code == 0, done.output
    assert "2 rows -> " in done.output
    assert "item: 1 rows without a value" in done.output
    assert "picture: not in the file" in done.output
    assert len(out.read_text().splitlines()) == 3
    wrong = CliRunner().invoke(app, ["recommend", str(row_bundle_path), "--users", "x.csv", "--out", str(out)])
    assert wrong.exit_code != 0
    assert "distilrec predict" in wrong.output


def test_no_rows_give_an_empty_table(row_bundle: RowBundle, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("item\n")
    counts = predict_file(row_bundle, tmp_path / "rows.csv", tmp_path / "out.parquet")
    assert counts["rows"] == 0
    assert told(counts) == []
    assert pq.read_table(tmp_path / "out.parquet").num_rows == 0


def test_cells_of_a_csv_are_read_as_the_table_of_training_is(row_bundle: RowBundle, tmp_path: Path) -> None:
    (tmp_path / "rows.csv").write_text("item,colors,price\ni1, red || green |, \n")
    predict_file(row_bundle, tmp_path / "rows.csv", tmp_path / "out.parquet")
    expected = row_bundle.predict([{"item": "i1", "colors": ["red", "green"]}])
    assert pq.read_table(tmp_path / "out.parquet")["prediction.click"][0].as_py() == expected["click"][0]
