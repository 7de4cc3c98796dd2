"""From the columns of a log to the standard columns: types, units of time, and bad rows set aside.

Standard columns: `user_id` and `item_id` (int64 or text), `timestamp` (int64, Unix seconds, null = unknown),
`seq_pos` (int64, ties within a timestamp, null = unknown), `rating` (float32), `split` and `event` (text).
"""

from __future__ import annotations

from collections.abc import Mapping

import polars as pl

from distilrec.data.read import LINE, QUARANTINE_SCHEMA, require_columns
from distilrec.errors import DataError, nearest, problem

__all__ = ["ROLES", "find_columns", "plain_keys", "standardize"]

ROLES = ("user_id", "item_id", "timestamp", "seq_pos", "rating", "split", "event")
_KEYS = ("user_id", "item_id")
# the median of a column tells its unit: in seconds it passes this bound only in the year 5138
_UNITS = ((1e17, 1_000_000_000, "ns"), (1e14, 1_000_000, "us"), (1e11, 1_000, "ms"))


def find_columns(frame: pl.DataFrame, columns: Mapping[str, str] | None, file: str) -> dict[str, str]:
    """role -> column of `frame`: as given, else the column of the role's own name. DataError if a key is missing."""
    given = dict(columns or {})
    for role in given:
        if role not in ROLES:
            raise DataError(
                problem(
                    f"columns has the unknown role {role!r}{nearest(role, ROLES)}",
                    ", ".join(ROLES),
                    "map roles to the names in your file, e.g. {'user_id': 'customer'}",
                )
            )
    found = {role: given.get(role, role) for role in ROLES if role in given or role in frame.columns}
    require_columns(frame, [found.get(role, role) for role in _KEYS] + list(given.values()), file)
    return found


def standardize(frame: pl.DataFrame, columns: Mapping[str, str] | None, file: str) -> tuple[pl.DataFrame, pl.DataFrame]:
    """(good rows in standard columns + LINE, bad rows of file, line, reason, content).

    A row is bad when a key is null or empty, a number or time cannot be parsed, a weight is NaN or
    infinite, or a time is negative. A null time is not bad (its order is unknown), nor is a null rating.
    Raises DataError for a missing column, and when most of a column cannot be parsed (it has the wrong type).
    """
    found = find_columns(frame, columns, file)
    if LINE not in frame.columns:
        frame = frame.with_row_index(LINE, 1).with_columns(pl.col(LINE).cast(pl.Int64))
    result: dict[str, pl.Series] = {LINE: frame[LINE]}
    faults: list[tuple[str, pl.Series]] = []
    for role, name in found.items():
        column = frame[name]
        if role in _KEYS:
            key = _key(column, role, file)
            result[role] = key
            faults.append((f"{role} is empty", key.is_null()))
        elif role == "timestamp":
            seconds, fine, unparsable = _times(column, file)
            result["timestamp"], result["_fine"] = seconds, fine
            faults.append(("timestamp is not a number or a date", unparsable))
            faults.append(("timestamp is negative", (seconds < 0).fill_null(False)))
        elif role == "seq_pos":
            position = _number(column).cast(pl.Int64, strict=False)
            result[role] = position
            faults.append(("seq_pos is not a whole number", position.is_null() & column.is_not_null()))
            faults.append(("seq_pos is negative", (position < 0).fill_null(False)))
        elif role == "rating" and column.null_count() < column.len():
            rating = _number(column).cast(pl.Float32, strict=False)
            result[role] = rating
            # a null rating is an event without one; a text that is no number, NaN and infinity are faults
            faults.append(
                ("rating is not a finite number", column.is_not_null() & ~rating.is_finite().fill_null(False))
            )
        elif role in ("split", "event"):
            result[role] = column.cast(pl.String)
    return _separate(frame, pl.DataFrame(result), faults, found, file)


def _separate(
    raw: pl.DataFrame, rows: pl.DataFrame, faults: list[tuple[str, pl.Series]], found: dict[str, str], file: str
) -> tuple[pl.DataFrame, pl.DataFrame]:
    reason = pl.Series("reason", [None], dtype=pl.String).new_from_index(0, rows.height)
    for text, mask in faults:
        wrong = int(mask.sum())
        if wrong == 0:
            continue
        role = text.split()[0]
        if wrong * 2 > rows.height:
            shown = ", ".join(map(repr, raw[found[role]].filter(mask).head(3).to_list()))
            raise DataError(
                problem(
                    f"{file}: in {wrong} of {rows.height} rows {text} (column {found[role]!r} holds {shown})",
                    "a column of that role, with few exceptions",
                    f"map another column to {role!r}, or repair this one",
                )
            )
        reason = pl.select(
            pl.when(mask & reason.is_null()).then(pl.lit(text)).otherwise(reason).alias("reason")
        ).to_series()
    bad = reason.is_not_null()
    if not bad.any():
        return rows, pl.DataFrame(schema=QUARANTINE_SCHEMA)
    content = raw.filter(bad).select(list(dict.fromkeys(found.values()))).rows(named=True)
    quarantine = pl.DataFrame(
        {
            "file": [file] * len(content),
            "line": rows[LINE].filter(bad),
            "reason": reason.filter(bad),
            "content": [str(row) for row in content],
        },
        schema=QUARANTINE_SCHEMA,
    )
    return rows.filter(~bad), quarantine


