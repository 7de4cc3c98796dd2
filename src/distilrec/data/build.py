"""From standard rows to a Dataset: internal ids, the order of events, item texts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from distilrec.data.read import QUARANTINE_SCHEMA, require_columns
from distilrec.data.rows import plain_keys
from distilrec.errors import DataError, problem
from distilrec.types import PARTS, Dataset, Interactions

__all__ = ["SPLIT_NAMES", "UNKNOWN_ORDER", "build_dataset"]

UNKNOWN_ORDER = -1  # the timestamp of an event of which nobody knows when it happened
SPLIT_NAMES = {"train": 0, "training": 0, "valid": 1, "validation": 1, "val": 1, "dev": 1, "test": 2}


def build_dataset(
    name: str,
    interactions: pl.DataFrame,
    items: pl.DataFrame | None = None,
    users: pl.DataFrame | None = None,
    *,
    text: Sequence[str] = ("title",),
    keep_cold_items: bool = False,
    counts: Mapping[str, int] | None = None,
    quarantine: pl.DataFrame | None = None,
) -> Dataset:
    """A Dataset from rows in standard columns (see `rows.standardize`).

    Internal ids follow the sorted keys (as numbers when all are whole numbers), so they do not depend on the
    order of the rows. Events are ordered by (user, time, seq_pos); equal ones keep the order of the file. An event
    without time gets the timestamp `UNKNOWN_ORDER`; a column `split` becomes `context["split"]` (0, 1, 2, or -1).
    `items` and `users` are tables with a unique `item_id` or `user_id`; items without events are left out unless
    `keep_cold_items`; items missing in the table stay, with null in every column. `text` names the item columns
    that are joined into "text".

    Raises DataError for no rows, duplicate keys in a table and missing text columns.
    """
    if interactions.height == 0:
        raise DataError(
            problem("no interaction is left", "at least one row after cleaning", "loosen the cleaning rules")
        )
    counted = dict(counts or {})
    user_keys, user_codes = _encode(interactions["user_id"], None)
    table = None if items is None else _keyed(items, "item_id")
    item_keys, item_codes = _encode(
        interactions["item_id"], table["item_id"] if table is not None and keep_cold_items else None
    )
    order = _order(interactions, user_codes)
    taken = interactions[order]
    arrays = Interactions(
        user_codes[order],
        item_codes[order],
        _weights(taken),
        _timestamps(taken),
        {"split": _split_codes(taken["split"])} if "split" in taken.columns else {},
    )
    item_table = None
    if table is not None:
        item_table = _with_text(_aligned(table, "item_id", item_keys, counted, "items"), text, counted)
    user_table = None if users is None else _aligned(_keyed(users, "user_id"), "user_id", user_keys, counted, "users")
    aside = quarantine if quarantine is not None else pl.DataFrame(schema=QUARANTINE_SCHEMA)
    return Dataset(
        name,
        arrays,
        _as_objects(user_keys),
        _as_objects(item_keys),
        None if item_table is None else item_table.to_arrow(compat_level=pl.CompatLevel.oldest()),
        None if user_table is None else user_table.to_arrow(compat_level=pl.CompatLevel.oldest()),
        counts=counted,
        timed="timestamp" in interactions.columns,
        quarantine=aside.to_arrow(compat_level=pl.CompatLevel.oldest()),
    )


def _encode(keys: pl.Series, more: pl.Series | None) -> tuple[pl.Series, np.ndarray]:
    """(sorted unique keys, int32 code of each row)."""
    if more is not None and more.dtype != keys.dtype:
        keys, more = keys.cast(pl.String), more.cast(pl.String)
    if more is None:
        return keys.unique().sort(), keys.rank("dense").to_numpy().astype(np.int32) - np.int32(1)
    both = pl.concat([keys, more.rename(keys.name)])
    return both.unique().sort(), both.rank("dense").head(keys.len()).to_numpy().astype(np.int32) - np.int32(1)


def _as_objects(keys: pl.Series) -> np.ndarray:
    result = np.empty(keys.len(), dtype=object)
    result[:] = keys.cast(pl.String).to_list()
    return result


def _order(rows: pl.DataFrame, user_codes: np.ndarray) -> np.ndarray:
    """Stable order by (user, time, seq_pos). Unknown times come last, so a known history stays whole."""
    by: list[np.ndarray] = [user_codes]
    for name in ("_fine" if "_fine" in rows.columns else "timestamp", "seq_pos"):
        if name in rows.columns:
            by.append(rows[name].fill_null(np.iinfo(np.int64).max).to_numpy())
    return np.lexsort(by[::-1])


def _weights(rows: pl.DataFrame) -> np.ndarray:
    if "rating" not in rows.columns:
        return np.ones(rows.height, dtype=np.float32)
    return rows["rating"].cast(pl.Float32).fill_null(1.0).to_numpy().copy()


def _timestamps(rows: pl.DataFrame) -> np.ndarray:
    for name in ("timestamp", "seq_pos"):
        if name in rows.columns and rows[name].null_count() < rows.height:
            return rows[name].fill_null(UNKNOWN_ORDER).to_numpy().astype(np.int64)
    return np.full(rows.height, UNKNOWN_ORDER, dtype=np.int64)


def _split_codes(column: pl.Series) -> np.ndarray:
    names = column.cast(pl.String).str.to_lowercase()
    unknown = sorted(set(names.drop_nulls().unique().to_list()) - set(SPLIT_NAMES))
    if unknown:
        raise DataError(
            problem(
                f"the column 'split' holds {', '.join(map(repr, unknown[:3]))}",
                ", ".join(PARTS),
                "rename the values, or map another column to 'split'",
            )
        )
    return names.replace_strict(SPLIT_NAMES, default=-1, return_dtype=pl.Int8).to_numpy().copy()


def _keyed(table: pl.DataFrame, role: str) -> pl.DataFrame:
    """The table with plain keys; DataError if a key occurs twice."""
    require_columns(table, [role], f"the table of {role.removesuffix('_id')}s")
    table = table.with_columns(plain_keys(table[role]).alias(role))
    again = table.filter(pl.col(role).is_not_null() & pl.col(role).is_duplicated())[role].unique(maintain_order=True)
    if again.len():
        shown = ", ".join(map(str, again.head(3).to_list()))
        raise DataError(
            problem(
                f"{again.len()} keys occur more than once in the column {role!r}: {shown}",
                "one row per key",
                "remove the repeated rows",
            )
        )
    return table.filter(pl.col(role).is_not_null())


def _aligned(table: pl.DataFrame, role: str, keys: pl.Series, counts: dict[str, int], what: str) -> pl.DataFrame:
    """The table's rows in the order of `keys`, null where it has none; counts both kinds of mismatch."""
    if table[role].dtype != keys.dtype:
        table, keys = table.with_columns(pl.col(role).cast(pl.String)), keys.cast(pl.String)
    known = int(keys.is_in(table[role].implode()).sum())
    counts[f"{what}: not in the table"] = keys.len() - known
    counts[f"{what}: in the table, without events, left out"] = table.height - known
    aligned = pl.DataFrame({role: keys}).join(table, on=role, how="left", maintain_order="left")
    return aligned.with_columns(pl.col(role).cast(pl.String))


