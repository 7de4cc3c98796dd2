"""What an outside model is given: raw columns as they were read, or columns encoded by this split's features.

A column of an outside model is named by a source:

    price            the raw column `price`
    encoded:price    what the feature `price` encodes to: an id (category), a scaled number (missing = 0), a vector
    hot:genres       one column per known value of a list, sequence or text feature: 1 where the row has it
    count:genres     how many values the row has, unknown ones included
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc

from distilrec.errors import DataError, nearest, problem
from distilrec.features import RAGGED_KINDS, Feature
from distilrec.types_rows import RowSplit

__all__ = ["FORMS", "Source", "arrays", "check_sources", "frame", "matrix", "named_or_matrix"]

PREFIXES = ("encoded", "hot", "count")
FORMS = ("arrow", "numpy", "pandas", "polars")
Source = str
MOST_HOT = 4096  # columns that one feature may become

_GRAMMAR = "a raw column (price), or encoded:FEATURE, hot:FEATURE, count:FEATURE"


def matrix(split: RowSplit, rows: np.ndarray, columns: Sequence[Source], dtype: Any = np.float32) -> tuple[
        np.ndarray, list[str]]:
    """The sources side by side as numbers, and the name of each column.

    Returns:
        float32 (or `dtype`) [n, M]; a missing raw number is NaN. float32 holds whole numbers up to 2^24 exactly: a
        raw column with larger ones, such as Unix seconds, needs float64.
    Raises:
        DataError: an unknown source, a raw column that is not made of numbers, or whole numbers that `dtype` would
            make equal to their neighbors.
    """
    check_sources(split, columns)
    parts, names = [], []
    for source in columns:
        values, named = _columns(split, rows, source)
        parts.append(_narrowed(values, dtype, source))
        names += named
    out = np.concatenate(parts, axis=1) if parts else np.empty((len(rows), 0), dtype=dtype)
    return out, names


def arrays(
    split: RowSplit, rows: np.ndarray, inputs: Mapping[str, Source | Sequence[Source]], wide: Collection[str] = ()
) -> dict[str, np.ndarray]:
    """{input name: array}: a list of sources becomes a matrix float32 [n, M] (float64 if `wide`), one what it is.

    One source: raw numbers [n] (integers and truth values keep their type, with a missing value they are float64
    with NaN), raw text as objects [n] (None where missing), ids int32 [n] or [n, L] (-1 pads), vectors float32 [n, D].
    """
    out: dict[str, np.ndarray] = {}
    for name, source in inputs.items():
        if not isinstance(source, str):
            out[name] = matrix(split, rows, source, np.float64 if name in wide else np.float32)[0]
            continue
        check_sources(split, [source])
        prefix, feature = _parts(source)
        if prefix is None:
            out[name] = _raw(split, rows, source)
        elif prefix == "encoded":
            out[name] = split.columns[feature][rows]
        else:
            out[name] = _columns(split, rows, source)[0]
    return out


def named_or_matrix(
    inputs: Sequence[Source] | Mapping[str, Source | Sequence[Source]], wide: Collection[str] = ()
) -> Any:
    """A reader (split, rows) -> matrix [n, M] for a list of sources, or -> {input: array} for a mapping.

    wide: the inputs of a mapping whose matrix is float64.
    """
    if isinstance(inputs, Mapping):
        return lambda split, rows: arrays(split, rows, inputs, wide)
    if isinstance(inputs, str) or not isinstance(inputs, Sequence) or not inputs:
        raise DataError(problem(f"inputs: {inputs!r:.80}", "a list of sources, or a mapping of input names to sources",
                                f"a source is {_GRAMMAR}"))
    return lambda split, rows: matrix(split, rows, inputs)[0]


def frame(split: RowSplit, rows: np.ndarray, form: str, columns: Sequence[str] | None = None) -> Any:
    """Raw columns of some rows, in one of FORMS: a pyarrow, pandas or polars table, or {column: array [n]}.

    Raises:
        DataError: an unknown form or column; pandas is asked for and not installed.
    """
    named = list(columns) if columns is not None else split.raw.column_names
    check_sources(split, named)
    if form == "numpy":
        return {name: _raw(split, rows, name) for name in named}
    table = split.raw.select(named).take(pa.array(rows))
    if form == "arrow":
        return table
    if form == "polars":
        return pl.from_arrow(table)
    if form != "pandas":
        raise DataError(problem(f"rows in the form {form!r}{nearest(form, FORMS)}", ", ".join(FORMS)))
    try:
        return table.to_pandas()
    except ImportError as error:
        raise DataError(problem("the model wants its rows as pandas, which is not installed", "pandas",
                                "pip install pandas, or choose the form polars")) from error


def check_sources(split: RowSplit, sources: Sequence[Source]) -> None:
    """Raises DataError for the first source that this table has not, with the nearest name."""
    for source in sources:
        prefix, name = _parts(source)
        known = split.raw.column_names if prefix is None else list(split.features)
        if name not in known:
            what = "raw column" if prefix is None else "feature"
            raise DataError(problem(f"the model reads {source!r}, and the table has no {what} {name!r}"
                                    f"{nearest(name, known)}", f"{what}s: {', '.join(known)}", f"name {_GRAMMAR}"))
        if prefix in ("hot", "count") and split.features[name].kind not in RAGGED_KINDS:
            raise DataError(problem(f"{source!r}: {name!r} is a {split.features[name].kind}",
                                    "a list, sequence or text feature", f"write encoded:{name}"))


def _parts(source: Source) -> tuple[str | None, str]:
    prefix, colon, name = source.partition(":")
    return (prefix, name) if colon and prefix in PREFIXES else (None, source)


def _columns(split: RowSplit, rows: np.ndarray, source: Source) -> tuple[np.ndarray, list[str]]:
    """One source as numbers [n, m], with a name for each of the m columns."""
    prefix, name = _parts(source)
    if prefix is None:
        return _raw_numbers(split, rows, name)[:, None], [name]
    feature, encoded = split.features[name], split.columns[name][rows]
    if prefix == "count":
        return (encoded >= 0).sum(axis=1, keepdims=True), [f"{name} (count)"]
    if prefix == "hot":
        return _hot(feature, encoded)
    if feature.kind in RAGGED_KINDS:
        raise DataError(problem(f"{source!r}: {name!r} is a {feature.kind}, several ids a row", "one number a row",
                                f"write hot:{name} or count:{name}"))
    if encoded.ndim == 2:
        return encoded, [f"{name}[{place}]" for place in range(encoded.shape[1])]
    return encoded[:, None], [name]


def _narrowed(values: np.ndarray, dtype: Any, source: Source) -> np.ndarray:
    """The values as `dtype`. Raises DataError where that changes a whole number; fractions are rounded."""
    out = values.astype(dtype, copy=False)
    if out.dtype.itemsize >= 8 or _parts(source)[0] is not None:  # ids, counts and scaled numbers are small
        return out
    lost = values[(np.abs(values) > 2**24) & (np.floor(values) == values) & np.isfinite(values) & (out != values)]
    if len(lost):
        raise DataError(problem(
            f"the raw column {source!r} holds {lost[0]:.0f}, and a matrix of {out.dtype} would read it as "
            f"{float(lost[0].astype(dtype)):.0f}", f"whole numbers up to {2**24:,}, above which they run together",
            f"give {source!r} as an input of its own (it keeps its type), write encoded:{source} where it is a "
            "feature, or store it with an earlier zero (hours since the start of the log)"))
    return out


def _hot(feature: Feature, encoded: np.ndarray) -> tuple[np.ndarray, list[str]]:
    if feature.size - 1 > MOST_HOT:
        raise DataError(problem(f"hot:{feature.name} would be {feature.size - 1:,} columns", f"at most {MOST_HOT:,}",
                                f"write count:{feature.name}, or give the feature a smaller vocabulary"))
    out = np.zeros((len(encoded), feature.size), dtype=np.float32)
    row, place = np.nonzero(encoded > 0)  # 0 is unknown
    out[row, encoded[row, place]] = 1.0
    values = feature.vocabulary or tuple(str(one) for one in range(1, feature.size))
    return out[:, 1:], [f"{feature.name}={value}" for value in values]


def _raw(split: RowSplit, rows: np.ndarray, name: str) -> np.ndarray:
    """A raw column [n] in its own type; objects for what is no number."""
    column = split.raw.column(name)
    kind = column.type
    if pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind):
        return column.take(pa.array(rows)).to_numpy() if not column.null_count else _raw_numbers(split, rows, name)
    out = np.empty(len(rows), dtype=object)
    out[:] = column.take(pa.array(rows)).to_pylist()
    return out


def _raw_numbers(split: RowSplit, rows: np.ndarray, name: str) -> np.ndarray:
    """float64 [n], NaN where missing."""
    column = split.raw.column(name)
    if pa.types.is_boolean(column.type):
        column = column.cast(pa.int8())
    if pa.types.is_null(column.type):
        return np.full(len(rows), np.nan)
    if not (pa.types.is_floating(column.type) or pa.types.is_integer(column.type) or
            pa.types.is_decimal(column.type)):
        ways = [f"encoded:{one.name}" if one.kind not in RAGGED_KINDS else f"hot:{one.name}"
                for one in split.features.values() if name in one.sources]
        raise DataError(problem(f"the raw column {name!r} holds {column.type}, and a matrix holds numbers", "numbers",
                                f"write {' or '.join(ways)}" if ways else "leave the column out"))
    taken = column.take(pa.array(rows)).cast(pa.float64(), safe=False)  # integers above 2^53 are rounded
    return pc.fill_null(taken, float("nan")).to_numpy()
