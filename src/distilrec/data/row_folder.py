"""A table of examples on disk: memory-mapped arrays, the raw columns as Parquet, a manifest with digests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq

from distilrec.data.folder import damaged, verify_files
from distilrec.errors import DataError, problem
from distilrec.features import Feature
from distilrec.files import atomic_folder, digest_file, read_json, recover, well_formed, write_json
from distilrec.types_rows import Head, RowSplit

__all__ = ["load_rows", "save_rows"]

_SCHEMA = 1
_KIND = "rows"


def save_rows(split: RowSplit, folder: str | Path) -> None:
    """Write `split` into `folder`, as a whole or not at all. Bad rows become `quarantine.parquet`."""
    # names of features and heads may hold anything, so files are numbered
    arrays = {f"column.{place}": split.columns[name] for place, name in enumerate(split.features)}
    arrays |= {f"label.{place}": split.labels[head.name] for place, head in enumerate(split.heads)}
    arrays["parts"] = split.parts
    arrays |= {name: array for name in ("groups", "weights") if (array := getattr(split, name)) is not None}
    with atomic_folder(folder) as target:
        for name, array in arrays.items():
            np.save(target / f"{name}.npy", array, allow_pickle=False)
        pq.write_table(split.raw, target / "raw.parquet", compression="zstd")
        if split.quarantine is not None:
            pq.write_table(split.quarantine, target / "quarantine.parquet", compression="zstd")
        write_json(target / "features.json", {name: one.to_json() for name, one in split.features.items()})
        write_json(target / "manifest.json", {
            "schema": _SCHEMA,
            "kind": _KIND,
            "name": split.name,
            "method": split.method,
            "rows": len(split),
            "parts": {part: split.n_rows(part) for part in ("train", "valid", "test")},
            "features": list(split.features),
            "heads": [
                {"name": head.name, "kind": head.kind, "classes": list(head.classes), "after": head.after}
                for head in split.heads
            ],
            "counts": dict(split.counts),
            "digest": split.digest,
            "files": {path.name: digest_file(path) for path in sorted(target.iterdir())},
        })


def load_rows(folder: str | Path) -> RowSplit:
    """The table in `folder`; its arrays are memory-mapped, read-only.

    Raises DataError when files are missing, changed, or of another kind or version.
    """
    folder = Path(folder)
    recover(folder)
    with well_formed(folder / "manifest.json"):
        return _read(folder)


def _read(folder: Path) -> RowSplit:
    manifest = _manifest(folder)
    arrays: dict[str, Any] = {
        name.removesuffix(".npy"): np.load(folder / name, mmap_mode="r", allow_pickle=False)
        for name in manifest["files"] if name.endswith(".npy")
    }
    described = read_json(folder / "features.json")
    features = {name: Feature.from_json(described[name]) for name in manifest["features"]}
    heads = tuple(Head(one["name"], one["kind"], tuple(one["classes"]), one["after"]) for one in manifest["heads"])
    split = RowSplit(
        manifest["name"], manifest["method"], features,
        {name: arrays[f"column.{place}"] for place, name in enumerate(features)},
        heads, {head.name: arrays[f"label.{place}"] for place, head in enumerate(heads)},
        arrays["parts"], pq.read_table(folder / "raw.parquet"),
        arrays.get("groups"), arrays.get("weights"), manifest["counts"],
        pq.read_table(folder / "quarantine.parquet") if "quarantine.parquet" in manifest["files"] else None,
    )
    if split.digest != manifest["digest"]:
        raise damaged(folder, "the data do not have the digest of the manifest")
    return split


def _manifest(folder: Path) -> dict[str, Any]:
    path = folder / "manifest.json"
    if not path.is_file():
        raise DataError(problem(f"{folder} holds no prepared data (no manifest.json)",
                                "the folder that prepare wrote", "run distilrec prepare, or check the path"))
    try:
        manifest = read_json(path)
    except ValueError as error:
        raise damaged(folder, f"manifest.json is not JSON ({error})") from error
    seen = [manifest.get(key) for key in ("kind", "schema")] if isinstance(manifest, dict) else [None, None]
    if seen != [_KIND, _SCHEMA]:
        raise DataError(problem(f"{folder} holds data of the kind {seen[0]}, schema {seen[1]}",
                                f"a table of examples ({_KIND}), schema {_SCHEMA}", "run distilrec prepare again"))
    verify_files(folder, manifest["files"])
    return manifest
