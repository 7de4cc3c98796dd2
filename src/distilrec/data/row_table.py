"""A table of examples as it was found: Parquet, CSV, JSON Lines, libFM, a folder, a frame; joined and given types.

A row that can be blamed (text in a column of numbers, too few fields) goes to quarantine with its line and a reason;
where more than one in twenty is at fault the column is, and that is an error.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import polars as pl

from distilrec.data.layouts import find_file, read_layout
from distilrec.data.read import LINE, QUARANTINE_SCHEMA, quarantine_rows, read_bytes, read_raw, require_columns
from distilrec.data.rows import plain_keys
from distilrec.errors import DataError, nearest, problem

__all__ = ["LIBFM", "RowTable", "as_frame", "blame", "join", "libfm", "numbers", "read_rows", "settle"]

LIBFM = (".libfm", ".svm", ".libsvm")
BLAMED = 0.05  # up to this share of rows is set aside; beyond it something is wrong with the column
_STEMS = ("rows", "ctr", "interactions")
_JOIN = ("path", "frame", "on", "columns", "prefix")


@dataclass(frozen=True, eq=False)
class RowTable:
    """Rows with their line numbers in column `LINE`, bad rows (file, line, reason, content), and counts by reason."""

    file: str
    frame: pl.DataFrame
    bad: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=QUARANTINE_SCHEMA))
    counts: dict[str, int] = field(default_factory=dict)


def read_rows(source: Any, columns: Sequence[str] | None = None) -> RowTable:
    """Read a table of examples.

    source: a polars, pyarrow or pandas frame; a file; or a folder with rows.*, ctr.* or interactions.* (or of any
        layout that `prepare` knows, whose interactions are taken).
    columns: the names of the fields of a libFM file, by position; f0, f1, ... by default.
    Raises DataError for what cannot be read and for `columns` of a table that names its own.
    """
    if isinstance(source, str | Path):
        table = _read_path(Path(source), columns)
    else:
        frame = as_frame(source)
        if LINE not in frame.columns:
            frame = frame.with_row_index(LINE, 1).with_columns(pl.col(LINE).cast(pl.Int64))
        table = RowTable("(frame)", frame)
    if columns is not None and not _is_libfm(Path(table.file)):
        raise DataError(problem(f"columns={list(columns)} for {table.file}", "names for the fields of a libFM file",
                                "leave columns out: this table names its own"))
    if table.frame.height == 0:
        raise DataError(problem(f"{table.file} has no rows", "at least one", "check how it was made"))
    return table


def _read_path(path: Path, columns: Sequence[str] | None) -> RowTable:
    if path.is_dir():
        fields = [one for one in sorted(path.iterdir()) if _is_libfm(one) and one.name.split(".")[0] in _STEMS]
        found = find_file(path, _STEMS) or next(iter(fields), None)
        if found is None:
            raw = read_layout(path).interactions
            return RowTable(raw.file, raw.frame, raw.bad)
        path = found
    if _is_libfm(path):
        return libfm(path, columns)
    raw = read_raw(path)
    return RowTable(raw.file, raw.frame, raw.bad)


def _is_libfm(path: Path) -> bool:
    return path.name.removesuffix(".gz").endswith(LIBFM)


def as_frame(table: Any) -> pl.DataFrame:
    """A frame of any library as a polars one; DataError for other things."""
    if isinstance(table, pl.DataFrame):
        return table
    if isinstance(table, pl.LazyFrame):
        return table.collect()
    if hasattr(table, "__arrow_c_stream__"):  # pyarrow, pandas from 2.2, duckdb, ...
        return pl.DataFrame(table)
    raise DataError(problem(f"a table of type {type(table).__name__}",
                            "a path, or a polars, pyarrow or pandas frame", "convert it"))


def libfm(path: str | Path, columns: Sequence[str] | None = None) -> RowTable:
    """A file of lines "label index:value index:value ..." as columns label, then one per field by position.

    A field whose values are all 1 is a category, its index; one whose index is always the same is a number, its
    value (Rendle, ACM TIST 2012, section 5). Lines of another length than most, or than `columns`, are bad rows.
    Raises DataError for a missing or empty file, and for a field that is both.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(problem(f"there is no file {path}", "a libFM file", "check the path"))
    text = pl.Series("line", read_bytes(path).decode("utf-8", errors="replace").splitlines(), dtype=pl.String)
    lines = text.to_frame().with_row_index(LINE, 1).with_columns(pl.col(LINE).cast(pl.Int64))
    lines = lines.with_columns(pl.col("line").str.strip_chars()).filter(pl.col("line") != "")
    if lines.height == 0:
        raise DataError(problem(f"{path} is empty", "at least one row", "check how the file was written"))
    tokens = lines["line"].str.replace_all(r"\s+", " ").str.split(" ")
    width = len(columns) if columns is not None else Counter((tokens.list.len() - 1).to_list()).most_common(1)[0][0]
    names = list(columns) if columns is not None else [f"f{place}" for place in range(width)]
    if "label" in names or len(set(names)) < len(names):
        raise DataError(problem(f"field names {', '.join(names)}", "different names, none of them label", "rename"))
    label = tokens.list.get(0).cast(pl.Float64, strict=False)
    sized = tokens.list.len() == width + 1
    pairs = [tokens.list.get(place + 1, null_on_oob=True) for place in range(width)]
    indices = [pair.str.extract(r"^(\d+):").cast(pl.Int64, strict=False) for pair in pairs]
    values = [pair.str.extract(r":(.+)$").cast(pl.Float64, strict=False) for pair in pairs]
    whole = sized & label.is_not_null()
    for index, value in zip(indices, values, strict=True):
        whole = whole & index.is_not_null() & value.is_not_null()
    fields = [
        _libfm_field(name, index.filter(whole), value.filter(whole), path)
        for name, index, value in zip(names, indices, values, strict=True)
    ]
    frame = pl.DataFrame([lines[LINE].filter(whole), label.filter(whole).alias("label"), *fields])
    bad = [
        (line, f"{size - 1} fields, expected {width}" if size != width + 1 else "not label index:value ...", content)
        for line, content, size in zip(lines[LINE].filter(~whole).to_list(), lines["line"].filter(~whole).to_list(),
                                       tokens.list.len().filter(~whole).to_list(), strict=True)
    ]
    if len(bad) > BLAMED * lines.height:
        raise DataError(problem(f"{len(bad)} of {lines.height} lines of {path} are faulty; line {bad[0][0]}: "
                                f"{bad[0][1]}", "label index:value ... with the same fields on every line",
                                "name the fields with columns, or repair the file"))
    return RowTable(str(path), frame, quarantine_rows(str(path), bad))


