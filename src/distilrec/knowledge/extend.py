"""Knowledge that goes on when new interactions arrive: what was asked before is copied, only the rest is asked."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from distilrec.errors import KnowledgeError, problem
from distilrec.files import digest_arrays
from distilrec.knowledge.extract import decisions, item_vectors_of, respond
from distilrec.knowledge.overlap import informed_users, places
from distilrec.knowledge.store import KnowledgeStore, StoreWriter
from distilrec.progress import track
from distilrec.types import Histories, Ranker, Signal, Split

__all__ = ["Elder", "extend"]

_ROWS = 16_384


class Elder:
    """A teacher of an older split, asked in the ids of a newer one: implements `types.Ranker`.

    Items that it does not know are left out of the histories and score -inf; users are matched by key as well.
    """

    def __init__(self, teacher: Ranker, old: Split, new: Split) -> None:
        self.teacher, self.name = teacher, teacher.name
        self._item = places(new.dataset.item_keys, old.dataset.item_keys)  # new id -> old id or -1
        self._user = places(new.dataset.user_keys, old.dataset.user_keys)
        self._known = np.flatnonzero(self._item >= 0)
        self.step_scores = None if getattr(teacher, "step_scores", None) is None or (self._item < 0).any() else \
            self._step_scores

    @property
    def parameters(self) -> int:
        return self.teacher.parameters

    @property
    def digest(self) -> str:
        """Empty, which is no digest, where the teacher has none."""
        own = getattr(self.teacher, "digest", None)
        return digest_arrays(str(own), self._item, self._user) if own else ""

    @property
    def has_vectors(self) -> bool:
        return item_vectors_of(self.teacher) is not None

    def item_vectors(self) -> np.ndarray:
        """float32 [I, D], zeros for items that the teacher does not know.

        Raises:
            KnowledgeError: it has none.
        """
        then = item_vectors_of(self.teacher)
        if then is None:
            raise KnowledgeError(problem(f"the teacher {self.name!r} has no item vectors", do="use its answers alone"))
        out = np.zeros((len(self._item), then.shape[1]), dtype=np.float32)
        out[self._known] = then[self._item[self._known]]
        return out

    def scores(self, histories: Histories) -> np.ndarray:
        """float32 [B, I]."""
        return self._spread(self.teacher.scores(self._of_then(histories)))

    def _step_scores(self, histories: Histories) -> np.ndarray:
        teacher: Any = self.teacher
        return self._spread(teacher.step_scores(self._of_then(histories)))

    def _spread(self, then: np.ndarray) -> np.ndarray:
        out = np.full((len(then), len(self._item)), -np.inf, dtype=np.float32)
        out[:, self._known] = then[:, self._item[self._known]]
        return out

    def _of_then(self, histories: Histories) -> Histories:
        items = self._item[histories.items]
        row = np.repeat(np.arange(len(histories)), histories.lengths)
        counts = np.bincount(row[items >= 0], minlength=len(histories))
        users = np.where(histories.users >= 0, self._user[histories.users], -1).astype(np.int32)
        offsets = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
        return Histories(users, items[items >= 0].astype(np.int32), offsets)


def extend(
    store: KnowledgeStore, old: Split, teacher: Ranker, new: Split, folder: Path, *, content: np.ndarray | None = None,
) -> tuple[KnowledgeStore, int]:
    """(the store of the newer split, how many of its decisions were copied).

    A decision is the same one if the same user (by key) has the same history (by item keys) before it. Its answer is
    copied with the ids of the newer split; an item that did not exist then is simply not in it. All others are asked.
    Answers and item vectors go on; query vectors, states of layers, attention and gradients do not.

    Of a user with a validation or test event of `new` that was a train event of `old` (under leave-last-out: two events
    then, three now) nothing is copied, for the old teacher knows the label. A teacher of `new`, known by its
    `split_digest`, is asked instead; of any other one the decisions of such users get an empty answer of trust 0, which
    teaches nothing. `manifest["teacher"]` counts them as `left_out`.

    Args:
        store: of `old`, with a response by event.
        teacher: who answers for the new decisions: trained on `old` (see `Elder`), or on `new`.
        content: float32 [I, C] of the items of `new`, kept as in `extract`.
    Raises:
        KnowledgeError: a store of another split, one that is kept by user (that is extracted again in no time), a
            teacher that scores neither the items of the old split nor those of the new, or a new split that holds back
            too much of what the old one trained on (see `overlap.informed_users`).
    """
    moved, signal = _moved(store, old, new), store.signals["response"]
    informed = informed_users(old, new)
    asked = _in_new_ids(teacher, store, old, new)
    mute = informed & (getattr(teacher, "split_digest", None) != new.digest)
    temperature = float(store.manifest["identity"].get("temperature", 1.0))
    identity = {"dataset_digest": new.dataset.digest, "split_digest": new.digest, "extends": store.digest,
                "teacher_digest": getattr(asked, "digest", None) or secrets.token_hex(16), "top_k": signal.width,
                "temperature": temperature,
                "content": None if content is None else digest_arrays(np.ascontiguousarray(content))}
    if informed.any():
        identity["informed"] = digest_arrays(informed, mute)
    if (folder / "manifest.json").exists():
        found = KnowledgeStore(folder, new)
        if found.manifest["identity"] == identity:
            return found, int(found.manifest["teacher"].get("copied", 0))
        (folder / "manifest.json").unlink()
    keys, users, start, stop = decisions(new)
    then_keys, then_users, then_start, then_stop = decisions(old)
    place = _match(_histories(new, users, start, stop), _histories(old, then_users, then_start, then_stop))
    told = store.told()[store.rows("response", then_keys)]
    kept = (place >= 0) & ~informed[users] & told[place]  # what was left out before is asked now
    copied, out = np.flatnonzero(kept), np.flatnonzero(mute[users])
    writer = StoreWriter(folder, identity)
    small = np.uint16 if new.n_items <= 65_536 else np.int32
    arrays = store.arrays("response")
    rows = store.rows("response", then_keys[place[copied]])

    def write(part: int, some: np.ndarray, ids: np.ndarray, logits: np.ndarray, believed: bool = True) -> None:
        trust = {"trust": np.full(len(some), believed, dtype=np.float16)} if len(out) else {}
        writer.write("response", part, {
            "keys": keys[some], "ids": ids.astype(small), "logits": logits.astype(np.float16), **trust})

    fresh = np.flatnonzero(~kept & ~mute[users])
    order = fresh[np.lexsort((stop[fresh], users[fresh]))]
    parts = -(-len(order) // _ROWS)
    if len(copied) and not writer.has("response", 0):
        write(0, copied, moved[arrays["ids"][rows].astype(np.int64)], np.asarray(arrays["logits"][rows]))
    if len(out):  # an even list of any items, for the losses to be finite; its trust is 0
        blank = np.broadcast_to(np.arange(signal.width), (len(out), signal.width))
        write(parts + 1, out, blank, np.full(blank.shape, -np.log(new.n_items)), believed=False)
    with track(parts, "extending knowledge") as progress:
        for part in range(parts):
            some = order[part * _ROWS : (part + 1) * _ROWS]
            if not writer.has("response", part + 1):
                write(part + 1, some, *respond(asked, new, users[some], start[some], stop[some], signal.width,
                                               temperature))
            progress.advance(1)
    signals = {"response": Signal("response", "response", "event", space=signal.space, teacher=teacher.name,
                                  width=signal.width)}
    signals |= _vectors(writer, {"item_vectors": item_vectors_of(asked), "content": content}, teacher.name)
    writer.finish(signals,
                  {"name": teacher.name, "parameters": teacher.parameters, "copied": len(copied),
                   "asked": len(fresh), "left_out": len(out), "left_out_users": int(mute.sum())})
    return KnowledgeStore(folder, new), len(copied)


def _moved(store: KnowledgeStore, old: Split, new: Split) -> np.ndarray:
    """int64 [I of old]: the new id of each item; raises KnowledgeError for what cannot be extended."""
    if store.manifest["split_digest"] != old.digest:
        raise KnowledgeError(problem(f"the store {store.folder} is of another split than the one it is extended from",
                                     f"split {store.manifest['split_digest'][:12]}", "give the split it was made from"))
    signal = store.signals["response"]
    if signal.key != "event":
        raise KnowledgeError(problem(f"the store {store.folder} is kept by {signal.key}", "answers by event",
                                     "run `distilrec extract` on the new data: one answer per user is quickly asked"))
    moved = places(old.dataset.item_keys, new.dataset.item_keys)
    if (moved < 0).any():
        raise KnowledgeError(problem(f"{int((moved < 0).sum())} items of the old data are not in the new",
                                     "the old items and perhaps more", "keep the item table, or extract anew"))
    return moved


def _vectors(writer: StoreWriter, tables: Mapping[str, np.ndarray | None], teacher: str) -> dict[str, Signal]:
    """Write what is known of each item; the signals of what there was."""
    signals = {}
    for name, table in tables.items():
        if table is not None:
            signals[name] = Signal(name, "vector", "item", teacher=teacher, width=table.shape[1])
            writer.write(name, 0, {"keys": np.arange(len(table), dtype=np.int64),
                                   "values": np.asarray(table, dtype=np.float32)})
    return signals


def _in_new_ids(teacher: Any, store: KnowledgeStore, old: Split, new: Split) -> Ranker:
    """The teacher, or its Elder if it speaks in the ids of the old split: told by how many items it scores, and where
    both splits have the same ones (users may still differ) by its digests."""
    width = teacher.scores(Histories.of([new.items[:0]])).shape[1]
    if width not in (old.n_items, new.n_items):
        raise KnowledgeError(problem(f"the teacher {teacher.name!r} scores {width} items",
                                     f"the {old.n_items} of the old split or the {new.n_items} of the new"))
    known = getattr(teacher, "digest", None)
    of_old = getattr(teacher, "split_digest", None) == old.digest or \
        (bool(known) and known == store.manifest["identity"].get("teacher_digest"))
    return Elder(teacher, old, new) if width != new.n_items or (old.n_items == new.n_items and of_old) else teacher


def _histories(split: Split, users: np.ndarray, start: np.ndarray, stop: np.ndarray) -> np.ndarray:
    """uint64 [n]: a fingerprint of (user key, item keys of the history) of each decision."""
    item, user = _fingerprints(split.dataset.item_keys), _fingerprints(split.dataset.user_keys)
    lengths = (stop - start).astype(np.int64)
    out = user[users]
    factor = np.uint64(0x9E3779B97F4A7C15)
    for step in range(int(lengths.max(initial=0))):
        rows = np.flatnonzero(lengths > step)
        with np.errstate(over="ignore"):
            mixed = (out[rows] ^ item[split.items[start[rows] + step]]) * factor
        out[rows] = mixed ^ (mixed >> np.uint64(29))
    return out


def _fingerprints(keys: np.ndarray) -> np.ndarray:
    return np.array([int.from_bytes(hashlib.blake2b(str(key).encode(), digest_size=8).digest(), "little")
                     for key in keys.tolist()], dtype=np.uint64)


def _match(new: np.ndarray, old: np.ndarray) -> np.ndarray:
    """int64 [n]: where each fingerprint stands among the old ones, -1 where it does not."""
    order = np.argsort(old, kind="stable")
    place = np.searchsorted(old[order], new)
    found = place < len(old)
    found[found] = old[order][place[found]] == new[found]
    return np.where(found, order[np.minimum(place, max(0, len(old) - 1))] if len(old) else -1, -1)
