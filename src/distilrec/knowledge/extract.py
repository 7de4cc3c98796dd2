"""From a teacher to a store: what it would answer at every decision that a student is trained on."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np

from distilrec import numerics
from distilrec.errors import KnowledgeError, nearest, problem
from distilrec.files import digest_arrays
from distilrec.knowledge.inner import BY_DECISION, INNER, inner, lacks
from distilrec.knowledge.store import KnowledgeStore, StoreWriter
from distilrec.progress import track
from distilrec.types import Ranker, Signal, Split

__all__ = ["decisions", "extract", "item_vectors_of", "open_key", "respond", "top_log_probabilities"]

_SCORES = 2**25  # that a teacher is asked for at once: 128 MB, or one row where the catalog is larger still
_ROWS = 512  # histories of one call: more are not faster


def open_key(split: Split, users: np.ndarray) -> np.ndarray:
    """The key of the decision after a user's last train event: it has no event of its own."""
    return len(split.items) + np.asarray(users, dtype=np.int64)


def decisions(split: Split) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(keys, users, history start, history stop), each [N], rising by key.

    Every train event that has a train event before it, and the open decision after each user's last one. Nothing
    of validation or test is read: the history ends inside the train part.
    """
    users, _, keys = split.events("train")
    first = split.bounds[users, 0]
    inside = keys > first
    last = np.flatnonzero(split.bounds[:, 1] > split.bounds[:, 0])
    all_users = np.concatenate([users[inside], last.astype(np.int32)])
    stop = np.concatenate([keys[inside], split.bounds[last, 1]])
    start = np.concatenate([first[inside], split.bounds[last, 0]])
    return np.concatenate([keys[inside], open_key(split, last)]), all_users, start, stop


def extract(
    teacher: Ranker, split: Split, folder: Path, *, top_k: int = 100, part_rows: int = 16_384,
    temperature: float = 1.0, content: np.ndarray | None = None, signals: Collection[str] = (),
) -> KnowledgeStore:
    """Write the teacher's top-K log-probabilities at every train decision, and its item vectors if it has any.

    A killed extraction starts again at its first missing part; a finished store of the same teacher, split and K is
    opened as it is. Both need a teacher with a `digest` that changes with its answers: without one all is made anew.

    Args:
        top_k: K; capped by the number of items.
        temperature: divides the teacher's scores before the softmax; for scorers whose scale is not that of logits.
        content: float32 [I, C] vectors of item content that the teacher was given, kept beside its own so that a
            control can start from the same text.
        signals: of `inner.INNER`, what is to be kept beside the response: "query" and "layers" at every decision,
            "attention" and "gradient" after the last train event of each user.
    Raises:
        KnowledgeError: the teacher gives a NaN, or knows no item for a user.
    """
    top_k = min(top_k, split.n_items)
    # a file of scores per user knows nothing of single events; a factorization says the same at all of them
    listed = getattr(teacher, "keyed", "event") == "user"
    keyed: Literal["event", "user"] = "user" if listed or getattr(teacher, "per_user", False) else "event"
    inside = sorted(set(signals) - {"response"})
    for name in inside:
        if name not in INNER:
            raise KnowledgeError(problem(f"signal {name!r} is unknown{nearest(name, INNER)}", ", ".join(INNER)))
        if need := lacks(teacher, name):
            raise KnowledgeError(problem(f"the teacher {teacher.name!r} gives no {name!r}", need))
    identity = {
        "dataset_digest": split.dataset.digest, "split_digest": split.digest, "teacher": teacher.name,
        "teacher_digest": getattr(teacher, "digest", None) or secrets.token_hex(16), "top_k": top_k,
        "part_rows": part_rows, "order": "user, length", "temperature": temperature, "key": keyed,
        "signals": inside,
        "content": None if content is None else digest_arrays(np.ascontiguousarray(content)),
    }
    if (folder / "manifest.json").exists():
        store = KnowledgeStore(folder, split)
        if store.manifest["identity"] == identity:
            return store
        (folder / "manifest.json").unlink()
    keys, users, start, stop = decisions(split) if keyed == "event" else _per_user(split)
    order = np.lexsort((stop, users))  # a user's decisions lie together, the shortest history first
    writer = StoreWriter(folder, identity)
    parts = -(-len(keys) // part_rows)
    with track(parts, "extracting knowledge") as progress:
        for part in range(parts):
            rows = order[part * part_rows : (part + 1) * part_rows]
            if not writer.has("response", part):
                ids, logits = respond(teacher, split, users[rows], start[rows], stop[rows], top_k, temperature)
                small = np.uint16 if split.n_items <= 65_536 else np.int32
                writer.write("response", part, {"keys": keys[rows], "ids": ids.astype(small),
                                                "logits": logits.astype(np.float16)})
            for name in inside:
                if not writer.has(name, part):
                    best = writer.read("response", part)["ids"][:, 0].astype(np.int64)
                    _think(writer, teacher, name, split, part, (keys[rows], users[rows], start[rows], stop[rows], best))
            progress.advance(1)
    # A sparse file's scores have no partition over the catalog: only their shape within the list is knowledge.
    space: Literal["logit", "score"] = "score" if listed else "logit"
    found = {"response": Signal("response", "response", keyed, space=space, teacher=teacher.name, width=top_k)}
    for name, vectors in (("item_vectors", item_vectors_of(teacher)), ("content", content)):
        if vectors is not None:
            found[name] = Signal(name, "vector", "item", teacher=teacher.name, width=vectors.shape[1])
            if not writer.has(name, 0):
                values = np.asarray(vectors, dtype=np.float32)
                writer.write(name, 0, {"keys": np.arange(len(values), dtype=np.int64), "values": values})
    for name in inside:
        kind: Any = {"query": "vector", "layers": "hidden"}.get(name, name)
        found[name] = Signal(name, kind, keyed if name in BY_DECISION else "user", teacher=teacher.name)
    writer.finish(found, {"name": teacher.name, "parameters": teacher.parameters, **_provenance(teacher)})
    return KnowledgeStore(folder, split)


def _think(
    writer: StoreWriter, teacher: Any, name: str, split: Split, part: int, decisions: tuple[np.ndarray, ...]
) -> None:
    """Write one part of an inner signal; what is not by decision is kept once per user, after the last train event."""
    keys, users, start, stop, best = decisions
    if name not in BY_DECISION:
        rows = np.flatnonzero(stop == split.bounds[users, 1])
        keys, users, start, stop, best = users[rows].astype(np.int64), users[rows], start[rows], stop[rows], best[rows]
    if len(keys):
        values = inner(teacher, name, split, users, start, stop, best)
        writer.write(name, part, {"keys": keys, "values": values})


def _per_user(split: Split) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """As `decisions`, one row per user with train events: key = user, history = the whole train part."""
    users = np.flatnonzero(split.bounds[:, 1] > split.bounds[:, 0])
    return users.astype(np.int64), users.astype(np.int32), split.bounds[users, 0], split.bounds[users, 1]


def respond(
    teacher: Any, split: Split, users: np.ndarray, start: np.ndarray, stop: np.ndarray, top_k: int, temperature: float
) -> tuple[np.ndarray, np.ndarray]:
    """(ids int32 [n, K], log-probabilities float32 [n, K]) of a teacher at n decisions; a user's lie together."""
    how = _respond_in_steps if getattr(teacher, "step_scores", None) else _respond
    return how(teacher, split, users, start, stop, top_k, temperature)


