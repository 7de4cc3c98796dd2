"""The layouts in which public logs come, each read into the same three tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from distilrec.data import published
from distilrec.data.published import RawLog
from distilrec.data.read import SUFFIXES, read_raw, read_table
from distilrec.errors import DataError, nearest, problem

__all__ = ["LAYOUTS", "RawLog", "detect_layout", "find_file", "layout_files", "read_layout"]

Test = Callable[[Path], bool]
Reader = Callable[[Path], RawLog]
Finder = Callable[[Path], Sequence[Path | None]]


def find_file(folder: Path, stems: Sequence[str]) -> Path | None:
    """The first existing file of `folder` that has one of these names and a known suffix, .gz included."""
    for stem in stems:
        for suffix in SUFFIXES:
            for name in (f"{stem}{suffix}", f"{stem}{suffix}.gz"):
                if (folder / name).is_file():
                    return folder / name
    return None


def _read_shared(path: Path) -> RawLog:
    """A folder with interactions.*, and optionally items.* and users.* (Parquet, CSV, TSV, JSON Lines)."""
    events = find_file(path, ("interactions",))
    if events is None:
        raise DataError(
            problem(
                f"{path} has no interactions.parquet",
                "a folder of the shared layout",
                "check the path or choose another layout",
            )
        )
    items, users = find_file(path, ("items",)), find_file(path, ("users",))
    return RawLog(
        "shared",
        read_raw(events),
        None if items is None else read_table(items),
        None if users is None else read_table(users),
    )


def _read_file(path: Path) -> RawLog:
    """One file of interactions, columns by name."""
    return RawLog("table", read_raw(path))


def _shared_files(path: Path) -> list[Path | None]:
    return [find_file(path, (name,)) for name in ("interactions", "items", "users")]


def _named(*names: str) -> Finder:
    return lambda path: [published.existing(path / name) for name in names]


def _itself(path: Path) -> list[Path | None]:
    return [path]


def _has(*names: str) -> Test:
    return lambda path: (
        path.is_dir() and all((path / name).is_file() or (path / f"{name}.gz").is_file() for name in names)
    )


# name -> (does this path look like it, how to read it, the files that are read); the first that fits is taken
LAYOUTS: Mapping[str, tuple[Test, Reader, Finder]] = {
    "shared": (
        lambda path: path.is_dir() and find_file(path, ("interactions",)) is not None, _read_shared, _shared_files,
    ),
    "movielens-100k": (_has("u.data"), published.read_movielens_100k, _named("u.data", "u.item", "u.user")),
    "movielens-1m": (
        _has("ratings.dat"), published.read_movielens_1m, _named("ratings.dat", "movies.dat", "users.dat"),
    ),
    "movielens-latest": (
        _has("ratings.csv", "movies.csv"), published.read_movielens_latest, _named("ratings.csv", "movies.csv"),
    ),
    "amazon": (published.is_amazon, published.read_amazon, published.amazon_files),
    "sequences": (published.is_sequences, published.read_sequences, _itself),
    "table": (lambda path: path.is_file(), _read_file, _itself),
}


def detect_layout(path: str | Path) -> str:
    """The name of the layout that `path` (a file or a folder) has. Raises DataError if none fits."""
    path = Path(path)
    if not path.exists():
        raise DataError(problem(f"there is no {path}", "a file or a folder of interactions", "check the path"))
    for name, (fits, _, _) in LAYOUTS.items():
        if fits(path):
            return name
    held = ", ".join(sorted(child.name for child in path.iterdir())[:8]) or "nothing"
    raise DataError(
        problem(
            f"{path} has no known layout; it holds {held}",
            "interactions.parquet (or .csv, .jsonl), MovieLens files, Amazon reviews, or one sequence per line",
            "point to one file of interactions and name its columns",
        )
    )


def read_layout(path: str | Path, layout: str | None = None) -> RawLog:
    """The tables of a file or folder. Raises DataError for an unknown layout and for whatever its reader finds."""
    path = Path(path)
    return LAYOUTS[_chosen(path, layout)][1](path)


def layout_files(path: str | Path, layout: str | None = None) -> list[Path]:
    """The files that `read_layout` reads, and no other: a log's metadata may lie beside it, and a run in its folder.

    Raises DataError as `read_layout` does for a path or a layout that is not there.
    """
    path = Path(path)
    found = LAYOUTS[_chosen(path, layout)][2](path)
    return [file for file in found if file is not None and file.is_file()]


def _chosen(path: Path, layout: str | None) -> str:
    if layout is not None and layout not in LAYOUTS:
        raise DataError(
            problem(f"unknown layout {layout!r}{nearest(layout, LAYOUTS)}", ", ".join(LAYOUTS), "choose one of these")
        )
    detected = layout or detect_layout(path)
    if not path.exists():
        raise DataError(problem(f"there is no {path}", "a file or a folder of interactions", "check the path"))
    return detected
