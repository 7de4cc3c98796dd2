"""Files and folders that take the place of others: whatever a kill leaves behind, the old or the new is found."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

import distilrec
from distilrec import files
from distilrec.bundle.runtime import load
from distilrec.data import load_split
from distilrec.errors import BundleError, DataError
from distilrec.files import atomic_folder, digest_file, known_digest, read_json, recover, write_json

KILLED = """
import os, sys
from pathlib import Path
from distilrec.files import atomic_folder
target, renames, real = Path(sys.argv[1]), 0, Path.replace
def dying(self, to):
    global renames
    renames += 1
    if renames == 2:  # the old folder is out of the way, the new one is not in its place
        os._exit(9)
    return real(self, to)
Path.replace = dying
with atomic_folder(target) as folder:
    (folder / "what").write_text("new")
"""


def killed_between_the_renames(target: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(distilrec.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", KILLED, str(target)], env=environment, check=False)
    assert done.returncode == 9
    assert not target.exists()


def make(target: Path, text: str) -> None:
    with atomic_folder(target) as folder:
        (folder / "what").write_text(text)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    make(tmp_path / "thing.v1", "old")
    return tmp_path / "thing.v1"


def test_a_folder_is_swapped_and_nothing_is_left_beside_it(target: Path) -> None:
    make(target, "new")
    assert (target / "what").read_text() == "new"
    assert list(target.parent.iterdir()) == [target]


def test_what_a_kill_took_away_is_brought_back(target: Path) -> None:
    killed_between_the_renames(target)
    recover(target)
    assert (target / "what").read_text() == "old"
    assert not list(target.parent.glob(".*.old"))
    recover(target)
    assert (target / "what").read_text() == "old"


def test_the_next_writer_brings_it_back_before_it_begins(target: Path) -> None:
    killed_between_the_renames(target)
    with pytest.raises(ZeroDivisionError), atomic_folder(target):
        assert (target / "what").read_text() == "old"
        _ = 1 / 0
    assert (target / "what").read_text() == "old"
    make(target, "new")
    assert (target / "what").read_text() == "new"


def test_readers_bring_it_back(tmp_path: Path) -> None:
    for read, error in ((load_split, DataError), (load, BundleError)):
        target = tmp_path / read.__name__
        make(target, "old")
        killed_between_the_renames(target)
        with pytest.raises(error):
            read(target)  # what lies there is neither data nor a bundle, but it lies there again
        assert (target / "what").read_text() == "old"


def test_a_folder_with_a_longer_name_is_not_taken_for_it(target: Path) -> None:
    killed_between_the_renames(target)
    other = target.with_name("thing")
    recover(other)
    assert not other.exists()
    recover(target)
    assert (target / "what").read_text() == "old"


def test_a_reader_in_between_does_not_stop_the_writer(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, renames = Path.replace, []

    def interrupted(self: Path, to: Path) -> Path:
        renames.append(to)
        if len(renames) == 2:  # just before the new folder takes its place, a reader brings the old one back
            recover(target)
        return real(self, to)

    monkeypatch.setattr(Path, "replace", interrupted)
    make(target, "new")
    assert (target / "what").read_text() == "new"
    assert list(target.parent.iterdir()) == [target]


def test_leavings_are_removed_once_nobody_can_be_at_work_on_them(target: Path) -> None:
    ago = time.time() - 4000
    for name, old in ((".thing.v1.abcdefgh.part", True), (".thing.v1.12345678.part", False),
                      (".thing.v1.ijklmnop.old", True), (".thing.v1.more.abcdefgh.part", True)):
        place = target.with_name(name)
        place.mkdir()
        (place / "x").write_text("x")
        if old:
            os.utime(place, (ago, ago))
    make(target, "new")
    left = {path.name for path in target.parent.iterdir()}
    assert left == {"thing.v1", ".thing.v1.12345678.part", ".thing.v1.more.abcdefgh.part"}


def test_a_swap_that_fails_leaves_the_old_folder(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = Path.replace

    def full(self: Path, to: Path) -> Path:
        if self.name.endswith(".part"):
            raise OSError(28, "No space left on device")
        return real(self, to)

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        make(target, "new")
    assert (target / "what").read_text() == "old"
    assert list(target.parent.iterdir()) == [target]


def test_leavings_of_killed_writers_of_files_are_removed_by_the_next(tmp_path: Path) -> None:
    ago = time.time() - 4000
    names = {".a.json.abcdefgh.part": True, ".a.json.12345678.part": False, ".b.json.abcdefgh.part": True}
    for name, old in names.items():
        (tmp_path / name).write_text("half")
        if old:
            os.utime(tmp_path / name, (ago, ago))
    write_json(tmp_path / "a.json", {"a": 1})
    assert {path.name for path in tmp_path.iterdir()} == {"a.json", ".a.json.12345678.part", ".b.json.abcdefgh.part"}


def test_a_new_name_is_on_disk_before_the_writer_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The content before the rename, the names after it: so a power cut finds the old or the new thing."""
    done: list[str] = []
    real_sync, real_replace = os.fsync, Path.replace

    def sync(handle: int) -> None:
        done.append(f"sync {Path(f'/proc/self/fd/{handle}').readlink().name}")
        real_sync(handle)

    def replace(self: Path, to: Path) -> Path:
        done.append(f"rename to {to.name}")
        return real_replace(self, to)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(Path, "replace", replace)
    write_json(tmp_path / "new" / "a.json", {"a": 1})
    assert done[0] == f"sync {tmp_path.name}", "the folder that the new folder's name is in"
    assert done[1].endswith(".part")
    assert done[2:] == ["rename to a.json", "sync new"]
    done.clear()
    make(tmp_path / "new" / "thing", "x")
    assert done[0] == "sync what"
    assert done[1].endswith(".part")
    assert done[2:] == ["rename to thing", "sync new"]


@pytest.mark.parametrize("content", [b'{"identity": "0123', b"", b"\xff\xfe\x00", b"PK\x03\x04"])
def test_what_is_not_json_is_an_error_that_names_the_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "data.json").write_bytes(content)
    with pytest.raises(DataError, match=r"data\.json is not JSON") as caught:
        read_json(tmp_path / "data.json")
    assert "what to do" in str(caught.value)
    assert isinstance(caught.value, json.JSONDecodeError)
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "nothing.json")


def test_a_digest_is_known_until_the_file_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, read = tmp_path / "big", []
    path.write_bytes(b"one")
    monkeypatch.setattr(files, "digest_file", lambda p: read.append(p) or digest_file(p))
    monkeypatch.setattr(files, "_SETTLED", 10**18)
    assert [known_digest(path), known_digest(path)] == [digest_file(path)] * 2
    assert len(read) == 2, "a file that was written just now is looked at again"
    monkeypatch.setattr(files, "_SETTLED", -1)
    assert [known_digest(path), known_digest(path)] == [digest_file(path)] * 2
    assert len(read) == 3
    before = path.stat()
    time.sleep(0.02)
    path.write_bytes(b"two")  # of the same size
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))  # and with its old time
    assert known_digest(path) == digest_file(path)
    assert len(read) == 4
