"""Writing that is never half done, and digests.

Everything distilrec puts on disk is written under a temporary name beside its goal and renamed when it
is whole, so a kill or a full disk leaves either the old thing or the new thing. A folder takes two renames: a kill
between them leaves the old one under a hidden name, from which `recover` brings it back when it is next asked for.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

__all__ = [
    "atomic_file", "atomic_folder", "digest_arrays", "digest_file", "digest_json", "read_json", "recover", "write_json",
]

_STALE = 3600.0  # seconds after which nobody is at work on a temporary folder any more


@contextlib.contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it takes the place of `path`."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        # mkstemp makes private files; what we publish follows the user's umask like any other file
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yield an empty temporary folder beside `path`; on success it takes the place of `path`."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    recover(path)
    _sweep(path)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part"))
    try:
        yield temporary
        temporary.chmod(0o755)
        _swap(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def recover(path: str | Path) -> None:
    """Bring back the folder `path` if a kill left it under the hidden name that it has during a swap.

    Costs one look where the folder is there.
    """
    path = Path(path)
    if path.exists() or not path.parent.is_dir():
        return
    for old in _siblings(path, "old"):
        if (old / path.name).exists():
            with contextlib.suppress(FileNotFoundError):  # somebody else was quicker
                (old / path.name).replace(path)
                old.rmdir()
            return


def _swap(temporary: Path, path: Path) -> None:
    """Put a folder in the place of another one."""
    aside: list[Path] = []
    try:
        while True:
            if path.exists():
                aside.append(Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".old")))
                path.replace(aside[-1] / path.name)
            try:
                temporary.replace(path)
                break
            except OSError as error:  # a reader that found nothing here has just brought the old one back
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
    finally:
        recover(path)
        for old in aside:
            shutil.rmtree(old, ignore_errors=True)


def _sweep(path: Path) -> None:
    """Remove what kills left beside `path`."""
    for left in (*_siblings(path, "part"), *_siblings(path, "old")):
        with contextlib.suppress(FileNotFoundError):
            if left.is_dir() and time.time() - left.stat().st_mtime > _STALE:
                shutil.rmtree(left, ignore_errors=True)


def _siblings(path: Path, suffix: str) -> list[Path]:
    """The temporary folders of `path`, and not those of a `path.more`: tempfile's names have eight characters."""
    form = re.compile(rf"\.{re.escape(path.name)}\.[a-z0-9_]{{8}}\.{suffix}")
    return sorted(one for one in path.parent.iterdir() if form.fullmatch(one.name))


def write_json(path: str | Path, document: Mapping[str, Any]) -> None:
    """Write `document` as indented UTF-8 JSON, atomically. NaN is refused: JSON has no such number."""
    with atomic_file(path) as temporary:
        text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: str | Path) -> Any:
    return json.loads(Path(path).read_text(encoding="utf-8"))


def digest_file(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest_json(document: Any) -> str:
    """SHA-256 of a JSON document in canonical form (sorted keys, no spaces)."""
    text = json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def digest_arrays(*arrays: np.ndarray | list[str] | str) -> str:
    """SHA-256 over arrays (dtype, shape, bytes) and lists of strings, in the order given."""
    sha = hashlib.sha256()
    for array in arrays:
        if isinstance(array, str):
            sha.update(b"s" + array.encode() + b"\0")
        elif isinstance(array, list):
            sha.update(b"l" + "\x1f".join(array).encode() + b"\0")
        else:
            sha.update(f"{array.dtype.str}{array.shape}".encode())
            sha.update(np.ascontiguousarray(array).tobytes())
    return sha.hexdigest()
