"""The whole way from a log to a Split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from distilrec.data.build import build_dataset
from distilrec.data.clean import Cleaning, cleaning
from distilrec.data.clean import clean as clean_rows
from distilrec.data.layouts import RawLog, read_layout
from distilrec.data.read import RawTable, read_table
from distilrec.data.rows import standardize
from distilrec.data.split import needs_order, split_settings
from distilrec.data.split import split as split_dataset
from distilrec.errors import DataError, problem
from distilrec.types import Split

__all__ = ["prepare"]


def prepare(
    interactions: Any,
    *,
    items: Any = None,
    users: Any = None,
    columns: Mapping[str, str] | None = None,
    layout: str | None = None,
    text: Sequence[str] = ("title",),
    clean: Cleaning | Mapping[str, Any] | None = None,
    split: str | Mapping[str, Any] = "leave-last-out",
    name: str | None = None,
    seed: int = 0,
) -> Split:
    """Read, clean and split a log.

    interactions: a file, a folder of a known layout (see `layouts.LAYOUTS`), or a polars, pyarrow or pandas frame.
    items, users: a file or frame; overrides the table of the layout. Keys are unique.
    columns: role -> column of the log, for roles whose column has another name (see `rows.ROLES`).
    text: the item columns that make up an item's text.
    clean: rules of `clean.Cleaning`; by default only exact duplicates are dropped.
    split: a method of `split.METHODS`, or a mapping {"method": ..., its settings}.

    Rows without order are dropped before ids are given when the split asks for order, so an item that only such rows
    mention is not in the catalog. What was dropped, and why, is in `Split.counts` and `Dataset.counts`; bad rows are
    in `Dataset.quarantine`. Raises DataError.
    """
    rules, settings = cleaning(clean), split_settings(split)
    log, default_name = _raw_log(interactions, layout)
    roles = {**log.columns, **(columns or {})}
    rows, bad = standardize(log.interactions.frame, roles, log.interactions.file)
    quarantine = pl.concat([log.interactions.bad, bad])
    counts = {"rows read": rows.height + quarantine.height, "dropped: bad rows, in quarantine": quarantine.height}
    if needs_order(settings["method"]):
        rows = _with_order(rows, settings["method"], counts)
    rows, dropped = clean_rows(rows, rules)
    counts |= dropped
    counts["rows kept"] = rows.height
    if "rating" in rows.columns:
        counts["rows without rating, weight 1"] = rows["rating"].null_count()
    dataset = build_dataset(
        name or default_name,
        rows,
        _table(items, log.items, "item_id", roles),
        _table(users, log.users, "user_id", roles),
        text=text,
        keep_cold_items=rules.keep_cold_items,
        counts=counts,
        quarantine=quarantine,
    )
    method, check = settings.pop("method"), settings.pop("check")
    own_seed = settings.pop("seed")
    return split_dataset(dataset, method, seed=seed if own_seed is None else own_seed, check=check, **settings)


def _raw_log(interactions: Any, layout: str | None) -> tuple[RawLog, str]:
    if isinstance(interactions, str | Path):
        path = Path(interactions)
        return read_layout(path, layout), path.resolve().name.split(".")[0] or "data"
    frame = _frame(interactions)
    if frame.height == 0:
        raise DataError(problem("the frame of interactions is empty", "at least one row", "check how it was made"))
    return RawLog("frame", RawTable("(frame)", frame)), "data"


def _frame(table: Any) -> pl.DataFrame:
    if isinstance(table, pl.DataFrame):
        return table
    if isinstance(table, pl.LazyFrame):
        return table.collect()
    if hasattr(table, "__arrow_c_stream__"):  # pyarrow, pandas from 2.2, duckdb, ...
        return pl.DataFrame(table)
    raise DataError(
        problem(f"a table of type {type(table).__name__}", "a path, or a polars, pyarrow or pandas frame", "convert it")
    )


def _table(given: Any, found: pl.DataFrame | None, role: str, roles: Mapping[str, str]) -> pl.DataFrame | None:
    """An item or user table with its key under the role's name; the key may have the name it has in the log."""
    table = found if given is None else read_table(given) if isinstance(given, str | Path) else _frame(given)
    other = roles.get(role)
    if table is not None and role not in table.columns and other in table.columns:
        table = table.rename({other: role})
    return table


def _with_order(rows: pl.DataFrame, method: str, counts: dict[str, int]) -> pl.DataFrame:
    names = [name for name in ("timestamp", "seq_pos") if name in rows.columns]
    if not names:
        raise DataError(
            problem(
                f"the log has neither timestamp nor seq_pos, which the split {method!r} needs",
                "a column of times or positions",
                "name it, e.g. columns={'timestamp': 'when'}, or split by 'random', 'k-fold' or 'given'",
            )
        )
    # the first of the two is what orders events; a row without it cannot be placed
    kept = rows.filter(pl.col(names[0]).is_not_null())
    counts["dropped: without order"] = rows.height - kept.height
    if kept.height == 0:
        raise DataError(
            problem(f"every row of the column {names[0]!r} is empty", "times or positions", "use a split without order")
        )
    return kept
