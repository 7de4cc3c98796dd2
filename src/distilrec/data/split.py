"""Splitting events into train, valid and test."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import numpy as np

from distilrec.data.build import UNKNOWN_ORDER
from distilrec.data.leaks import check_leaks
from distilrec.errors import DataError, nearest, problem
from distilrec.types import PARTS, Dataset, Split

__all__ = ["CARVED", "METHODS", "REFIT", "needs_order", "split", "split_settings", "whole_train"]

# method -> its parameters and their defaults (None: not given)
METHODS: dict[str, dict[str, Any]] = {
    "leave-last-out": {},
    "time": {"valid": 0.1, "test": 0.1, "valid_from": None, "test_from": None},
    "random": {"valid": 0.1, "test": 0.1},
    "k-fold": {"folds": 5, "fold": 0, "valid": 0.1},
    "given": {"carve": 0.1},
}
CARVED = "given, valid carved from train"  # Split.method of a given split that came without validation rows
REFIT = "given, valid carved from train to choose by, then trained on all of train"
_DROP = np.int8(-1)


def needs_order(method: str) -> bool:
    """Whether a method asks when an event happened."""
    return method in ("leave-last-out", "time")


def split_settings(settings: str | Mapping[str, Any]) -> dict[str, Any]:
    """{"method": ..., every parameter of it, "check": bool} from a name or a mapping; DataError for a typo."""
    given = {"method": settings} if isinstance(settings, str) else dict(settings)
    method = given.pop("method", "leave-last-out")
    if method not in METHODS:
        raise DataError(
            problem(
                f"unknown split {method!r}{nearest(str(method), METHODS)}", ", ".join(METHODS), "choose one of these"
            )
        )
    known = {**METHODS[method], "check": True, "seed": None}
    for key in given:
        if key not in known:
            raise DataError(
                problem(
                    f"split {method!r} has no setting {key!r}{nearest(key, known)}",
                    ", ".join(known),
                    "correct the name",
                )
            )
    return {"method": method, **known, **given}


def split(
    dataset: Dataset, method: str = "leave-last-out", *, seed: int = 0, check: bool = True, **settings: Any
) -> Split:
    """Put every event into exactly one part.

    - leave-last-out: a user's last event is test, the one before valid, the rest train; users with fewer than 3
      events keep all of them in train. Among equal times the order of the file decides.
    - time: everything from `test_from` on is test, from `valid_from` on valid (Unix seconds or ISO dates); without
      these, the last `test` and `valid` shares of all events. Events of one second stay together.
    - random: shares `valid` and `test` of all events, by seed.
    - k-fold: fold `fold` of `folds` is test; the share `valid` of the others is valid, by seed.
    - given: the column `split`; without valid rows, the share `carve` of train is moved there by seed, and
      Split.method says so.

    Rows without order are dropped and counted by the two methods that need order.
    Raises DataError for settings that make no sense, and for leaks unless `check` is False.
    """
    settings = split_settings({"method": method, **settings})
    counts: dict[str, int] = {}
    recorded = method
    if method == "leave-last-out":
        parts = _leave_last_out(dataset, counts)
    elif method == "time":
        parts = _by_time(dataset, settings, counts)
    elif method == "random":
        parts = _at_random(len(dataset.interactions), settings["valid"], settings["test"], seed)
    elif method == "k-fold":
        parts, recorded = _k_fold(len(dataset.interactions), settings, seed)
    else:
        parts, recorded = _given(dataset, settings["carve"], seed, counts)
    result = _assemble(dataset, parts, recorded, counts)
    if check:
        check_leaks(result)
    return result


def whole_train(split: Split) -> Split:
    """The split with its validation part given back to train, in the order of time; the test part stays.

    For what is trained once more when a validation part that was carved from train has served to choose by.
    """
    owner = np.repeat(np.arange(split.n_users), split.bounds[:, 3] - split.bounds[:, 0])
    is_test = np.arange(len(split.items)) >= split.bounds[owner, 2]
    order = np.lexsort((np.where(is_test, 0, split.timestamps), is_test, owner))  # stable; test is in order already
    bounds = split.bounds.copy()
    bounds[:, 1] = bounds[:, 2]
    return Split(split.dataset, REFIT if split.method == CARVED else f"{split.method}, then trained on train and valid",
                 split.items[order], split.timestamps[order], split.weights[order], bounds, split.counts)


def _assemble(dataset: Dataset, parts: np.ndarray, method: str, counts: dict[str, int]) -> Split:
    """Flat arrays by (user, part, time) from a part (int8, -1 = dropped) for each event of the data set."""
    events = dataset.interactions
    kept = np.flatnonzero(parts >= 0)
    slots = events.user_ids[kept].astype(np.int64) * 3 + parts[kept]
    order = kept[np.argsort(slots, kind="stable")]
    sizes = np.bincount(slots, minlength=3 * dataset.n_users).reshape(-1, 3)
    ends = np.cumsum(sizes.ravel()).reshape(-1, 3)
    bounds = np.column_stack([ends[:, 0] - sizes[:, 0], ends]).astype(np.int64)
    counts["users without train events"] = int(((sizes[:, 0] == 0) & (sizes.sum(axis=1) > 0)).sum())
    return Split(
        dataset, method, events.item_ids[order], events.timestamps[order], events.weights[order], bounds, counts
    )


def _ordered(dataset: Dataset, counts: dict[str, int]) -> np.ndarray:
    """Positions of the events whose order is known; counts the others."""
    known = np.flatnonzero(dataset.interactions.timestamps != UNKNOWN_ORDER)
    counts["rows without order"] = len(dataset.interactions) - len(known)
    if len(known) == 0:
        raise DataError(
            problem(
                f"{dataset.name} has neither times nor positions",
                "a column timestamp or seq_pos",
                "name it under columns, or split by 'random', 'k-fold' or 'given'",
            )
        )
    return known


def _leave_last_out(dataset: Dataset, counts: dict[str, int]) -> np.ndarray:
    known = _ordered(dataset, counts)
    users = dataset.interactions.user_ids[known]
    lengths = np.bincount(users, minlength=dataset.n_users)
    ends = np.cumsum(lengths)
    from_end = ends[users] - 1 - np.arange(len(users))
    long_enough = lengths[users] >= 3
    parts = np.full(len(dataset.interactions), _DROP)
    parts[known] = np.where(long_enough & (from_end == 0), 2, np.where(long_enough & (from_end == 1), 1, 0))
    counts["users with fewer than 3 events, all in train"] = int(((lengths > 0) & (lengths < 3)).sum())
    return parts


def _by_time(dataset: Dataset, settings: Mapping[str, Any], counts: dict[str, int]) -> np.ndarray:
    if not dataset.timed:
        raise DataError(
            problem(
                f"{dataset.name} has positions but no times",
                "a column timestamp for a split by time",
                "use 'leave-last-out', or name the column of times",
            )
        )
    known = _ordered(dataset, counts)
    times = dataset.interactions.timestamps[known]
    valid_from, test_from = (_moment(settings[name]) for name in ("valid_from", "test_from"))
    _check_shares(settings["valid"], settings["test"])
    ordered = np.sort(times)
    if test_from is None:
        test_from = int(ordered[min(len(ordered) - 1, round(len(ordered) * (1 - settings["test"])))])
    if valid_from is None:
        before = int(np.searchsorted(ordered, test_from, side="left"))
        valid_from = int(ordered[max(0, min(before, round(before - len(ordered) * settings["valid"])))])
    if valid_from > test_from:
        raise DataError(
            problem(f"valid_from {valid_from} is after test_from {test_from}", "train < valid < test", "swap them")
        )
    parts = np.full(len(dataset.interactions), _DROP)
    parts[known] = (times >= valid_from).astype(np.int8) + (times >= test_from)
    found = np.bincount(parts[known], minlength=3)
    if (found == 0).any():
        empty = ", ".join(PARTS[p] for p in np.flatnonzero(found == 0))
        raise DataError(
            problem(
                f"the split by time leaves {empty} empty (times {ordered[0]} to {ordered[-1]}, valid from "
                f"{valid_from}, test from {test_from})",
                "events in every part",
                "choose other limits",
            )
        )
    return parts


def _moment(value: Any) -> int | None:
    """Unix seconds from seconds, a datetime or an ISO date (UTC unless it says otherwise)."""
    if value is None or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    try:
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
    except ValueError as error:
        raise DataError(
            problem(f"{value!r} is not a moment", "Unix seconds or an ISO date such as 2001-03-01", "correct it")
        ) from error
    return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())


def _check_shares(*shares: Any) -> None:
    wrong = [s for s in shares if not isinstance(s, int | float) or isinstance(s, bool) or not 0 < s < 1]
    if wrong or sum(shares) >= 1:
        raise DataError(
            problem(
                f"split shares {', '.join(map(str, shares))}",
                "numbers between 0 and 1 with a sum below 1",
                "correct them",
            )
        )


def _at_random(n: int, valid: float, test: float, seed: int) -> np.ndarray:
    _check_shares(valid, test)
    n_test, n_valid = round(n * test), round(n * valid)
    shuffled = np.random.default_rng(seed).permutation(n)
    parts = np.zeros(n, dtype=np.int8)
    parts[shuffled[:n_test]] = 2
    parts[shuffled[n_test : n_test + n_valid]] = 1
    return parts


def _k_fold(n: int, settings: Mapping[str, Any], seed: int) -> tuple[np.ndarray, str]:
    folds, fold = settings["folds"], settings["fold"]
    if not (isinstance(folds, int) and isinstance(fold, int) and 2 <= folds <= n and 0 <= fold < folds):
        raise DataError(
            problem(
                f"fold {fold} of {folds} for {n} events", "2 <= folds <= events and 0 <= fold < folds", "correct them"
            )
        )
    _check_shares(settings["valid"])
    shuffled = np.random.default_rng(seed).permutation(n)
    parts = np.zeros(n, dtype=np.int8)
    is_test = np.arange(n) % folds == fold
    parts[shuffled[is_test]] = 2
    rest = shuffled[~is_test]
    parts[rest[: round(len(rest) * settings["valid"])]] = 1
    return parts, f"k-fold {fold + 1}/{folds}"


def _given(dataset: Dataset, carve: float, seed: int, counts: dict[str, int]) -> tuple[np.ndarray, str]:
    if "split" not in dataset.interactions.context:
        raise DataError(
            problem(
                f"{dataset.name} has no column 'split'",
                "train, valid or test in each row",
                "name the column: columns={'split': ...}, or choose another split",
            )
        )
    parts = np.array(dataset.interactions.context["split"], dtype=np.int8)
    counts["rows without a part"] = int((parts < 0).sum())
    found = np.bincount(parts[parts >= 0], minlength=3)
    if found[0] == 0 or found[2] == 0:
        raise DataError(
            problem(
                f"the column 'split' gives {found[0]} train and {found[2]} test rows",
                "rows of both",
                "correct the column",
            )
        )
    if found[1]:
        return parts, "given"
    _check_shares(carve)
    train = np.flatnonzero(parts == 0)
    moved = np.random.default_rng(seed).permutation(train)[: max(1, round(len(train) * carve))]
    parts[moved] = 1
    counts["rows moved from train to valid"] = len(moved)
    return parts, CARVED
