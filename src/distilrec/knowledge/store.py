"""The knowledge store: what a teacher knows, on disk.

    manifest.json            schema, data and split digests, the teacher, one entry per signal and file
    NAME.safetensors         keys int64 [N] (rising), then for a response `ids` [N, K] and `logits` float16 [N, K],
                             for a vector, and for a response by row, `values` float32 [N, D], for the states of S
                             layers float16 [N, S, H]
    parts/                   only while extraction runs: whole parts, so that a killed run goes on

A response is kept as log-probabilities over the whole catalog, of the K best items. They are logits (softmax does not
see the constant), and the share of probability that the K items hold can be read off them.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Collection, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal

import numpy as np
from safetensors.numpy import save_file

from distilrec.errors import KnowledgeError, problem
from distilrec.files import NotJsonError, atomic_file, digest_file, known_digest, read_json, well_formed, write_json
from distilrec.types import Signal, Split
from distilrec.types_rows import RowSplit

__all__ = ["SCHEMA", "KnowledgeStore", "StoreWriter", "map_file"]

SCHEMA = 1
_KINDS = {"I64": "<i8", "F32": "<f4", "I32": "<i4", "F16": "<f2", "U16": "<u2"}  # in the order of a file, for alignment
_AGAIN = "delete the store and run `distilrec extract` again"


class KnowledgeStore:
    """A finished store, memory-mapped; implements `types.Knowledge`."""

    def __init__(self, folder: Path, split: Split | RowSplit | None = None, *, verify: bool = True) -> None:
        """Open a store; with a split, refuse one that belongs to other data.

        `verify` compares every file's SHA-256 with the manifest; bytes that this process has already read are not
        read again while the file's size and times are the same.

        Raises:
            KnowledgeError: no store here, an unfinished one, a changed file, other data.
        """
        self.folder = Path(folder)
        with well_formed(self.folder / "manifest.json", KnowledgeError):
            self._open(split, verify)

    def _open(self, split: Split | RowSplit | None, verify: bool) -> None:
        self.manifest = _read_manifest(self.folder)
        if split is not None:
            self.check(split)
        self._signals = {name: Signal(**entry["signal"]) for name, entry in self.manifest["signals"].items()}
        self._split = split if isinstance(split, Split) else None
        self._arrays: dict[str, dict[str, np.ndarray]] = {}
        for name, entry in self.manifest["signals"].items():
            path = self.folder / entry["file"]
            if not path.exists():
                raise KnowledgeError(problem(f"{path} is missing", do=_AGAIN))
            if verify and known_digest(path) != entry["sha256"]:
                raise KnowledgeError(problem(f"{path} has changed since it was written",
                                             f"SHA-256 {entry['sha256']}", _AGAIN))
            self._arrays[name] = map_file(path)

    def __repr__(self) -> str:
        return f"KnowledgeStore({str(self.folder)!r}, of {self.manifest['teacher']['name']}, {', '.join(self.signals)})"

    @property
    def signals(self) -> Mapping[str, Signal]:
        return self._signals

    def check(self, split: Split | RowSplit) -> None:
        """Raises KnowledgeError unless this is the split that the store was made from."""
        if self.manifest["split_digest"] != split.digest:
            same = isinstance(split, Split) and self.manifest["dataset_digest"] == split.dataset.digest
            raise KnowledgeError(problem(
                f"the store {self.folder} was made from another {'split of this data set' if same else 'data set'} "
                f"(split {self.manifest['split_digest'][:12]})",
                f"split {split.digest[:12]}",
                "run `distilrec extract` on this split; `dr.extend` carries a store over to a log that has grown",
            ))

    @property
    def digest(self) -> str:
        return "".join(entry["sha256"][:16] for entry in self.manifest["signals"].values())

    def batch(self, keys: np.ndarray, signals: Collection[str] | None = None) -> dict[str, np.ndarray]:
        """Knowledge of the decisions `keys`, as `types.Knowledge.batch` lays down.

        Raises:
            KnowledgeError: the store says nothing about some of the keys.
        """
        out: dict[str, np.ndarray] = {}
        for name, signal in self._signals.items():
            unwanted = signals is not None and name not in signals
            if unwanted or signal.key in ("item", "model") or signal.kind == "rows":
                continue
            arrays = self._arrays[name]
            rows = self.rows(name, keys)
            if signal.kind != "response" or signal.key == "row":
                out[name] = arrays["values"][rows].astype(np.float32)
                continue
            logits = arrays["logits"][rows].astype(np.float32)
            out[name] = logits
            out[f"{name}.ids"] = arrays["ids"][rows].astype(np.int32)
            if "trust" in arrays:
                out[f"{name}.trust"] = arrays["trust"][rows].astype(np.float32)
            if signal.space == "logit":
                out[f"{name}.mass"] = np.exp(logits).sum(1).clip(max=1.0)
        return out

    def vectors(self, name: str) -> np.ndarray | None:
        """float32 [I, D] of a signal that is keyed by item; None if the store has no such signal."""
        if name not in self._signals:
            return None
        return self._arrays[name]["values"].astype(np.float32)

    def extra_rows(self) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """(keys int64 [M], {feature: encoded [M, ...]}) of rows that nobody logged and the teacher answered all the
        same; none where extraction was not asked for any. Their keys come after those of the table."""
        if "extra" not in self._arrays:
            return np.empty(0, dtype=np.int64), {}
        arrays = self._arrays["extra"]
        return arrays["keys"], {name.removeprefix("column."): a for name, a in arrays.items() if name != "keys"}

    def arrays(self, name: str) -> Mapping[str, np.ndarray]:
        """The memory-mapped arrays of a signal: `keys` [N] and what it holds of each."""
        return self._arrays[name]

    def rows(self, name: str, keys: np.ndarray) -> np.ndarray:
        """int64 [B]: where the decisions `keys` stand in the arrays of a signal.

        Raises:
            KnowledgeError: the store says nothing about some of them.
        """
        if self._signals[name].key == "user":
            keys = self.users_of(keys)
        have = self._arrays[name]["keys"]
        rows = np.searchsorted(have, keys)
        found = rows < len(have)
        found[found] = have[rows[found]] == keys[found]
        if not found.all():
            raise KnowledgeError(problem(
                f"the store {self.folder} says nothing about {int((~found).sum())} of {len(keys)} decisions "
                f"(first key {int(keys[~found][0])})",
                "the decisions of the split it was extracted from", "open the store with the split you train on",
            ))
        return rows

    def told(self) -> np.ndarray:
        """bool [N]: of which decisions the response says anything; False where it was left out (see `extend`)."""
        arrays = self._arrays["response"]
        return np.asarray(arrays["trust"] > 0) if "trust" in arrays else np.ones(len(arrays["keys"]), dtype=bool)

    def users_of(self, keys: np.ndarray) -> np.ndarray:
        """The user of each decision, for knowledge that is kept per user."""
        if self._split is None:
            raise KnowledgeError(problem("knowledge per user needs the split", do="KnowledgeStore(folder, split)"))
        return self._split.deciders(keys)


class StoreWriter:
    """Writes a store part by part. Parts that a killed run left whole are kept and need not be made again."""

    def __init__(self, folder: Path, identity: Mapping[str, Any]) -> None:
        """`identity` holds what must be equal for old parts to be of use (digests, teacher, top_k)."""
        self.folder, self.identity = Path(folder), json.loads(json.dumps(dict(identity)))
        self.parts = self.folder / "parts"
        marker = self.parts / "identity.json"
        # Parts without their marker are what a kill left of a clean-up: nobody knows whose they are.
        if self.parts.exists() and not (marker.exists() and read_json(marker) == self.identity):
            self._clear()
        if not marker.exists():
            write_json(marker, self.identity)

    def has(self, name: str, part: int) -> bool:
        return self._path(name, part).exists()

    def write(self, name: str, part: int, arrays: Mapping[str, np.ndarray]) -> None:
        with atomic_file(self._path(name, part)) as temporary:
            save_file({key: np.ascontiguousarray(value) for key, value in arrays.items()}, temporary)

    def read(self, name: str, part: int) -> dict[str, np.ndarray]:
        """A part that was written, memory-mapped."""
        return map_file(self._path(name, part))

    def finish(self, signals: Mapping[str, Signal], teacher: Mapping[str, Any]) -> None:
        """Join the parts of each signal into one file sorted by key, write the manifest last, drop the parts."""
        entries = {}
        for name, signal in signals.items():
            paths = sorted(self.parts.glob(f"{name}-*.safetensors"))
            target = self.folder / f"{name}.safetensors"
            with atomic_file(target) as temporary:
                _join([map_file(path) for path in paths], temporary)
            joined = map_file(target)
            values = joined.get("values")
            wide = signal.width or (0 if values is None else int(np.prod(values.shape[1:])) if values.ndim > 1 else 0)
            described = {**asdict(signal), "rows": len(joined["keys"]), "width": wide}
            entries[name] = {"signal": described, "file": target.name, "sha256": digest_file(target),
                             "bytes": target.stat().st_size}
        write_json(self.folder / "manifest.json", {
            "schema": SCHEMA, "dataset_digest": self.identity["dataset_digest"],
            "split_digest": self.identity["split_digest"], "teacher": dict(teacher), "identity": self.identity,
            "signals": entries,
        })
        self._clear()
        self.parts.rmdir()

    def _clear(self) -> None:
        """Delete all parts, the marker that says whose they are last."""
        for old in sorted(self.parts.iterdir(), key=lambda path: path.name == "identity.json"):
            old.unlink()

    def _path(self, name: str, part: int) -> Path:
        return self.parts / f"{name}-{part:05d}.safetensors"


def map_file(path: Path, *, mode: Literal["r", "r+"] = "r") -> dict[str, np.ndarray]:
    """Memory-map every array of a safetensors file (the library itself reads slices, not scattered rows).

    Raises:
        KnowledgeError: the file is cut off or not safetensors.
    """
    try:
        with path.open("rb") as file:
            (size,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(size))
    except (struct.error, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise KnowledgeError(problem(f"{path} is not a whole safetensors file", do=_AGAIN)) from error
    header.pop("__metadata__", None)
    if path.stat().st_size < 8 + size + max((entry["data_offsets"][1] for entry in header.values()), default=0):
        raise KnowledgeError(problem(f"{path} is cut off", do=_AGAIN))
    arrays: dict[str, np.ndarray] = {}
    for name, entry in header.items():
        begin, kind = 8 + size + entry["data_offsets"][0], _KINDS[entry["dtype"]]
        arrays[name] = np.memmap(path, dtype=kind, mode=mode, offset=begin, shape=tuple(entry["shape"]))
    return arrays


def _join(parts: list[dict[str, np.ndarray]], target: Path) -> None:
    """Write the rows of all parts to one file, sorted by key. One part at a time is in memory: hidden states of a
    large log are not small."""
    keys = np.concatenate([part["keys"] for part in parts])
    place = np.empty(len(keys), dtype=np.int64)
    place[np.argsort(keys, kind="stable")] = np.arange(len(keys))
    _lay_out(target, {name: (array.dtype, (len(keys), *array.shape[1:])) for name, array in parts[0].items()})
    joined, begin = map_file(target, mode="r+"), 0
    for part in parts:
        rows = place[begin : begin + len(part["keys"])]
        for name, array in part.items():
            joined[name][rows] = array
        begin += len(rows)


def _lay_out(path: Path, arrays: Mapping[str, tuple[np.dtype, tuple[int, ...]]]) -> None:
    """A safetensors file of arrays of these kinds and shapes, all zero, to be filled by `map_file`: the library itself
    writes only what is whole in memory. Byte for byte it is the library's file."""
    header, end = {}, 0
    for kind, code in _KINDS.items():
        for name, (dtype, shape) in sorted(arrays.items()):
            if dtype == np.dtype(code):
                size = math.prod(shape) * dtype.itemsize
                header[name] = {"dtype": kind, "shape": list(shape), "data_offsets": [end, end + size]}
                end += size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)


def _read_manifest(folder: Path) -> dict[str, Any]:
    path = folder / "manifest.json"
    if not path.exists():
        running = (folder / "parts").exists()
        raise KnowledgeError(problem(
            f"{folder} holds {'an unfinished' if running else 'no'} knowledge store", "manifest.json",
            "run `distilrec extract`" + (" again: it goes on where it stopped" if running else ""),
        ))
    try:
        manifest = read_json(path)
    except NotJsonError as error:
        raise KnowledgeError(problem(f"{path} is not JSON ({error.msg})", do=_AGAIN)) from error
    schema = manifest.get("schema") if isinstance(manifest, dict) else None
    if schema != SCHEMA:
        raise KnowledgeError(problem(f"{path} has schema {schema!r}", f"schema {SCHEMA}",
                                     "extract again with this version of distilrec"))
    return manifest
