from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from distilrec.bundle.offline import read_histories, recommend_file
from distilrec.bundle.runtime import Bundle
from distilrec.errors import DataError

EVENTS = {"user_id": ["b", "a", "b", "a", "c"], "item_id": ["item-1", "item-2", "item-3", "item-4", "nope"],
          "timestamp": [5, 9, 5, 2, 1]}
EXPECTED = {"b": ["item-1", "item-3"], "a": ["item-4", "item-2"], "c": ["nope"]}


def as_dict(frame: pl.DataFrame) -> dict[str, list[str]]:
    return dict(zip(frame["user_id"].to_list(), frame["history"].to_list(), strict=True))


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
def test_events_are_put_in_order_of_time_and_users_keep_theirs(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"events.{suffix}"
    frame = pl.DataFrame(EVENTS)
    {"parquet": frame.write_parquet, "csv": frame.write_csv, "jsonl": frame.write_ndjson}[suffix](path)
    found = read_histories(path)
    assert list(as_dict(found).items()) == list(EXPECTED.items())


def test_histories_as_lists_and_as_text(tmp_path: Path) -> None:
    rows = {"user_id": [7, 8, 9], "history": [[1, 2], [], [3]]}
    pl.DataFrame(rows).write_parquet(tmp_path / "h.parquet")
    (tmp_path / "h.csv").write_text("user_id,history\n007,item-1 item-2\n008,\n")
    assert as_dict(read_histories(tmp_path / "h.parquet")) == {"7": ["1", "2"], "8": [], "9": ["3"]}
    assert as_dict(read_histories(tmp_path / "h.csv")) == {"007": ["item-1", "item-2"], "008": []}


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
def test_the_file_holds_what_recommend_says(bundle: Bundle, tmp_path: Path, suffix: str) -> None:
    pl.DataFrame(EVENTS).write_parquet(tmp_path / "events.parquet")
    out = tmp_path / f"out.{suffix}"
    counts = recommend_file(bundle, tmp_path / "events.parquet", out, 4)
    assert counts == {"users": 3, "rows": 12, "unknown_events": 1, "users_without_known_items": 1}
    table = {"parquet": pl.read_parquet, "csv": pl.read_csv, "jsonl": pl.read_ndjson}[suffix](out)
    assert table.columns == ["user_id", "rank", "item_id", "score"]
    assert table["rank"].to_list() == [1, 2, 3, 4] * 3
    for user, history in EXPECTED.items():
        rows = table.filter(pl.col("user_id") == user)
        assert rows["item_id"].to_list() == bundle.recommend(history, 4).items
        assert rows["score"].to_list() == pytest.approx(bundle.recommend(history, 4).scores, abs=1e-5)


def test_bad_files_are_told_and_leave_the_old_answer(bundle: Bundle, tmp_path: Path) -> None:
    out = tmp_path / "out.csv"
    out.write_text("old")
    pl.DataFrame({"usr": ["a"], "item_id": ["item-1"]}).write_csv(tmp_path / "a.csv")
    (tmp_path / "b.parquet").write_bytes(b"PAR1 cut off")
    (tmp_path / "c.csv").write_text("user_id,item_id,timestamp\na,item-1,soon\n")
    (tmp_path / "d.csv").write_text("user_id,history\na,item-1\na,item-2\n")
    (tmp_path / "e.csv").write_text("")
    (tmp_path / "f.txt").write_text("x")
    for name, message in (("a.csv", "usr"), ("b.parquet", "cannot be read"), ("c.csv", "1 timestamps"),
                          ("d.csv", "more than one history"), ("e.csv", "cannot be read"), ("f.txt", "format"),
                          ("g.csv", "does not exist")):
        with pytest.raises(DataError, match=message):
            recommend_file(bundle, tmp_path / name, out, 4)
    with pytest.raises(DataError, match=r"\.jsonl"):
        recommend_file(bundle, tmp_path / "a.csv", tmp_path / "out.xlsx", 4)
    assert out.read_text() == "old"
    assert not [file for file in tmp_path.iterdir() if file.name.endswith(".part")]