def _respond(
    teacher: Ranker, split: Split, users: np.ndarray, start: np.ndarray, stop: np.ndarray, top_k: int,
    temperature: float,
) -> tuple[np.ndarray, np.ndarray]:
    """(ids [n, K], log-probabilities float32 [n, K]); histories of like length are scored together."""
    ids = np.empty((len(users), top_k), dtype=np.int32)
    logits = np.empty((len(users), top_k), dtype=np.float32)
    order = np.argsort(stop - start, kind="stable")
    block = max(1, min(_ROWS, _SCORES // split.n_items))
    for begin in range(0, len(order), block):
        rows = order[begin : begin + block]
        histories = split.between(users[rows], start[rows], stop[rows])
        ids[rows], logits[rows] = top_log_probabilities(teacher.scores(histories), top_k, temperature)
    return ids, logits


def _respond_in_steps(
    teacher: Any, split: Split, users: np.ndarray, start: np.ndarray, stop: np.ndarray, top_k: int, temperature: float
) -> tuple[np.ndarray, np.ndarray]:
    """As `_respond`, for a teacher that answers after every event of a history in one pass over it.

    On MovieLens 1M, with histories of 160 events, this is what makes extraction an affair of minutes. A history so long
    that its answers would not fit into memory is asked for prefix by prefix.
    """
    ids = np.empty((len(users), top_k), dtype=np.int32)
    logits = np.empty((len(users), top_k), dtype=np.float32)
    first = np.flatnonzero(np.diff(users, prepend=-1))  # rows are ordered by user, longest history last
    last = np.append(first[1:], len(users))
    lengths = (stop[last - 1] - start[first]).astype(np.int64)
    budget = max(1, _SCORES // split.n_items)  # answers of one call
    for members in _groups(lengths, budget):
        rows = np.arange(first[members[0]], last[members[-1]])
        if lengths[members].sum() > budget or (stop[rows] == start[rows]).any():  # an empty history has no step
            ids[rows], logits[rows] = _respond(teacher, split, users[rows], start[rows], stop[rows], top_k, temperature)
            continue
        histories = split.between(users[first[members]], start[first[members]], stop[last[members] - 1])
        offset = np.repeat(histories.offsets[:-1], last[members] - first[members])
        scores, wanted = teacher.step_scores(histories), offset + stop[rows] - start[rows] - 1
        step = numerics.block_rows(split.n_items)
        for begin in range(0, len(rows), step):  # a block at a time: all the wanted ones would be a second copy
            few = rows[begin : begin + step]
            ids[few], logits[few] = top_log_probabilities(scores[wanted[begin : begin + step]], top_k, temperature)
        del scores  # not to be held beside those of the next call
    return ids, logits


def _groups(lengths: np.ndarray, budget: int) -> Iterator[np.ndarray]:
    """Neighbors whose lengths sum up to at most `budget`; what is longer stands alone."""
    begin, total = 0, 0
    for place, length in enumerate(lengths.tolist()):
        if place > begin and total + length > budget:
            yield np.arange(begin, place)
            begin, total = place, 0
        total += length
    if len(lengths):
        yield np.arange(begin, len(lengths))


def top_log_probabilities(scores: np.ndarray, top_k: int, temperature: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """(ids int32 [B, K], log softmax float32 [B, K]) of the K best items, best first, ties by smaller id.

    Raises:
        KnowledgeError: a NaN, or a row without any finite score.
    """
    ids = np.empty((len(scores), top_k), dtype=np.int32)
    logits = np.empty((len(scores), top_k), dtype=np.float32)
    step = numerics.block_rows(scores.shape[1])
    for begin in range(0, len(scores), step):
        out = slice(begin, begin + step)
        block = np.asarray(scores[out], dtype=np.float32) / np.float32(temperature)
        top = block.max(axis=1)
        if not np.isfinite(top).all():
            row = int(np.flatnonzero(~np.isfinite(top))[0])
            raise KnowledgeError(problem(f"the best score that the teacher gives in row {begin + row} is {top[row]}",
                                         "finite numbers (or -inf for items it does not know)",
                                         "mend the teacher's output"))
        # items that the teacher rules out come last, by id, but they come: every row has K entries
        ids[out], kept = numerics.top_k(np.maximum(block, np.finfo(np.float32).min), top_k)
        # from the top on, not from zero: near large scores float32 has no digits left for a small log-probability
        block -= top[:, None]
        log_z = np.log(np.exp(block, out=block).sum(axis=1))
        # float16 ends at -65504; an item the teacher rules out stays ruled out
        logits[out] = np.maximum(kept - top[:, None] - log_z[:, None], -60_000.0)
    return ids, logits


def item_vectors_of(teacher: Any) -> np.ndarray | None:
    """[I, D] if the teacher has vectors; a file of scores and an ensemble of such have none."""
    has = hasattr(teacher, "item_vectors") and getattr(teacher, "has_vectors", True)
    return teacher.item_vectors() if has else None


def _provenance(teacher: Any) -> dict[str, Any]:
    """What a report can say about where the knowledge came from."""
    return {name: getattr(teacher, name) for name in ("architecture", "settings", "source") if hasattr(teacher, name)}