def plain_keys(column: pl.Series) -> pl.Series:
    """Keys as int64 when every one is a whole number in plain writing, otherwise as text; empty keys are null.

    Whole numbers sort as numbers. '007' is not plain writing: it must stay apart from '7'.
    """
    if column.dtype.is_integer():
        return column.cast(pl.Int64) if column.dtype != pl.UInt64 else plain_keys(column.cast(pl.String))
    if column.dtype.is_float():  # a table that passed through a tool without integer nulls
        whole = column.fill_nan(None)
        if (whole.drop_nulls() == whole.drop_nulls().round()).all():
            return whole.cast(pl.Int64, strict=False)
        return whole.cast(pl.String)
    text = column.cast(pl.String)
    text = text.set(text.str.strip_chars() == "", None)
    numbers = text.cast(pl.Int64, strict=False)
    if numbers.null_count() == text.null_count() and (numbers.cast(pl.String) == text).all():
        return numbers
    return text


def _key(column: pl.Series, role: str, file: str) -> pl.Series:
    if not (column.dtype.is_numeric() or column.dtype in (pl.String, pl.Categorical, pl.Enum, pl.Null)):
        raise DataError(
            problem(
                f"{file}: column {column.name!r} for {role!r} has type {column.dtype}",
                "whole numbers or text",
                "map another column, or convert this one",
            )
        )
    return plain_keys(column).alias(role)


def _number(column: pl.Series) -> pl.Series:
    if column.dtype.is_numeric():
        return column
    return column.cast(pl.String, strict=False).str.strip_chars().cast(pl.Float64, strict=False)


def _times(column: pl.Series, file: str) -> tuple[pl.Series, pl.Series, pl.Series]:
    """(Unix seconds int64, the finest value known int64 to order by, rows that could not be parsed)."""
    if column.dtype == pl.Date:
        column = column.cast(pl.Datetime("us"))
    if isinstance(column.dtype, pl.Datetime):
        fine = column.dt.epoch("us")
        return (fine // 1_000_000).alias("timestamp"), fine.alias("_fine"), pl.repeat(False, column.len(), eager=True)
    if not (column.dtype.is_numeric() or column.dtype in (pl.String, pl.Null)):
        raise DataError(
            problem(
                f"{file}: column {column.name!r} for 'timestamp' has type {column.dtype}",
                "Unix times, dates, or dates as text",
                "map another column, or convert this one",
            )
        )
    numbers = _number(column)
    if numbers.dtype.is_float():
        numbers = numbers.fill_nan(None)
    if column.dtype == pl.String and numbers.null_count() * 2 > column.null_count() + column.len():
        numbers = _dates(column)
        return (
            (numbers // 1_000_000).alias("timestamp"),
            numbers.alias("_fine"),
            numbers.is_null() & column.is_not_null(),
        )
    median = numbers.median()
    scale = next((scale for bound, scale, _ in _UNITS if isinstance(median, int | float) and abs(median) >= bound), 1)
    # a float second carries a fraction that still orders events, so the fine value counts microseconds
    fine = (
        numbers.cast(pl.Int64, strict=False)
        if numbers.dtype.is_integer() or scale > 1
        else (numbers * 1e6).cast(pl.Int64, strict=False)
    )
    divisor = scale if numbers.dtype.is_integer() or scale > 1 else 1_000_000
    seconds = (fine // divisor) if divisor > 1 else fine
    return seconds.alias("timestamp"), fine.alias("_fine"), fine.is_null() & column.is_not_null()


def _dates(column: pl.Series) -> pl.Series:
    """Microseconds since 1970 of dates as text; null where there is no date."""
    try:
        return column.str.to_datetime(strict=False, time_unit="us").dt.epoch("us")
    except pl.exceptions.ComputeError:  # not one of them has the form of a date
        return pl.repeat(None, column.len(), dtype=pl.Int64, eager=True)
