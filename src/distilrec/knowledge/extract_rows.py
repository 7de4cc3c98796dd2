"""From a pointwise teacher to a store: its outputs for every train row, and what else it can tell."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any

import numpy as np

from distilrec.errors import KnowledgeError, problem
from distilrec.knowledge.store import KnowledgeStore, StoreWriter
from distilrec.progress import track
from distilrec.types import Signal
from distilrec.types_rows import Predictor, RowSplit

__all__ = ["extract_rows", "importance_of"]


def extract_rows(
    teacher: Predictor, split: RowSplit, folder: Path, *, hidden: bool = False, part_rows: int = 65_536,
    held_out: Predictor | None = None,
) -> KnowledgeStore:
    """Write the teacher's outputs for every train row, and, where it has them, its hidden layer and importances.

    A killed extraction starts again at its first missing part; a finished store of the same teacher and split is
    opened as it is. Both need a teacher with a `digest` that changes with its answers.

    Args:
        hidden: also keep the last hidden layer (for the loss `hint`), float32 [n, H].
        held_out: answers in the teacher's place where it can: copies of the teacher that were trained without the row
            they are asked about, so that the soft labels are opinions and not memories.
    Raises:
        KnowledgeError: the teacher answers with a NaN or in another shape, or has no hidden layer to give.
    """
    speaker: Any = held_out or teacher
    identity = {
        "dataset_digest": split.digest, "split_digest": split.digest, "teacher": teacher.name, "part_rows": part_rows,
        "teacher_digest": getattr(speaker, "digest", None) or secrets.token_hex(16), "hidden": hidden, "key": "row",
    }
    if (folder / "manifest.json").exists():
        store = KnowledgeStore(folder, split)
        if store.manifest["identity"] == identity:
            return store
        (folder / "manifest.json").unlink()
    if hidden and not hasattr(speaker, "hidden"):
        raise KnowledgeError(problem(f"the teacher {teacher.name!r} has no hidden layer to write down",
                                     "a trained neural model", "leave `hidden` and the loss `hint` out"))
    rows = split.rows("train")
    writer = StoreWriter(folder, identity)
    parts = -(-len(rows) // part_rows)
    with track(parts, "extracting knowledge") as progress:
        for part in range(parts):
            asked = rows[part * part_rows : (part + 1) * part_rows]
            if not writer.has("response", part):
                _write(writer, "response", part, asked, speaker.predict(split, asked), split.outputs.size)
            if hidden and not writer.has("hidden", part):
                _write(writer, "hidden", part, asked, speaker.hidden(split, asked), None)
            progress.advance(1)
    signals = {"response": Signal("response", "response", "row", space="logit", teacher=teacher.name,
                                  width=split.outputs.size)}
    if hidden:
        signals["hidden"] = Signal("hidden", "hidden", "row", teacher=teacher.name)
    facts: dict[str, Any] = {"name": teacher.name, "parameters": teacher.parameters}
    shares = getattr(teacher, "importance", None)
    if shares is not None and (told := shares()):
        facts["importance"] = {name: float(value) for name, value in told.items()}
    for name in ("architecture", "settings", "source"):
        if hasattr(teacher, name):
            facts[name] = getattr(teacher, name)
    writer.finish(signals, facts)
    return KnowledgeStore(folder, split)


def importance_of(store: KnowledgeStore) -> dict[str, float]:
    """feature -> share of what the teacher found useful.

    Raises:
        KnowledgeError: the teacher did not say.
    """
    told = store.manifest["teacher"].get("importance")
    if not told:
        raise KnowledgeError(problem(f"the store {store.folder} holds no feature importance",
                                     "knowledge of a teacher that has it, such as trees", "choose another start"))
    return dict(told)


def _write(
    writer: StoreWriter, name: str, part: int, keys: np.ndarray, values: np.ndarray, width: int | None
) -> None:
    values = np.asarray(values, dtype=np.float32)
    if values.ndim != 2 or len(values) != len(keys) or (width is not None and values.shape[1] != width):
        raise KnowledgeError(problem(f"the teacher's {name} has shape {values.shape}",
                                     f"({len(keys)}, {width if width is not None else 'H'})", "mend the teacher"))
    if not np.isfinite(values).all():
        row = int(keys[~np.isfinite(values).all(axis=1)][0])
        raise KnowledgeError(problem(f"the teacher's {name} of row {row} is not finite", "finite numbers",
                                     "mend the teacher's output"))
    writer.write(name, part, {"keys": keys, "values": values})