def _with_text(table: pl.DataFrame, text: Sequence[str], counts: dict[str, int]) -> pl.DataFrame:
    """Add the column "text". The default ("title",) also accepts a table that has "text" in place of "title"."""
    columns = list(text)
    if tuple(columns) == ("title",) and "title" not in table.columns:
        columns = [name for name in ("text",) if name in table.columns]
    require_columns(table, columns, "the item table")
    if columns:
        parts = [_flat_text(table[name]) for name in columns]
        joined = pl.select(pl.concat_str(parts, separator=" ", ignore_nulls=True)).to_series()
        joined = joined.set(joined.str.strip_chars() == "", None)
    else:
        joined = pl.Series([None] * table.height, dtype=pl.String)
    if "text" in table.columns and columns != ["text"]:
        table = table.rename({"text": "text_column"})
    counts["items: without text"] = joined.null_count()
    return table.with_columns(joined.alias("text"))


def _flat_text(column: pl.Series) -> pl.Series:
    """Text of a column: lists (Amazon descriptions, categories) are joined by a space."""
    values: Any = column
    while isinstance(values.dtype, pl.List):
        if isinstance(values.dtype.inner, pl.List):
            values = pl.select(
                pl.lit(values).list.eval(pl.element().list.eval(pl.element().cast(pl.String)).list.join(" "))
            ).to_series()
        else:
            values = values.cast(pl.List(pl.String)).list.join(" ", ignore_nulls=True)
    return values.cast(pl.String).str.strip_chars()
