"""Small facts about a run: who is at work on it, where its cache is, what went in, and how to say what came out."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

from distilrec.data.layouts import layout_files
from distilrec.errors import DataError, KnowledgeError, problem
from distilrec.files import digest_file, digest_json, read_object, write_json
from distilrec.recipe import Recipe
from distilrec.types import PARTS, Split
from distilrec.types_rows import RowSplit

__all__ = [
    "cache_folder", "check_knowledge", "check_students", "describe", "inputs", "knowledge_identity", "lock", "stamped",
    "students_identity", "validation",
]


@contextlib.contextmanager
def lock(out: str | Path) -> Iterator[None]:
    """Keep the run folder `out` to this process while the block runs: two runs in one folder would mix their stages.

    The system drops the lock when the process ends, however it ends; the file OUT/.lock stays and is no obstacle.
    Not to be taken twice, not even by one process. Where the system has no such locks (Windows), nothing is locked.

    Raises DataError that names the process at work in the folder.
    """
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    handle = os.open(out / ".lock", os.O_RDWR | os.O_CREAT, 0o666)
    try:
        if fcntl is not None:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise _in_use(out, os.read(handle, 32).decode("ascii", errors="replace").strip()) from None
        os.ftruncate(handle, 0)
        os.write(handle, f"{os.getpid()}\n".encode())
        yield
    finally:
        os.close(handle)


def _in_use(out: Path, holder: str) -> DataError:
    who = f"process {holder}" if holder else "another process"
    stop = f", stop it (kill {holder})" if holder else ""
    return DataError(problem(f"{who} is at work in {out}", "one run at a time in a folder",
                             f"wait for its end{stop}, or give another folder with --out"))


def cache_folder() -> Path:
    """Where text vectors are kept between runs: DISTILREC_CACHE, or the user's cache folder."""
    if "DISTILREC_CACHE" in os.environ:
        return Path(os.environ["DISTILREC_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "distilrec"


def inputs(recipe: Recipe) -> list[str]:
    """Digests of every input file, so that changed data are seen.

    Of a log in a known layout these are the files that are read, metadata beside the log among them, and no other:
    a run folder among the data is no input. Raises DataError for a path or a layout that is not there.
    """
    data = recipe.data
    if data.path is None:
        logs = []
    elif recipe.task == "rank":
        logs = layout_files(data.path, data.layout)
    else:
        logs = _files(Path(data.path))
        logs += [file for file in _joined(recipe) if file not in logs]
    beside = (data.items, data.users, *(one.path for one in data.joins))
    tables = [file for path in beside if path is not None for file in _files(Path(path))]
    return [f"{file.name}:{digest_file(file)}" for file in (*logs, *tables)]


def _joined(recipe: Recipe) -> list[Path]:
    """The joined tables, looked for where data.row_table.join looks: beside the table, then from here."""
    source = Path(recipe.data.path or ".")
    beside = source if source.is_dir() else source.parent
    places = [(beside / one.path, Path(one.path)) for one in recipe.data.joins]
    return [next(file for file in pair if file.is_file()) for pair in places if any(map(Path.is_file, pair))]


def _files(path: Path) -> list[Path]:
    return [file for file in (sorted(path.glob("*")) if path.is_dir() else [path]) if file.is_file()]


def knowledge_identity(recipe: Recipe) -> str:
    """Changes with whatever in a recipe decides what its store holds: the teacher and the section knowledge."""
    text = None if recipe.text is None else recipe.text.model_dump(mode="json")
    return digest_json([recipe.teacher.model_dump(mode="json"), recipe.knowledge.model_dump(mode="json"), text])


@contextlib.contextmanager
def stamped(folder: Path, identity: str) -> Iterator[None]:
    """Say beside a folder which settings made it; while it is made anew nothing is said."""
    stamp, current = folder.with_name(f"{folder.name}.json"), _stamp_of(folder) == identity
    if not current:
        stamp.unlink(missing_ok=True)
    yield
    if not current:
        write_json(stamp, {"identity": identity})


def _stamp_of(folder: Path) -> str | None:
    stamp = folder.with_name(f"{folder.name}.json")
    return read_object(stamp, {"identity": str})["identity"] if stamp.exists() else None


def check_knowledge(recipe: Recipe, folder: Path) -> None:
    """Refuse a store of this run folder that another teacher, or other settings of knowledge, wrote.

    Raises KnowledgeError; a store that is not there is left to what opens it.
    """
    if not (folder / "manifest.json").exists():
        return
    if _stamp_of(folder) != knowledge_identity(recipe):
        raise KnowledgeError(problem(f"the store {folder} was written for another teacher or other knowledge settings",
                                     "that of this recipe's sections teacher, knowledge and text",
                                     "run `distilrec extract` with this recipe (and the same --set, --teacher) first"))


def students_identity(recipe: Recipe) -> str:
    """Changes with what a recipe says of training student and control. The metric by which they were chosen may change
    afterwards: a report by another one is still of these models."""
    said = recipe.model_dump(mode="json", include={"student", "control", "tune", "refit"})
    return digest_json([said, knowledge_identity(recipe)])


def check_students(recipe: Recipe, folder: Path) -> None:
    """Refuse students of this run folder that another recipe trained: a report of them would be told as of this one.

    Raises KnowledgeError; students that are not there are left to what opens them.
    """
    if not (folder / "student" / "model.json").exists():
        return
    if _stamp_of(folder) != students_identity(recipe):
        how = "were trained by other settings" if _stamp_of(folder) else "are not known to be of these settings"
        raise KnowledgeError(problem(f"the students in {folder} {how}",
                                     "those of this recipe's sections student, control, tune, knowledge and teacher",
                                     "run `distilrec distill` with this recipe (and the same --set) first, which "
                                     "trains what differs anew in its place; another --out keeps both"))


def describe(split: Split | RowSplit) -> str:
    """Users, items and events, or rows, features and heads, in one line."""
    if isinstance(split, RowSplit):
        rows = " + ".join(f"{split.n_rows(part):,} {part}" for part in PARTS)
        return f"{rows} rows, {len(split.features)} features, predicting {', '.join(h.name for h in split.heads)}"
    parts = " + ".join(f"{split.n_events(part):,} {part}" for part in PARTS)
    return f"{split.n_users:,} users, {split.n_items:,} items, {parts} events"


def validation(model: Any) -> str:
    """How a model validated and how long it took; nothing for one that was not trained here."""
    training = getattr(model, "training", None)
    if not training or "valid" not in training:
        return ""
    (metric, value), = training["valid"].items()
    return f", {metric} {value:.4f} on validation, {training['seconds']:.0f} s"
