"""What an old teacher was trained on and a newer split holds back: its answers would give the labels away."""

from __future__ import annotations

import numpy as np

from distilrec.errors import KnowledgeError, problem
from distilrec.types import Part, Split

__all__ = ["informed_users", "places"]

_MOST = 0.1  # of the validation or the test events that an old teacher may have been trained on


def informed_users(old: Split, new: Split) -> np.ndarray:
    """bool [U of new]: of whom some validation or test event of `new` was a train event of `old`.

    An event was, if the same user (by key) took the same item (by key) at the same time, or if he took it oftener in
    the train part of `old` than in that of `new`, whatever the times say.

    Raises:
        KnowledgeError: more than a tenth of the validation or of the test events were: `new` is not the
            same split of a log that has grown, and what the teacher says of anybody comes from what is to be predicted.
    """
    users, items, keys = old.events("train")
    users = places(old.dataset.user_keys, new.dataset.user_keys)[users]
    items = places(old.dataset.item_keys, new.dataset.item_keys)[items]
    there = (users >= 0) & (items >= 0)
    then, times = users[there] * new.n_items + items[there], old.timestamps[keys[there]]
    moments = set(zip(then.tolist(), times.tolist(), strict=True))
    pairs, often = np.unique(then, return_counts=True)
    still, again = np.unique(_pairs(new, "train")[0], return_counts=True)
    lost = set(pairs[often > _count(pairs, still, again)].tolist())
    out = np.zeros(new.n_users, dtype=bool)
    for part in ("valid", "test"):
        held, keys = _pairs(new, part)  # type: ignore[arg-type]
        at = zip(held.tolist(), new.timestamps[keys].tolist(), strict=True)
        known = np.array([pair in lost or (pair, time) in moments for pair, time in at], dtype=bool)
        if known.sum() > _MOST * len(known):
            raise KnowledgeError(problem(
                f"{int(known.sum())} of {len(known)} {part} events of the new split were train events of the old one: "
                "its teacher was trained on them",
                f"at most {_MOST:.0%} of them, as in a log that has grown",
                "split by time or leave-last-out, both times alike; or train a teacher on the new split and extract"))
        out[held[known] // new.n_items] = True
    return out


def places(keys: np.ndarray, others: np.ndarray) -> np.ndarray:
    """int64 [len(keys)]: where each key stands among the others, -1 where it does not."""
    table = {key: place for place, key in enumerate(others.tolist())}
    return np.array([table.get(key, -1) for key in keys.tolist()], dtype=np.int64)


def _pairs(split: Split, part: Part) -> tuple[np.ndarray, np.ndarray]:
    """(user x I + item, key) of the events of one part, each int64 [n]."""
    users, items, keys = split.events(part)
    return users.astype(np.int64) * split.n_items + items, keys


def _count(wanted: np.ndarray, have: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """How often each of `wanted` is there, of the rising `have` with their `counts`."""
    if not len(have):
        return np.zeros(len(wanted), dtype=np.int64)
    place = np.minimum(np.searchsorted(have, wanted), len(have) - 1)
    return np.where(have[place] == wanted, counts[place], 0)
