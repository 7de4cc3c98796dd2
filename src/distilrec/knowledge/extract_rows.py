"""From a pointwise teacher to a store: its outputs for every train row, and what else it can tell."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from distilrec.errors import KnowledgeError, nearest, problem
from distilrec.knowledge.store import KnowledgeStore, StoreWriter
from distilrec.progress import track
from distilrec.types import Signal
from distilrec.types_rows import Predictor, RowSplit

__all__ = ["extract_rows", "importance_of"]


def extract_rows(
    teacher: Predictor, split: RowSplit, folder: Path, *, hidden: bool = False, part_rows: int = 65_536,
    held_out: Predictor | None = None, extra: float = 0.0, swap: Sequence[str | Sequence[str]] = (), seed: int = 0,
) -> KnowledgeStore:
    """Write the teacher's outputs for every train row, and, where it has them, its hidden layer and importances.

    A killed extraction starts again at its first missing part; a finished store of the same teacher and split is
    opened as it is. Both need a teacher with a `digest` that changes with its answers.

    Args:
        hidden: also keep the last hidden layer (for the loss `hint`), float32 [n, H].
        held_out: answers in the teacher's place where it can: copies of the teacher that were trained without the row
            they are asked about, so that the soft labels are opinions and not memories.
        extra, swap: also ask about `extra` times as many rows as were logged for training, each a train row whose
            features `swap` (an item and what belongs to it) come from another train row. Lists in it are groups that
            each come from a row of their own: [[item, price], [hour, weekday]]. A teacher can be asked about what
            nobody was shown; only a student can learn from that, for such rows have no label.
    Raises:
        KnowledgeError: `swap` names no feature; the teacher answers with a NaN or in another shape, or has no hidden
            layer to give.
    """
    speaker: Any = held_out or teacher
    told = [getattr(one, "digest", None) for one in ([speaker, teacher] if held_out and extra else [speaker])]
    identity = {
        "dataset_digest": split.digest, "split_digest": split.digest, "teacher": teacher.name, "part_rows": part_rows,
        "teacher_digest": "+".join(map(str, told)) if all(told) else secrets.token_hex(16), "hidden": hidden,
        "key": "row",
        "extra": extra, "swap": [one if isinstance(one, str) else list(one) for one in swap], "seed": seed,
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
    wide, drawn = _with_extra(split, rows, extra, swap, seed)
    writer = StoreWriter(folder, identity)
    asks = [(speaker, split, block) for block in _blocks(rows, part_rows)]
    asks += [(teacher, wide, block) for block in _blocks(drawn, part_rows)]
    with track(len(asks), "extracting knowledge") as progress:
        for part, (one, table, asked) in enumerate(asks):
            if not writer.has("response", part):
                _write(writer, "response", part, asked, one.predict(table, asked), split.outputs.size)
            if hidden and not writer.has("hidden", part):
                _write(writer, "hidden", part, asked, one.hidden(table, asked), None)
            progress.advance(1)
    if len(drawn) and not writer.has("extra", 0):
        writer.write("extra", 0, {"keys": drawn, **{f"column.{n}": a[drawn] for n, a in wide.columns.items()}})
    signals = {"response": Signal("response", "response", "row", space="logit", teacher=teacher.name,
                                  width=split.outputs.size)}
    if len(drawn):
        signals["extra"] = Signal("extra", "rows", "row", teacher=teacher.name)
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


def _blocks(rows: np.ndarray, size: int) -> list[np.ndarray]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def _with_extra(
    split: RowSplit, rows: np.ndarray, extra: float, swap: Sequence[str | Sequence[str]], seed: int
) -> tuple[RowSplit, np.ndarray]:
    """(the table with rows added at its end that no part holds, their keys)."""
    count = round(extra * len(rows))
    if not count:
        return split, np.empty(0, dtype=np.int64)
    known = list(split.features)
    alone = [one for one in swap if isinstance(one, str)]  # names without a list are a group together
    groups = [*([alone] if alone else []), *(list(one) for one in swap if not isinstance(one, str))]
    for name in (name for group in groups for name in group):
        if name not in known:
            raise KnowledgeError(problem(f"swap: {name!r} is no feature{nearest(name, known)}", ", ".join(known)))
    if not swap:
        raise KnowledgeError(problem("extra rows without `swap`", "the features that change places between rows, e.g. "
                                     "the item and what belongs to it", "set knowledge.swap"))
    rng = np.random.default_rng([seed, 11])
    base = rng.choice(rows, count)
    source = dict.fromkeys(known, base)
    for group in groups:
        source |= dict.fromkeys(group, rng.choice(rows, count))
    columns = {name: np.concatenate([array, array[source[name]]]) for name, array in split.columns.items()}
    taken = {column: source[name] for group in groups for name in group for column in split.features[name].sources}
    raw = split.raw.take(base)
    for place, column in enumerate(raw.column_names):
        if column in taken:
            raw = raw.set_column(place, raw.schema.field(place), split.raw.column(column).take(taken[column]))
    labels = {name: np.concatenate([array, np.full((count, array.shape[1]), np.nan, np.float32)])
              for name, array in split.labels.items()}
    wide = replace(
        split, columns=columns, labels=labels, raw=pa.concat_tables([split.raw, raw]),
        parts=np.concatenate([split.parts, np.full(count, -1, np.int8)]),
        groups=None if split.groups is None else np.concatenate([split.groups, split.groups[base]]),
        weights=None if split.weights is None else np.concatenate([split.weights, split.weights[base]]),
    )
    return wide, np.arange(len(split), len(split) + count, dtype=np.int64)


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
