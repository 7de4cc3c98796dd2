from __future__ import annotations

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pytest

from distilrec.data import load_split, prepare, save_split
from distilrec.errors import DataError
from distilrec.files import read_json, write_json


@pytest.fixture
def saved(tmp_path):
    log = pl.DataFrame(
        {
            "user_id": ["a"] * 3 + ["b"] * 3 + [None],
            "item_id": ["x", "y", "z", "x", "ß", "y", "x"],
            "timestamp": [1, 2, 3, 3, 1, 2, 9],
            "split": ["train", "valid", "test", "train", "train", "test", "train"],
        }
    )
    items = pl.DataFrame({"item_id": ["x", "y"], "title": ["X", None], "tags": [["q"], []]})
    split = prepare(log, items=items, users=pl.DataFrame({"user_id": ["a"], "age": [3]}), split="given", name="folder")
    save_split(split, tmp_path / "data")
    return split, tmp_path / "data"


def test_round_trip(saved):
    split, folder = saved
    loaded = load_split(folder)
    assert loaded.digest == split.digest
    assert loaded.method == split.method
    assert loaded.counts == split.counts
    assert isinstance(loaded.items, np.memmap)
    assert not loaded.items.flags.writeable
    for name in ("items", "timestamps", "weights", "bounds"):
        np.testing.assert_array_equal(getattr(loaded, name), getattr(split, name))
    for name in ("name", "timed", "counts", "items", "users", "rows", "quarantine"):
        assert getattr(loaded.dataset, name) == getattr(split.dataset, name)
    assert loaded.dataset.item_keys.tolist() == ["x", "y", "z", "ß"]
    np.testing.assert_array_equal(
        loaded.dataset.interactions.context["split"], split.dataset.interactions.context["split"]
    )


def test_quarantine_is_a_file_for_people(saved):
    assert pq.read_table(saved[1] / "quarantine.parquet").select(["line", "reason"]).to_pylist() == [
        {"line": 7, "reason": "user_id is empty"}
    ]


def test_writing_again_takes_the_place(saved):
    split, folder = saved
    (folder / "old").write_text("x")
    save_split(split, folder)
    assert not (folder / "old").exists()
    assert load_split(folder).digest == split.digest
    assert [path.name for path in folder.parent.iterdir()] == ["data"]


@pytest.mark.parametrize("name", ["items.npy", "items.parquet", "item_keys.parquet", "context.split.npy"])
def test_one_changed_byte_is_noticed(saved, name):
    path = saved[1] / name
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match=f"{name} has changed"):
        load_split(saved[1])


def test_missing_file_foreign_manifest_and_other_version(saved):
    _, folder = saved
    manifest = read_json(folder / "manifest.json")
    write_json(folder / "manifest.json", {**manifest, "digest": {"dataset": "0", "split": "0"}})
    with pytest.raises(DataError, match="do not have the digest"):
        load_split(folder)
    write_json(folder / "manifest.json", {**manifest, "schema": 99})
    with pytest.raises(DataError, match="schema 99"):
        load_split(folder)
    (folder / "manifest.json").write_text("{")
    with pytest.raises(DataError, match="not JSON"):
        load_split(folder)
    write_json(folder / "manifest.json", manifest)
    (folder / "bounds.npy").unlink()
    with pytest.raises(DataError, match=r"bounds.npy is missing"):
        load_split(folder)
    with pytest.raises(DataError, match="no prepared data"):
        load_split(folder / "nowhere")
