"""A split on disk: memory-mapped arrays, Parquet tables, and a manifest with digests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from distilrec.errors import DataError, problem
from distilrec.files import NotJsonError, atomic_folder, digest_file, read_json, recover, well_formed, write_json
from distilrec.types import Dataset, Interactions, Split

__all__ = ["damaged", "load_split", "save_split", "verify_files"]

_SCHEMA = 1
_TABLES = ("items", "users", "rows", "quarantine")


def save_split(split: Split, folder: str | Path) -> None:
    """Write `split` into `folder`, as a whole or not at all. Bad rows become `quarantine.parquet`."""
    data, events = split.dataset, split.dataset.interactions
    arrays = {
        "items": split.items,
        "timestamps": split.timestamps,
        "weights": split.weights,
        "bounds": split.bounds,
        "events.user_ids": events.user_ids,
        "events.item_ids": events.item_ids,
        "events.weights": events.weights,
        "events.timestamps": events.timestamps,
        **{f"context.{name}": column for name, column in events.context.items()},
    }
    with atomic_folder(folder) as target:
        for name, array in arrays.items():
            np.save(target / f"{name}.npy", array, allow_pickle=False)
        for name, keys in (("user_keys", data.user_keys), ("item_keys", data.item_keys)):
            pq.write_table(
                pa.table({"key": pa.array(keys.tolist(), pa.string())}), target / f"{name}.parquet", compression="zstd"
            )
        for name in _TABLES:
            table = getattr(data, name)
            if table is not None:
                pq.write_table(table, target / f"{name}.parquet", compression="zstd")
        write_json(
            target / "manifest.json",
            {
                "schema": _SCHEMA,
                "name": data.name,
                "method": split.method,
                "timed": data.timed,
                "roles": dict(data.roles),
                "users": data.n_users,
                "items": data.n_items,
                "interactions": len(events),
                "parts": {part: split.n_events(part) for part in ("train", "valid", "test")},
                "counts": {"dataset": dict(data.counts), "split": dict(split.counts)},
                "digest": {"dataset": data.digest, "split": split.digest},
                "files": {path.name: digest_file(path) for path in sorted(target.iterdir())},
            },
        )


def load_split(folder: str | Path) -> Split:
    """The split in `folder`; its arrays are memory-mapped, read-only.

    Raises DataError when files are missing, changed, or of another version.
    """
    folder = Path(folder)
    recover(folder)
    with well_formed(folder / "manifest.json"):
        return _read(folder)


def _read(folder: Path) -> Split:
    manifest = _manifest(folder)
    arrays = {
        name.removesuffix(".npy"): np.load(folder / name, mmap_mode="r", allow_pickle=False)
        for name in manifest["files"]
        if name.endswith(".npy")
    }
    tables = {
        name: pq.read_table(folder / f"{name}.parquet") if f"{name}.parquet" in manifest["files"] else None
        for name in _TABLES
    }
    keys = {}
    for name in ("user_keys", "item_keys"):
        values = pq.read_table(folder / f"{name}.parquet").column("key").to_pylist()
        keys[name] = np.empty(len(values), dtype=object)
        keys[name][:] = values
    events = Interactions(
        arrays["events.user_ids"],
        arrays["events.item_ids"],
        arrays["events.weights"],
        arrays["events.timestamps"],
        {name.removeprefix("context."): array for name, array in arrays.items() if name.startswith("context.")},
    )
    dataset = Dataset(
        manifest["name"],
        events,
        keys["user_keys"],
        keys["item_keys"],
        tables["items"],
        tables["users"],
        tables["rows"],
        manifest["roles"],
        manifest["counts"]["dataset"],
        manifest["timed"],
        tables["quarantine"],
    )
    split = Split(
        dataset,
        manifest["method"],
        arrays["items"],
        arrays["timestamps"],
        arrays["weights"],
        arrays["bounds"],
        manifest["counts"]["split"],
    )
    if split.digest != manifest["digest"]["split"]:
        raise damaged(folder, "the data do not have the digest of the manifest")
    return split


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / "manifest.json"
    if not path.is_file():
        raise DataError(
            problem(
                f"{folder} holds no prepared data (no manifest.json)",
                "the folder that prepare wrote",
                "run distilrec prepare, or check the path",
            )
        )
    try:
        manifest = read_json(path)
    except NotJsonError as error:
        raise damaged(folder, f"manifest.json is not JSON ({error.msg})") from error
    if not isinstance(manifest, dict) or manifest.get("schema") != _SCHEMA:
        seen = manifest.get("schema") if isinstance(manifest, dict) else None
        raise DataError(
            problem(f"{folder} has the data schema {seen}", f"schema {_SCHEMA}", "run distilrec prepare again")
        )
    verify_files(folder, manifest["files"])
    return manifest


def verify_files(folder: Path, files: Mapping[str, str]) -> None:
    """Raise DataError unless every file (name -> SHA-256) is in the folder, unchanged."""
    for name, digest in files.items():
        if not (folder / name).is_file():
            raise damaged(folder, f"{name} is missing")
        if digest_file(folder / name) != digest:
            raise damaged(folder, f"{name} has changed since it was written")


def damaged(folder: Path, seen: str) -> DataError:
    return DataError(
        problem(
            f"the prepared data in {folder} are damaged: {seen}",
            "files as prepare wrote them",
            "run distilrec prepare again",
        )
    )
