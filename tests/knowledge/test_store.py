"""The store on disk: whole and unchanged, or refused."""

from __future__ import annotations

import json
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from core_world import split_of, walk_split
from distilrec import files
from distilrec.errors import KnowledgeError
from distilrec.files import digest_file
from distilrec.knowledge.extract import decisions, extract
from distilrec.knowledge.store import SCHEMA, KnowledgeStore, StoreWriter, map_file
from distilrec.models.popularity import Popularity
from distilrec.types import Knowledge, Signal, Split

pytestmark = pytest.mark.req("A3")


@pytest.fixture(scope="module")
def split() -> Split:
    return walk_split(users=20, items=15)


@pytest.fixture
def folder(split: Split, tmp_path: Path) -> Path:
    content = np.arange(30, dtype=np.float32).reshape(15, 2)
    extract(Popularity.fit(split), split, tmp_path / "store", top_k=4, part_rows=16, content=content)
    return tmp_path / "store"


def test_what_is_written_is_read(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    identity = {"dataset_digest": "d", "split_digest": "s"}
    writer = StoreWriter(tmp_path, identity)
    keys = rng.permutation(1000)[:60].astype(np.int64)  # in any order; the store sorts them
    ids, logits = rng.integers(0, 60_000, (60, 5)).astype(np.uint16), rng.normal(-3, 1, (60, 5)).astype(np.float16)
    vectors = rng.normal(size=(60, 3)).astype(np.float32)
    for part in range(3):
        rows = slice(20 * part, 20 * part + 20)
        assert not writer.has("response", part)
        writer.write("response", part, {"keys": keys[rows], "ids": ids[rows], "logits": logits[rows]})
        writer.write("state", part, {"keys": keys[rows], "values": vectors[rows]})
        assert writer.has("response", part)
    signals = {
        "response": Signal("response", "response", "event", space="logit", teacher="t", width=5),
        "state": Signal("state", "hidden", "event", teacher="t", width=3),
    }
    writer.finish(signals, {"name": "t"})
    store = KnowledgeStore(tmp_path)
    assert isinstance(store, Knowledge)
    some = keys[:4]
    assert set(store.batch(some)) == {"response", "response.ids", "response.mass", "state"}
    assert set(store.batch(some, {"state"})) == {"state"}  # nothing is read that nobody asked for
    assert store.signals["response"] == Signal(
        "response", "response", "event", space="logit", teacher="t", width=5, rows=60
    )
    some = np.array([7, 7, 31, 0])
    batch = store.batch(keys[some])
    assert np.array_equal(batch["response.ids"], ids[some])
    assert np.array_equal(batch["response"], logits[some].astype(np.float32))
    assert np.array_equal(batch["state"], vectors[some])
    np.testing.assert_allclose(batch["response.mass"], np.exp(logits[some].astype(float)).sum(1).clip(max=1), rtol=1e-5)
    assert [batch[name].dtype for name in ("response", "response.ids", "state")] == [np.float32, np.int32, np.float32]
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "manifest.json",
        "response.safetensors",
        "state.safetensors",
    ]


def test_item_vectors_and_content_lie_beside_the_answers(folder: Path, split: Split) -> None:
    store = KnowledgeStore(folder, split)
    content = store.vectors("content")
    assert content is not None
    assert np.array_equal(content, np.arange(30).reshape(15, 2))
    assert store.vectors("item_vectors") is None
    assert set(store.batch(decisions(split)[0][:3])) == {"response", "response.ids", "response.mass"}


