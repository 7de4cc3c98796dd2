"""A prepared table on disk: the same when it comes back, and damage is noticed."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from distilrec.data import load_rows, prepare, prepare_rows, save_rows, save_split
from distilrec.errors import DataError
from distilrec.files import read_json, write_json
from rows_world import table


@pytest.fixture
def folder(tmp_path):
    save_rows(table(60), tmp_path / "data")
    return tmp_path / "data"


def test_round_trip(folder):
    split, loaded = table(60), load_rows(folder)
    assert loaded.digest == split.digest
    for name in ("name", "method", "heads", "counts", "quarantine"):
        assert getattr(loaded, name) == getattr(split, name)
    assert loaded.raw.equals(split.raw)
    assert list(loaded.features.items()) == list(split.features.items())
    for name, column in split.columns.items():
        assert isinstance(loaded.columns[name], np.memmap) and not loaded.columns[name].flags.writeable
        np.testing.assert_array_equal(loaded.columns[name], column)
    np.testing.assert_array_equal(loaded.groups, split.groups)
    assert loaded.weights is None


def test_names_may_hold_anything_and_bad_rows_are_a_file(tmp_path):
    frame = pl.DataFrame({"a/b": ["x", "y"] * 200, "../y": [0, 1] * 200, "w": [1.0] * 399 + [-1.0]})
    split = prepare_rows(frame, features={"a/b": "category"}, labels={"../y": "../y"}, weight="w")
    save_rows(split, tmp_path / "data")
    loaded = load_rows(tmp_path / "data")
    assert loaded.digest == split.digest and loaded.counts == split.counts
    assert loaded.quarantine is not None and loaded.quarantine.equals(split.quarantine)
    np.testing.assert_array_equal(loaded.weights, split.weights)
    assert {path.name for path in tmp_path.iterdir()} == {"data"}


def test_damage_is_noticed(folder):
    with pytest.raises(DataError, match="holds no prepared data"):
        load_rows(folder.parent)
    (folder / "parts.npy").write_bytes(b"x")
    with pytest.raises(DataError, match="parts.npy has changed"):
        load_rows(folder)
    (folder / "parts.npy").unlink()
    with pytest.raises(DataError, match="parts.npy is missing"):
        load_rows(folder)
    (folder / "manifest.json").write_text("{")
    with pytest.raises(DataError, match="not JSON"):
        load_rows(folder)


def test_other_digests_and_kinds_are_refused(folder):
    manifest = read_json(folder / "manifest.json")
    write_json(folder / "manifest.json", {**manifest, "method": "other"})
    with pytest.raises(DataError, match="do not have the digest"):
        load_rows(folder)
    write_json(folder / "manifest.json", {**manifest, "schema": 2})
    with pytest.raises(DataError, match="schema 2"):
        load_rows(folder)


def test_events_are_no_table(tmp_path):
    events = pl.DataFrame({"user_id": [1] * 4, "item_id": [1, 2, 3, 4], "timestamp": [1, 2, 3, 4]})
    save_split(prepare(events), tmp_path / "data")
    with pytest.raises(DataError, match="a table of examples"):
        load_rows(tmp_path / "data")
