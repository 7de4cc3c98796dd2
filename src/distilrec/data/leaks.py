"""The check that nothing leaks from one part of a split into another."""

from __future__ import annotations

import numpy as np

from distilrec.errors import DataError, problem
from distilrec.types import PARTS, Split

__all__ = ["check_leaks"]


def check_leaks(split: Split) -> None:
    """Raise DataError if a part leaks into another.

    Checked: an event (user, item, time) that is in two parts or twice in valid or test; for leave-last-out, a user's
    later part that starts before the earlier one ends; for the split by time, the same over all users.
    """
    users = np.repeat(np.arange(split.n_users), split.bounds[:, 3] - split.bounds[:, 0])
    positions = np.arange(len(users))
    parts = (positions >= split.bounds[users, 1]).astype(np.int8) + (positions >= split.bounds[users, 2])
    _check_repeats(split, users, parts)
    if split.method == "leave-last-out":
        late = np.flatnonzero((np.diff(split.timestamps) < 0) & (np.diff(users) == 0))
        if len(late):
            raise _leak(split, f"{len(late)} events come before the event that precedes them", users[late], late)
    if split.method == "time":
        for earlier, later in ((0, 1), (1, 2)):
            first, last = split.timestamps[parts == earlier], split.timestamps[parts == later]
            if len(first) and len(last) and first.max() >= last.min():
                raise DataError(
                    problem(
                        f"{PARTS[earlier]} runs until {first.max()}, {PARTS[later]} starts at {last.min()}",
                        "every event of an earlier part before all of a later one",
                        "rebuild the split",
                    )
                )


def _check_repeats(split: Split, users: np.ndarray, parts: np.ndarray) -> None:
    pairs = users * np.int64(split.n_items) + split.items
    ordered = np.sort(pairs)
    repeated = ordered[1:][ordered[1:] == ordered[:-1]]
    if len(repeated) == 0:
        return
    # only the few repeated pairs are looked at in full
    rows = np.flatnonzero(np.isin(pairs, repeated))
    rows = rows[np.lexsort((parts[rows], split.timestamps[rows], pairs[rows]))]
    same = (pairs[rows][1:] == pairs[rows][:-1]) & (split.timestamps[rows][1:] == split.timestamps[rows][:-1])
    leaks = rows[1:][same & (parts[rows][1:] > 0)]
    if len(leaks):
        raise _leak(
            split, f"{len(leaks)} events (user, item, time) of valid or test occur more than once", users[leaks], leaks
        )


def _leak(split: Split, seen: str, users: np.ndarray, rows: np.ndarray) -> DataError:
    data = split.dataset
    shown = "; ".join(
        f"user {data.user_keys[u]}, item {data.item_keys[split.items[r]]}, time {split.timestamps[r]}"
        for u, r in zip(users[:3], rows[:3], strict=True)
    )
    return DataError(
        problem(
            f"{seen}: {shown}",
            "each event in one part only",
            "remove duplicates (clean: exact_duplicates), or repair the column 'split'",
        )
    )
