from __future__ import annotations

import subprocess
import sys
import time

import numpy as np
import polars as pl
import pytest

from distilrec.data import prepare
from distilrec.errors import DataError

LOG = pl.DataFrame(
    {
        "customer": ["a", "a", "a", "b", ""],
        "sku": [1, 2, 3, 1, 2],
        "when": ["2020-01-01", "2020-01-03", "2020-01-02", "2020-01-01", None],
    }
)
COLUMNS = {"user_id": "customer", "item_id": "sku", "timestamp": "when"}


class Stream:
    """Any table of another library, seen through the Arrow interface only."""

    def __init__(self, frame):
        self.frame = frame

    def __arrow_c_stream__(self, requested_schema=None):
        return self.frame.__arrow_c_stream__(requested_schema)


@pytest.mark.parametrize("convert", [lambda f: f, lambda f: f.lazy(), lambda f: f.to_arrow(), Stream])
def test_frames_of_every_library(convert):
    split = prepare(convert(LOG), columns=COLUMNS, items=pl.DataFrame({"sku": [1], "title": ["one"]}))
    assert split.items.tolist() == [0, 2, 1, 0]
    assert split.dataset.item_texts() == ["one", None, None]
    assert split.dataset.counts["rows read"] == 5
    assert split.dataset.counts["dropped: bad rows, in quarantine"] == 1
    assert split.dataset.quarantine.num_rows == 1
    assert split.dataset.timed


def test_files_and_settings(tmp_path):
    LOG.write_csv(tmp_path / "log.csv")
    pl.DataFrame({"sku": [1], "name": ["one"]}).write_csv(tmp_path / "products.csv")
    split = prepare(
        tmp_path / "log.csv",
        items=tmp_path / "products.csv",
        columns=COLUMNS,
        text=("name",),
        clean={"drop_one_shot_users": True},
        split={"method": "time", "valid_from": "2020-01-02", "test_from": "2020-01-03"},
        name="shop",
    )
    assert split.method == "time"
    assert split.dataset.name == "shop"
    assert split.bounds.tolist() == [[0, 1, 2, 3]]
    assert split.dataset.quarantine.select(["line", "reason"]).to_pylist() == [
        {"line": 6, "reason": "user_id is empty"}
    ]
    assert split.dataset.quarantine.column("file")[0].as_py().endswith("log.csv")


def test_every_row_is_accounted_for():
    log = pl.DataFrame(
        {"user_id": [1, 1, 1, 2, None, 3], "item_id": [1, 1, 2, 1, 1, 9], "timestamp": [5, 5, 6, -1, 3, None]}
    )
    split = prepare(log)
    counts = split.dataset.counts
    dropped = sum(n for reason, n in counts.items() if reason.startswith("dropped"))
    assert counts["rows read"] == 6 == counts["rows kept"] + dropped == len(split.items) + dropped
    assert split.dataset.item_keys.tolist() == ["1", "2"]  # item 9 has no event whose order is known


def test_seed_decides_random_splits_only():
    log = pl.DataFrame({"user_id": [1] * 40, "item_id": range(40), "timestamp": range(40)})
    assert prepare(log, seed=1).digest == prepare(log, seed=2).digest
    assert prepare(log, split="random", seed=1).digest != prepare(log, split="random", seed=2).digest
    assert (
        prepare(log, split={"method": "random", "seed": 1}, seed=5).digest
        == prepare(log, split="random", seed=1).digest
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"interactions": [1, 2]}, "table of type list"),
        ({"interactions": LOG.head(0)}, "frame of interactions is empty"),
        ({"columns": None}, "lacks the column 'user_id'"),
        ({"columns": {"user_id": "customer", "item_id": "sku"}}, "neither timestamp nor seq_pos"),
        ({"clean": {"min_rating": 3}}, "needs a column 'rating'"),
        ({"clean": {"user_core": 9}}, "no interaction is left"),
        ({"split": "leave-lastout"}, "did you mean 'leave-last-out'"),
        ({"interactions": "nowhere.csv"}, "there is no nowhere.csv"),
    ],
)
def test_wrong_input(arguments, message):
    with pytest.raises(DataError, match=message):
        prepare(**{"interactions": LOG, "columns": COLUMNS, **arguments})


def test_the_room_is_light_to_import():
    code = (
        "import sys, distilrec.data as d; before = 'polars' in sys.modules; d.prepare, d.load_split, d.encode_texts;"
        "print(before, 'torch' in sys.modules, 'transformers' in sys.modules)"
    )
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
        == ["False"] * 3
    )


@pytest.mark.data
def test_movielens_1m_as_published(data_root):
    started = time.process_time()
    split = prepare(data_root / "ml-1m")
    assert time.process_time() - started < 3
    assert (split.n_users, split.n_items, len(split.items)) == (6040, 3416, 999_611)  # Kang and McAuley, ICDM 2018
    assert split.dataset.counts["dropped: without order"] == 598
    assert not split.dataset.timed
    assert split.n_events("valid") == split.n_events("test") == 6040
    raw = pl.read_parquet(data_root / "ml-1m" / "interactions.parquet").drop_nulls()
    last = (
        raw.sort("user_id", "seq_pos")
        .group_by("user_id", maintain_order=True)
        .last()["item_id"]
        .cast(pl.String)
        .to_list()
    )
    assert split.dataset.item_keys[split.targets(split.queries("test"))[0]].tolist() == last


@pytest.mark.data
def test_beauty_as_published(data_root):
    split = prepare(data_root / "amazon-beauty")
    assert (split.n_users, split.n_items, len(split.items)) == (22_363, 12_101, 198_502)
    assert split.dataset.counts["items: without text"] == 7
    assert all(split.n_events(part) == n for part, n in (("train", 153_776), ("valid", 22_363), ("test", 22_363)))


@pytest.mark.data
def test_ml_100k_by_time(data_root):
    split = prepare(data_root / "ml-100k", split="time", clean={"min_rating": 4, "user_core": 5, "item_core": 5})
    _users, _items, keys = split.events("train")
    assert split.timestamps[keys].max() < split.timestamps[split.events("valid")[2]].min()
    assert (split.weights >= 4).all()
    events = split.dataset.interactions
    assert min(np.bincount(events.user_ids).min(), np.bincount(events.item_ids).min()) == 5


@pytest.mark.data
def test_given_parts_of_gowalla(data_root):
    split = prepare(data_root / "gowalla-lightgcn", split="given")
    assert split.n_events("test") == 217_242
    assert split.n_events("train") + split.n_events("valid") == 810_128
    assert split.method == "given, valid carved from train"