@pytest.mark.parametrize("name", ["response.safetensors", "content.safetensors"])
def test_one_flipped_bit_anywhere_is_refused(name: str, folder: Path, split: Split) -> None:
    path = folder / name
    whole = path.read_bytes()
    for at in (0, 9, len(whole) // 2, len(whole) - 1):
        data = bytearray(whole)
        data[at] ^= 4
        path.write_bytes(data)
        with pytest.raises(KnowledgeError, match=f"{name} has changed"):
            KnowledgeStore(folder, split)
    path.write_bytes(whole)
    assert KnowledgeStore(folder, split).digest


@pytest.mark.parametrize("left", [0, 5, 40, -1])
def test_a_truncated_file_is_refused_with_and_without_its_digest(left: int, folder: Path, split: Split) -> None:
    path = folder / "response.safetensors"
    path.write_bytes(path.read_bytes()[:left])
    with pytest.raises(KnowledgeError, match="has changed"):
        KnowledgeStore(folder, split)
    with pytest.raises(KnowledgeError, match="whole safetensors file|cut off"):
        KnowledgeStore(folder, split, verify=False)
    with pytest.raises(KnowledgeError, match="whole safetensors file|cut off"):
        map_file(path)


def test_a_missing_file_an_empty_folder_and_an_unfinished_store_are_told_apart(folder: Path, split: Split) -> None:
    with pytest.raises(KnowledgeError, match="holds no knowledge store"):
        KnowledgeStore(folder / "nowhere", split)
    (folder / "content.safetensors").unlink()
    with pytest.raises(KnowledgeError, match=r"content\.safetensors is missing"):
        KnowledgeStore(folder, split)
    StoreWriter(folder.parent / "begun", {"split_digest": "s", "dataset_digest": "d"})
    with pytest.raises(KnowledgeError, match="unfinished(.|\n)*goes on where it stopped"):
        KnowledgeStore(folder.parent / "begun", split)


def test_another_split_and_other_data_are_refused_by_name(folder: Path, split: Split) -> None:
    bounds = split.bounds.copy()
    bounds[0, 1] -= 1
    moved = Split(split.dataset, split.method, split.items, split.timestamps, split.weights, bounds)
    with pytest.raises(KnowledgeError, match="another split of this data set"):
        KnowledgeStore(folder, moved)
    with pytest.raises(KnowledgeError, match="another data set"):
        KnowledgeStore(folder, walk_split(users=20, items=15, seed=9))


def test_another_schema_and_a_damaged_manifest_are_refused(folder: Path, split: Split) -> None:
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    assert manifest["schema"] == SCHEMA
    path.write_text(json.dumps({**manifest, "schema": SCHEMA + 1}))
    with pytest.raises(KnowledgeError, match=f"has schema {SCHEMA + 1}"):
        KnowledgeStore(folder, split)
    path.write_text(path.read_text()[:50])
    with pytest.raises(KnowledgeError, match="not JSON"):
        KnowledgeStore(folder, split)


def test_keys_that_the_store_lacks_are_counted(folder: Path, split: Split) -> None:
    store = KnowledgeStore(folder, split)
    known = decisions(split)[0][:2]
    with pytest.raises(KnowledgeError, match=r"2 of 4 decisions \(first key 0\)"):
        store.batch(np.array([known[0], 0, 10**9, known[1]]))


def test_knowledge_per_user_answers_every_decision_of_the_user(tmp_path: Path) -> None:
    split = split_of([([], [1], []), ([0, 1, 2], [3], [1]), ([], [], []), ([2, 3], [], [0]), ([], [], [2])], 4)
    writer = StoreWriter(tmp_path, {"dataset_digest": split.dataset.digest, "split_digest": split.digest})
    writer.write(
        "response",
        0,
        {
            "keys": np.array([1, 3]),
            "ids": np.array([[2], [0]], dtype=np.uint16),
            "logits": np.zeros((2, 1), dtype=np.float16),
        },
    )
    writer.finish({"response": Signal("response", "response", "user", space="score", width=1)}, {})
    store = KnowledgeStore(tmp_path, split)
    keys = decisions(split)[0]
    owners = [1, 1, 3, 1, 3]  # two events of user 1, one of user 3, then both open decisions
    assert store.batch(keys)["response.ids"][:, 0].tolist() == [{1: 2, 3: 0}[user] for user in owners]
    assert "response.mass" not in store.batch(keys), "a list of scores has no share of a catalog"
    with pytest.raises(KnowledgeError, match="needs the split"):
        KnowledgeStore(tmp_path).batch(keys)


def test_a_finished_file_is_the_librarys_and_its_parts_are_never_together_in_memory(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    keys = rng.permutation(32 * 1000).astype(np.int64)
    values = rng.normal(size=(len(keys), 4, 64)).astype(np.float16)
    writer = StoreWriter(tmp_path, {"dataset_digest": "d", "split_digest": "s"})
    for part in range(32):
        rows = slice(1000 * part, 1000 * part + 1000)
        writer.write("layers", part, {"keys": keys[rows], "values": values[rows]})
    tracemalloc.start()
    try:
        writer.finish({"layers": Signal("layers", "hidden", "event")}, {})
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4e6, f"{values.nbytes} bytes of values, {peak} held"
    order = np.argsort(keys)
    save_file({"keys": keys[order], "values": values[order]}, tmp_path / "whole")
    assert (tmp_path / "whole").read_bytes() == (tmp_path / "layers.safetensors").read_bytes()
    store = KnowledgeStore(tmp_path)
    assert store.signals["layers"].width == 4 * 64
    assert np.array_equal(store.batch(np.array([31, 5, 5]))["layers"], values[order][[31, 5, 5]].astype(np.float32))


def test_the_order_of_kinds_in_a_file_is_the_librarys(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays = {name: rng.integers(0, 99, (6, 2)).astype(kind) for name, kind in
              {"keys": "<i8", "b": "<u2", "a": "<f2", "c": "<f4", "d": "<i4", "e": "<f2", "f": "<i8"}.items()}
    arrays["keys"] = np.arange(6)
    writer = StoreWriter(tmp_path, {"dataset_digest": "d", "split_digest": "s"})
    for part in range(2):
        writer.write("s", part, {name: array[3 * part : 3 * part + 3] for name, array in arrays.items()})
    writer.finish({"s": Signal("s", "vector", "event")}, {})
    save_file(arrays, tmp_path / "whole")
    assert (tmp_path / "whole").read_bytes() == (tmp_path / "s.safetensors").read_bytes()


def test_parts_of_another_identity_are_thrown_away(tmp_path: Path) -> None:
    row = {"keys": np.array([1])}
    first = StoreWriter(tmp_path, {"top_k": 3})
    first.write("response", 0, row)
    assert StoreWriter(tmp_path, {"top_k": 3}).has("response", 0)
    assert not StoreWriter(tmp_path, {"top_k": 4}).has("response", 0)


def test_a_store_is_read_once_by_a_process_and_a_changed_byte_still_found(
    folder: Path, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    monkeypatch.setattr(files, "digest_file", lambda path: read.append(path.name) or digest_file(path))
    monkeypatch.setattr(files, "_SETTLED", -1)  # as if the store were older than a moment
    KnowledgeStore(folder, split)
    assert sorted(read) == ["content.safetensors", "response.safetensors"]
    KnowledgeStore(folder, split)
    assert len(read) == 2
    time.sleep(0.02)
    path = folder / "response.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(KnowledgeError, match="has changed"):
        KnowledgeStore(folder, split)
    assert len(read) >= 3


@pytest.mark.parametrize("content", ["", '{"schema": 1, "signals": {', "[]"])
def test_a_manifest_that_is_cut_off_is_named(folder: Path, content: str) -> None:
    (folder / "manifest.json").write_text(content)
    with pytest.raises(KnowledgeError, match=r"manifest\.json (is not JSON|has schema None)"):
        KnowledgeStore(folder)