def _libfm_field(name: str, index: pl.Series, value: pl.Series, path: Path) -> pl.Series:
    if (value == 1).all():
        return index.alias(name)
    if index.n_unique() == 1:
        return value.alias(name)
    raise DataError(problem(f"{path}: field {name!r} has {index.n_unique()} indices and values other than 1",
                            "indices with the value 1 (a category), or one index with any value (a number)",
                            "write the table as Parquet or CSV"))


def join(table: RowTable, joins: Iterable[Mapping[str, Any]]) -> RowTable:
    """Add the columns of other tables by key: each join is {path or frame, on, columns?, prefix?}.

    on: a column of both tables, whose values are unique in the other one. columns: only these (default: all).
    prefix: put before the names of the added columns. A relative path is looked for beside the table first. Rows
    without a partner are counted and have nulls.
    Raises DataError for a join that is not of this form, a missing column, a repeated key, a name that is taken, and
    where no row at all has a partner.
    """
    for place, given in enumerate(joins):
        unknown = [f"{key!r}{nearest(key, _JOIN)}" for key in given if key not in _JOIN]
        if unknown or "on" not in given or ("path" in given) == ("frame" in given):
            seen = f"unknown settings {', '.join(unknown)}" if unknown else f"settings {', '.join(given)}"
            raise DataError(problem(f"joins.{place}: {seen}", "path or frame, and on; optionally columns, prefix",
                                    "correct it"))
        table = _join(table, f"joins.{place}", given)
    return table


def _join(table: RowTable, where: str, given: Mapping[str, Any]) -> RowTable:
    key, prefix = given["on"], given.get("prefix", "")
    if "frame" in given:
        other, name = as_frame(given["frame"]), where
    else:
        path = Path(table.file).parent / given["path"]
        path = path if path.is_file() else Path(given["path"])
        raw = read_raw(path)
        if raw.bad.height:
            line, reason = raw.bad.row(0)[1:3]
            raise DataError(problem(f"{path} line {line}: {reason}", "whole lines", "repair the file"))
        other, name = _typed(raw.frame.drop(LINE), keep=(key,)), path.name
    require_columns(table.frame, [key], table.file)
    require_columns(other, [key, *given.get("columns", ())], name)
    other = other.select(key, *(c for c in given.get("columns", other.columns) if c != key))
    other = other.rename({column: prefix + column for column in other.columns if column != key})
    taken = [column for column in other.columns if column != key and column in table.frame.columns]
    if taken:
        raise DataError(problem(f"{where}: columns {', '.join(taken)} are in both tables", "different names",
                                "give a prefix, or name the columns to add under columns"))
    left, right = plain_keys(table.frame[key]), plain_keys(other[key])
    if left.dtype != right.dtype:
        left, right = left.cast(pl.String), right.cast(pl.String)
    other = other.drop(key).with_columns(right.alias("_key")).filter(pl.col("_key").is_not_null())
    repeated = other.height - other["_key"].n_unique()
    if repeated:
        raise DataError(problem(f"{where}: {repeated} repeated values of {key!r} in {name}", "each value once",
                                "join a table with one row per key"))
    frame = table.frame.with_columns(left.alias("_key"))
    without = frame.join(other.select("_key"), on="_key", how="anti").height
    if without == frame.height:
        shown = [", ".join(map(repr, keys.drop_nulls().head(3).to_list())) for keys in (left, right)]
        raise DataError(problem(f"{where}: no row has a partner in {name}; {key!r} is {shown[0]} here and {shown[1]} "
                                "there", "keys written alike in both tables", "correct one of them"))
    frame = frame.join(other, on="_key", how="left", maintain_order="left").drop("_key")
    return replace(table, frame=frame, counts={**table.counts, f"rows without a partner in {name}": without})


