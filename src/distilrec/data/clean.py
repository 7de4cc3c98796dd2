"""Cleaning rules. Every dropped row is counted under the rule that dropped it.

Of repeats the first event stays, exact or near: a double click, a reload or a sender that tries again is one decision,
made when it first shows. To keep the last instead (`keep: last`) moves the decision later, past events that followed
it, and at a border in time from the train part into a later one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import polars as pl

from distilrec.errors import DataError, nearest, problem

__all__ = ["Cleaning", "clean", "cleaning"]

_DAY = 86_400  # seconds


@dataclass(frozen=True)
class Cleaning:
    """The rules, in the order in which they run. What is None or False is off."""

    exact_duplicates: bool = True  # drop all but the first of rows with the same user, item and time
    events: tuple[str, ...] | None = None  # keep only these values of the column `event`
    rating_range: tuple[float, float] | None = None  # noise: ratings outside are impossible
    time_range: tuple[int, int] | None = None  # noise: Unix seconds outside are clock errors
    min_rating: float | None = None  # the label: what counts as positive
    near_duplicates: float | None = None  # seconds; .inf: any repeat of the same item by the same user
    keep: str = "first"  # which event of a run of near duplicates stays: "first" or "last"
    max_events_per_day: int | None = None  # users with more on any day are bots
    max_events_per_user: int | None = None  # users with more in all are bots
    drop_one_shot_users: bool = False  # users with a single event
    user_core: int | None = None  # k-core, repeated until nothing changes
    item_core: int | None = None
    keep_cold_items: bool = False  # items of the item table without events stay in the catalog


def cleaning(rules: Cleaning | Mapping[str, Any] | None) -> Cleaning:
    """Checked rules from a mapping. Raises DataError for an unknown rule or a value of the wrong type or range."""
    if rules is None or isinstance(rules, Cleaning):
        return _checked(rules or Cleaning())
    known = {field.name: field for field in fields(Cleaning)}
    for name in rules:
        if name not in known:
            raise DataError(
                problem(
                    f"unknown cleaning rule {name!r}{nearest(str(name), known)}", ", ".join(known), "correct the name"
                )
            )
    values: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in rules.items()}
    if isinstance(values.get("events"), str):
        values["events"] = (values["events"],)
    return _checked(Cleaning(**values))


def _checked(rules: Cleaning) -> Cleaning:
    for name in ("exact_duplicates", "drop_one_shot_users", "keep_cold_items"):
        _expect(name, getattr(rules, name), lambda v: isinstance(v, bool), "true or false")
    for name in ("max_events_per_day", "max_events_per_user", "user_core", "item_core"):
        _expect(
            name,
            getattr(rules, name),
            lambda v: v is None or (_is_number(v) and v == int(v) and v >= 1),
            "a whole number from 1",
        )
    for name in ("min_rating", "near_duplicates"):
        _expect(name, getattr(rules, name), lambda v: v is None or (_is_number(v) and not math.isnan(v)), "a number")
    _expect("near_duplicates", rules.near_duplicates, lambda v: v is None or v >= 0, "seconds, not negative")
    for name in ("rating_range", "time_range"):
        _expect(
            name,
            getattr(rules, name),
            lambda v: v is None or (isinstance(v, tuple) and len(v) == 2 and all(map(_is_number, v)) and v[0] <= v[1]),
            "[lowest, highest]",
        )
    _expect(
        "events",
        rules.events,
        lambda v: v is None or (isinstance(v, tuple) and bool(v) and all(isinstance(x, str) for x in v)),
        "a list of names",
    )
    _expect("keep", rules.keep, lambda v: v in ("first", "last"), "'first' or 'last'")
    return rules


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _expect(name: str, value: Any, holds: Any, expected: str) -> None:
    if not holds(value):
        raise DataError(problem(f"cleaning rule {name} is {value!r}", expected, "correct the value"))


def clean(rows: pl.DataFrame, rules: Cleaning | Mapping[str, Any] | None = None) -> tuple[pl.DataFrame, dict[str, int]]:
    """(kept rows in their order, rows dropped by reason) of rows in standard columns.

    Reasons are written "dropped: <reason>"; a rule that is off gives no entry, one that found nothing gives 0.
    Raises DataError when a rule needs a column that the rows lack.
    """
    rules = cleaning(rules)
    _check_columns(rows, rules)
    counts: dict[str, int] = {}

    def keep(rows: pl.DataFrame, reason: str, mask: pl.Series | np.ndarray) -> pl.DataFrame:
        kept = rows.filter(mask)
        counts[f"dropped: {reason}"] = rows.height - kept.height
        return kept

    if rules.exact_duplicates:
        rows = keep(rows, "exact duplicates", ~_repeats(rows))
    if rules.events is not None:
        rows = keep(rows, "event of another kind", rows["event"].is_in(list(rules.events)).fill_null(False))
    if rules.rating_range is not None:
        rows = keep(rows, "rating out of range", rows["rating"].is_between(*rules.rating_range).fill_null(False))
    if rules.time_range is not None:
        rows = keep(rows, "time out of range", rows["timestamp"].is_between(*rules.time_range).fill_null(True))
    if rules.min_rating is not None:
        rows = keep(rows, "rating too low", (rows["rating"] >= rules.min_rating).fill_null(False))
    if rules.near_duplicates is not None:
        rows = keep(rows, "near duplicates", _outside_runs(rows, rules.near_duplicates, rules.keep))
    if rules.max_events_per_day is not None:
        rows = keep(rows, "bots (events per day)", ~_busy_users(rows, rules.max_events_per_day))
    if rules.max_events_per_user is not None:
        rows = keep(
            rows, "bots (events in all)", rows.select(pl.len().over("user_id") <= rules.max_events_per_user).to_series()
        )
    if rules.drop_one_shot_users:
        rows = keep(rows, "one-shot users", rows.select(pl.len().over("user_id") > 1).to_series())
    if rules.user_core or rules.item_core:
        rows = keep(rows, "k-core", _core(rows, int(rules.user_core or 1), int(rules.item_core or 1)))
    return rows, counts


def _check_columns(rows: pl.DataFrame, rules: Cleaning) -> None:
    any_time = rules.near_duplicates is not None and math.isinf(rules.near_duplicates)
    for name, value, column in (
        ("events", rules.events, "event"),
        ("rating_range", rules.rating_range, "rating"),
        ("min_rating", rules.min_rating, "rating"),
        ("time_range", rules.time_range, "timestamp"),
        ("max_events_per_day", rules.max_events_per_day, "timestamp"),
        ("near_duplicates", None if any_time else rules.near_duplicates, "timestamp"),
    ):
        if value is not None and column not in rows.columns:
            raise DataError(
                problem(
                    f"cleaning rule {name} needs a column {column!r}, the log has none",
                    f"a column of that name or one mapped to it: columns={{'{column}': ...}}",
                    "map it, or drop the rule",
                )
            )


def _repeats(rows: pl.DataFrame) -> pl.Series:
    """Rows whose user, item, time and part all occurred before (a repeat in another part is a leak, not dirt)."""
    names = [name for name in ("timestamp", "_fine", "seq_pos", "split", "event") if name in rows.columns]
    pair = _pairs(rows)
    twice = pl.Series(pair).is_duplicated()
    if not twice.any():
        return pl.repeat(False, rows.height, eager=True)
    few = rows.select(names).with_columns(pl.Series("_pair", pair)).filter(twice)
    again = ~few.select(pl.struct(pl.all()).is_first_distinct()).to_series()
    result = np.zeros(rows.height, dtype=bool)
    result[np.flatnonzero(twice.to_numpy())] = again.to_numpy()
    return pl.Series(result)


def _codes(column: pl.Series) -> np.ndarray:
    return column.rank("dense").to_numpy().astype(np.int64) - 1


def _pairs(rows: pl.DataFrame) -> np.ndarray:
    """int64 [N]: one number per (user, item)."""
    items = _codes(rows["item_id"])
    return _codes(rows["user_id"]) * (int(items.max(initial=0)) + 1) + items


def _outside_runs(rows: pl.DataFrame, window: float, keep: str) -> np.ndarray:
    """bool [N]: the first or last event of each run of the same user and item with gaps of at most `window` seconds."""
    pairs, n = _pairs(rows), rows.height
    by = [pairs]
    unknown = np.zeros(n, dtype=bool)
    for name in ("timestamp", "seq_pos"):
        if name in rows.columns:
            by.append(rows[name].fill_null(np.iinfo(np.int64).max).to_numpy())
    order = np.lexsort(by[::-1])
    together = pairs[order][1:] == pairs[order][:-1]
    if not math.isinf(window):
        times = rows["timestamp"].fill_null(-1).to_numpy()[order]
        unknown = times < 0
        together &= (np.diff(times) <= window) & ~unknown[1:] & ~unknown[:-1]
    kept = np.ones(n, dtype=bool)
    kept[order[:-1][together] if keep == "last" else order[1:][together]] = False
    return kept


def _busy_users(rows: pl.DataFrame, limit: int) -> pl.Series:
    """bool [N]: rows of users who had more than `limit` events on any day (UTC)."""
    day = pl.col("timestamp") // _DAY
    busy = (
        rows.filter(pl.col("timestamp").is_not_null())
        .group_by("user_id", day.alias("day"))
        .len()
        .filter(pl.col("len") > limit)["user_id"]
        .unique()
    )
    return rows["user_id"].is_in(busy.implode())


def _core(rows: pl.DataFrame, user_core: int, item_core: int) -> np.ndarray:
    """bool [N]: rows of the largest subset in which every user has `user_core` and every item `item_core` events."""
    users, items = _codes(rows["user_id"]), _codes(rows["item_id"])
    alive = np.ones(rows.height, dtype=bool)
    while True:
        user_counts = np.bincount(users[alive], minlength=int(users.max(initial=0)) + 1)
        item_counts = np.bincount(items[alive], minlength=int(items.max(initial=0)) + 1)
        still = alive & (user_counts[users] >= user_core) & (item_counts[items] >= item_core)
        if (still == alive).all():
            return alive
        alive = still
