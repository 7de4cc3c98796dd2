"""Writing that is never half done, and digests.

Everything distilrec puts on disk is written under a temporary name beside its goal and renamed when it
is whole, so a kill, a full disk or a power cut leaves either the old thing or the new thing. A folder takes two
renames: a kill between them leaves the old one under a hidden name, from which `recover` brings it back when it is
next asked for. What killed writers leave beside a goal is removed by the next one that writes there.
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

from distilrec.errors import DataError, DistilrecError, problem

__all__ = [
    "NotJsonError", "atomic_file", "atomic_folder", "digest_arrays", "digest_file", "digest_json", "known_digest",
    "read_json", "read_object", "recover", "well_formed", "write_json",
]

_STALE = 3600.0  # seconds after which nobody is at work on a temporary file or folder any more
_SETTLED = 2_000_000_000  # nanoseconds after which a change of a file is sure to show in its times
_RESTORE = "restore it, or delete it and run the same command again"
_known: dict[str, tuple[tuple[int, ...], str]] = {}  # path -> (size, times, inode) and SHA-256, of this process


class NotJsonError(DataError, json.JSONDecodeError):
    """A file that should hold JSON is cut off or holds something else."""

    def __init__(self, path: Path, error: ValueError) -> None:
        at = (error.doc, error.pos) if isinstance(error, json.JSONDecodeError) else ("", 0)
        json.JSONDecodeError.__init__(self, str(error), *at)
        self.args = (problem(f"{path} is not JSON ({error})", "the whole file, as it was written", _RESTORE),)


@contextlib.contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it takes the place of `path`."""
    path = Path(path)
    _make(path.parent)
    _sweep(path)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        _sync(temporary)
        # mkstemp makes private files; what we publish follows the user's umask like any other file
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
        _sync(path.parent)  # the new name is on disk when we say so, not only in the system's memory
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(path: str | Path) -> Iterator[Path]:
    """Yield an empty temporary folder beside `path`; on success it takes the place of `path`."""
    path = Path(path)
    _make(path.parent)
    recover(path)
    _sweep(path)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part"))
    try:
        yield temporary
        temporary.chmod(0o755)
        for written in temporary.rglob("*"):
            _sync(written)
        _sync(temporary)
        _swap(temporary, path)
        _sync(path.parent)
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


def _make(folder: Path) -> None:
    """A folder with all that leads to it, each on disk."""
    missing = [one for one in (folder, *folder.parents) if not one.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for one in reversed(missing):
        _sync(one.parent)


def _sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on disk."""
    folder = path.is_dir()
    if folder and os.name == "nt":  # Windows opens no folder; its file system keeps names by a journal
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if not folder or error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network shares know it for files only
            raise
    finally:
        os.close(handle)


def _sweep(path: Path) -> None:
    """Remove what kills left beside `path`."""
    for left in (*_siblings(path, "part"), *_siblings(path, "old")):
        with contextlib.suppress(FileNotFoundError):
            if time.time() - left.stat().st_mtime <= _STALE:
                continue
            if left.is_dir():
                shutil.rmtree(left, ignore_errors=True)
            else:
                left.unlink()


def _siblings(path: Path, suffix: str) -> list[Path]:
    """What is temporary of `path`, and not of a `path.more`: tempfile's names have eight characters."""
    form = re.compile(rf"\.{re.escape(path.name)}\.[a-z0-9_]{{8}}\.{suffix}")
    return sorted(one for one in path.parent.iterdir() if form.fullmatch(one.name))


def write_json(path: str | Path, document: Mapping[str, Any]) -> None:
    """Write `document` as indented UTF-8 JSON, atomically. NaN is refused: JSON has no such number."""
    with atomic_file(path) as temporary:
        text = json.dumps(document, indent=2, ensure_ascii=False, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: str | Path) -> Any:
    """The document in a file. Raises NotJsonError, a DataError, for one that is cut off or of another kind."""
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:  # no JSON, or not even UTF-8
        raise NotJsonError(Path(path), error) from error


def read_object(path: str | Path, fields: Mapping[str, type]) -> dict[str, Any]:
    """A JSON object that has at least `fields`, each of its type. Raises DataError for any other document."""
    document = read_json(path)
    held = document if isinstance(document, dict) else {}
    wrong = [name for name, kind in fields.items() if not isinstance(held.get(name), kind)]
    if wrong or not isinstance(document, dict):
        raise DataError(problem(f"{path}: {', '.join(wrong) or 'all of it'} is missing or of another type",
                                "the document as it was written", _RESTORE))
    return document


@contextlib.contextmanager
def well_formed(path: str | Path, error: type[DistilrecError] = DataError) -> Iterator[None]:
    """Around the reading of a document: where it is of another form than was written, `error` names the file.

    JSON that is whole can still lack a field or hold a list where a number belongs; what Python makes of that says
    nothing to who has to mend it.
    """
    try:
        yield
    except DistilrecError:
        raise
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError, OverflowError) as found:
        raise error(problem(f"{path} is not of the form in which it was written ({type(found).__name__}: {found})",
                            "the document as it was written", _RESTORE)) from found


def digest_file(path: str | Path) -> str:
    """SHA-256 of a file's bytes, in hex."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def known_digest(path: str | Path) -> str:
    """As `digest_file`; a file whose size, times and inode are those of its last reading is not read again.

    Remembered within this process only, so the first look is always at the bytes. A file that was written a moment
    ago is not remembered: a second change within one tick of the clock would not show in its times.
    """
    name, state = os.path.realpath(path), Path(path).stat()
    marks = (state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino)
    if name in _known and _known[name][0] == marks:
        return _known[name][1]
    begun = time.time_ns()
    digest = digest_file(path)
    if begun - max(state.st_mtime_ns, state.st_ctime_ns) > _SETTLED:
        _known[name] = (marks, digest)
    return digest


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