def settle(table: RowTable, numeric: Iterable[str] = (), delimiters: Mapping[str, str] | None = None) -> RowTable:
    """Give the columns their types.

    numeric: columns that have to hold finite numbers; rows where they do not are blamed. delimiters: column of text
    -> what stands between the values of a list. Other text becomes whole numbers where every cell is one in plain
    writing; '007' stays text.
    """
    frame = _typed(table.frame, keep=(LINE, *(delimiters or {})))
    faults = []
    for name in dict.fromkeys(numeric):
        if name in frame.columns:
            column, wrong = numbers(frame[name])
            faults.append((name, "is not a finite number", wrong))
            frame = frame.with_columns(column.alias(name))
    for name, delimiter in (delimiters or {}).items():
        if name in frame.columns and frame[name].dtype == pl.String:
            parts = pl.col(name).str.split(delimiter).list.eval(pl.element().str.strip_chars())
            frame = frame.with_columns(parts.list.eval(pl.element().filter(pl.element() != "")))
    return blame(replace(table, frame=frame), faults, table.frame)


def numbers(column: pl.Series) -> tuple[pl.Series, pl.Series]:
    """(the column as numbers, null where empty; bool [N], cells that are no finite number). Other types stay."""
    if column.dtype == pl.String:
        text = column.str.strip_chars()
        whole = text.cast(pl.Int64, strict=False)
        empty = text.is_null() | (text == "")
        if whole.null_count() == int(empty.sum()):
            return whole, pl.repeat(False, len(column), eager=True)
        value = text.cast(pl.Float64, strict=False)
        return value, ~empty & (value.is_null() | value.is_infinite().fill_null(False))
    if column.dtype.is_float():
        return column, column.is_infinite().fill_null(False)
    return column, pl.repeat(False, len(column), eager=True)


def blame(table: RowTable, faults: Iterable[tuple[str, str, pl.Series]], raw: pl.DataFrame | None = None) -> RowTable:
    """Move rows to quarantine: faults are (column, what it does, bool [N]); `raw` has the cells as they were found.

    Raises DataError for all columns at once in which more than one row in twenty is at fault, with three examples.
    """
    raw = table.frame if raw is None else raw
    reason = pl.Series("reason", [None], dtype=pl.String).new_from_index(0, table.frame.height)
    heavy, held, touched = [], table.frame.height, []
    for name, text, mask in faults:
        wrong = int(mask.sum())
        if wrong == 0:
            continue
        touched.append(name)
        if wrong > BLAMED * held:
            shown = ", ".join(map(repr, raw[name].filter(mask).head(3).to_list()))
            heavy.append(f"column {name!r} {text} in {wrong} of {held} rows, such as {shown}")
        said = pl.when(mask & reason.is_null()).then(pl.lit(f"{name} {text}")).otherwise(reason)
        reason = pl.select(said.alias("reason")).to_series()
    if heavy:
        raise DataError(problem(f"{table.file}: " + "; ".join(heavy), f"at most {BLAMED:.0%} of rows at fault",
                                "name another column, give the feature another kind, or repair the column"))
    bad = reason.is_not_null()
    if not touched:
        return table
    content = raw.select(list(dict.fromkeys(touched))).filter(bad).rows(named=True)
    told = zip(raw[LINE].filter(bad).to_list(), reason.filter(bad).to_list(), map(str, content), strict=True)
    return replace(table, frame=table.frame.filter(~bad),
                   bad=pl.concat([table.bad, quarantine_rows(table.file, told)]))


def _typed(frame: pl.DataFrame, keep: Sequence[str]) -> pl.DataFrame:
    """Text whose every cell is a whole number in plain writing as numbers; float32 as the numbers it prints as."""
    columns = []
    for name in frame.columns:
        column = frame[name]
        if name not in keep:
            if column.dtype == pl.String:
                column = plain_keys(column)
            elif column.dtype == pl.Float32:  # .1 in float32 is the category 0.1, not 0.10000000149
                column = column.cast(pl.String).cast(pl.Float64)
            elif isinstance(column.dtype, pl.Array):
                column = column.arr.to_list()
        columns.append(column.alias(name))
    return pl.DataFrame(columns)
