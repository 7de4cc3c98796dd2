"""Reading one table: Parquet, CSV, TSV and JSON Lines, gzip included.

Text formats are read as text and given types later (`rows.standardize`): a log of a million lines with one bad
cell must lose that line, not the run. Lines that cannot even be cut into columns, and lines that are not UTF-8, are
handed back as bad rows: a key or title with a replaced sign in it would be another key.
"""

from __future__ import annotations

import ast
import codecs
import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import polars as pl

from distilrec.errors import DataError, nearest, problem

__all__ = [
    "LINE",
    "QUARANTINE_SCHEMA",
    "SUFFIXES",
    "RawTable",
    "decoded",
    "quarantine_rows",
    "read_bytes",
    "read_raw",
    "read_table",
    "require_columns",
]

LINE = "_line"  # 1-based line of a text file, or row of a Parquet file
QUARANTINE_SCHEMA: dict[str, Any] = {"file": pl.String, "line": pl.Int64, "reason": pl.String, "content": pl.String}
_FOREIGN = re.compile("[\udc80-\udcff]")  # bytes that are not UTF-8, after decoding with "surrogateescape"
SUFFIXES = (".parquet", ".csv", ".tsv", ".jsonl", ".ndjson", ".json")


def quarantine_rows(file: str, rows: Iterable[tuple[int, str, str]]) -> pl.DataFrame:
    """Bad rows as a frame of file, line, reason, content; `rows` gives (line, reason, content)."""
    return pl.DataFrame([(file, *row) for row in rows], schema=QUARANTINE_SCHEMA, orient="row")


def decoded(line: bytes, encoding: str = "utf-8") -> tuple[str, str | None]:
    """(text of a line, None), or (the line with its foreign bytes written as \\xNN, the reason why it is bad).

    >>> decoded("café".encode("latin-1"))
    ('caf\\\\xe9', 'not utf-8: byte 0xe9 in place 4')
    """
    try:
        return line.decode(encoding), None
    except UnicodeDecodeError as error:
        reason = f"not {encoding}: byte 0x{line[error.start]:02x} in place {error.start + 1}"
        return line.decode(encoding, errors="backslashreplace"), reason


@dataclass(frozen=True, eq=False)
class RawTable:
    """A table as found on disk: its rows with their line numbers in column `LINE`, and the lines that were not rows."""

    file: str
    frame: pl.DataFrame
    bad: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=QUARANTINE_SCHEMA))


def read_table(path: str | Path, columns: Sequence[str] | None = None) -> pl.DataFrame:
    """A file of any known format as a frame, typed; stricter than `read_raw`: no bad line is let through.

    Raises DataError for a missing, empty, truncated or malformed file and for a missing column.
    """
    table = read_raw(path, columns)
    if table.bad.height:
        first = table.bad.row(0, named=True)
        raise DataError(
            problem(
                f"{table.bad.height} bad lines in {path}; line {first['line']}: {first['reason']}",
                "every line in the format of the file's suffix",
                "repair or remove these lines",
            )
        )
    frame = table.frame.drop(LINE)
    return frame if _suffix(Path(path)) not in (".csv", ".tsv") else _typed(frame)


def read_raw(path: str | Path, columns: Sequence[str] | None = None, *, optional: Sequence[str] = ()) -> RawTable:
    """A file with line numbers and the lines that could not be read; cells of CSV and TSV files stay text.

    columns: only these, all of them required. optional: further columns of a JSON Lines file, read where they exist.

    Raises DataError for a missing, empty or truncated file, an unknown suffix and a missing column.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(problem(f"there is no file {path}", "a Parquet, CSV, TSV or JSON Lines file", "check the path"))
    suffix = _suffix(path)
    if suffix not in SUFFIXES:
        raise DataError(
            problem(
                f"{path.name} has the unknown suffix {suffix!r}",
                ", ".join(SUFFIXES) + " (or .gz of the text formats)",
                "convert the file or rename it",
            )
        )
    if path.stat().st_size == 0:
        raise _empty(path)
    if suffix == ".parquet":
        table = _read_parquet(path, columns)
    elif suffix in (".csv", ".tsv"):
        table = _read_csv(path, "," if suffix == ".csv" else "\t")
    else:
        table = _read_json_lines(path, None if columns is None else [*columns, *optional])
    if table.frame.height + table.bad.height == 0:
        raise _empty(path)
    if columns is not None:
        require_columns(table.frame, columns, path)
        table = RawTable(
            table.file,
            table.frame.select(*columns, *(c for c in optional if c in table.frame.columns), LINE),
            table.bad,
        )
    return table


def require_columns(frame: pl.DataFrame, columns: Sequence[str], path: str | Path) -> None:
    """Raise DataError that names every missing column and the nearest existing one."""
    existing = [name for name in frame.columns if name != LINE]
    missing = [f"{name!r}{nearest(name, existing)}" for name in columns if name not in existing]
    if missing:
        raise DataError(
            problem(
                f"{path} lacks the column {', '.join(missing)}",
                "its columns are " + ", ".join(existing),
                "name the right column, e.g. columns={'user_id': 'your column'}",
            )
        )


def read_bytes(path: Path) -> bytes:
    """The content of a file, unpacked when its name ends in .gz."""
    data = path.read_bytes()
    if path.suffix != ".gz":
        return data
    try:
        return gzip.decompress(data)
    except (EOFError, OSError, zlib.error) as error:
        raise DataError(
            problem(f"{path} is not a whole gzip file ({error})", "a complete .gz file", "copy or download it again")
        ) from error


def _suffix(path: Path) -> str:
    return Path(path.stem).suffix.lower() if path.suffix == ".gz" else path.suffix.lower()


def _empty(path: Path) -> DataError:
    return DataError(problem(f"{path} is empty", "at least one row", "check how the file was written"))


def _read_parquet(path: Path, columns: Sequence[str] | None) -> RawTable:
    try:
        schema = pl.read_parquet_schema(path)
        if columns is not None:
            require_columns(pl.DataFrame(schema=schema), columns, path)
        frame = pl.read_parquet(path, columns=None if columns is None else list(columns))
    except (pl.exceptions.PolarsError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(
            problem(
                f"{path} cannot be read as Parquet: {reason}",
                "a whole Parquet file",
                "the file is truncated or of another format: copy or write it again",
            )
        ) from error
    return RawTable(str(path), frame.with_row_index(LINE, 1).with_columns(pl.col(LINE).cast(pl.Int64)))


def _read_csv(path: Path, separator: str) -> RawTable:
    data = read_bytes(path)
    if not data.strip():
        raise _empty(path)
    if decoded(data.split(b"\n", 1)[0])[1] is not None:  # polars replaces what it cannot read here, and here only
        raise DataError(
            problem(f"the first line of {path} is not UTF-8", "a text file in UTF-8", "save it again in that encoding")
        )
    try:
        frame = pl.read_csv(
            io.BytesIO(data), separator=separator, infer_schema=False, encoding="utf8", raise_if_empty=True
        )
        return RawTable(str(path), frame.with_columns(line_column(frame.height, 2)))
    except pl.exceptions.PolarsError:
        # rows with too many cells or broken quotes: slower, but the good rows are kept and the bad ones named
        return _read_csv_by_line(path, data, separator)


def line_column(height: int, first: int) -> pl.Series:
    return pl.int_range(first, first + height, dtype=pl.Int64, eager=True).alias(LINE)


def _read_csv_by_line(path: Path, data: bytes, separator: str) -> RawTable:
    # foreign bytes pass through the reader as lone surrogates, so that a row keeps its cells and its line
    text = data.removeprefix(codecs.BOM_UTF8).decode("utf-8", errors="surrogateescape")
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    header = next(reader)
    good: list[list[str | None]] = []
    lines: list[int] = []
    bad: list[tuple[int, str, str]] = []
    try:
        for row in reader:
            if _FOREIGN.search(joined := separator.join(row)):
                content, reason = decoded(joined.encode("utf-8", errors="surrogateescape"))
                bad.append((reader.line_num, str(reason), content[:500]))
            elif len(row) == len(header):
                good.append([cell or None for cell in row])
                lines.append(reader.line_num)
            elif row:
                bad.append((reader.line_num, f"{len(row)} cells, expected {len(header)}", separator.join(row)))
    except csv.Error as error:
        raise DataError(
            problem(f"{path} line {reader.line_num}: {error}", "a CSV file", "repair the quotes")
        ) from error
    frame = pl.DataFrame(good, schema=dict.fromkeys(header, pl.String), orient="row")
    return RawTable(
        str(path), frame.with_columns(pl.Series(LINE, lines, dtype=pl.Int64)), quarantine_rows(str(path), bad)
    )


def _read_json_lines(path: Path, names: Sequence[str] | None) -> RawTable:
    data = read_bytes(path)
    if not data.strip():
        raise _empty(path)
    lines = data.splitlines()
    try:
        # only the fields asked for are given a type: free dictionaries among the others could have thousands of keys
        schema = None if names is None else {name: _json_column(name, lines[:1000]).dtype for name in names}
        frame = pl.read_ndjson(io.BytesIO(data), schema=schema, infer_schema_length=None)
        if frame.height == len(lines):  # otherwise there are blank lines, and the line numbers would be off
            return RawTable(str(path), _filled(frame).with_columns(line_column(frame.height, 1)))
    except (pl.exceptions.PolarsError, ValueError):
        pass  # the careful way below says which lines are at fault
    return _read_json_by_line(path, lines, names)


def _json_column(name: str, lines: list[bytes]) -> pl.Series:
    column = _column(name, [json.loads(line).get(name) for line in lines if line.strip().startswith(b"{")])
    inner = getattr(column.dtype, "inner", None)
    unknown: dict[Any, Any] = {pl.Null: pl.String, pl.List: pl.List(pl.String)}
    return column.cast(unknown[column.dtype.base_type()]) if pl.Null in (column.dtype, inner) else column


def _filled(frame: pl.DataFrame) -> pl.DataFrame:
    """Without the columns that no record has."""
    return frame.select([name for name in frame.columns if name == LINE or frame[name].null_count() < frame.height])


def _read_json_by_line(path: Path, lines: list[bytes], names: Sequence[str] | None) -> RawTable:
    records: list[dict[str, Any]] = []
    numbers: list[int] = []
    bad: list[tuple[int, str, str]] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        text, reason = decoded(line)
        if reason is not None:
            bad.append((number, reason, text[:500]))
            continue
        try:
            record = json.loads(text)
        except json.JSONDecodeError as error:
            record = _python_literal(text)
            if record is None:
                bad.append((number, f"not JSON: {error.msg} at column {error.colno}", text[:500]))
                continue
        if isinstance(record, dict):
            records.append(record)
            numbers.append(number)
        else:
            bad.append((number, f"a JSON {type(record).__name__}, expected an object", text[:500]))
    found = dict.fromkeys(name for record in records for name in record)
    columns = [
        _column(name, [record.get(name) for record in records]) for name in found if names is None or name in names
    ]
    frame = _filled(pl.DataFrame([*columns, pl.Series(LINE, numbers, dtype=pl.Int64)]))
    return RawTable(str(path), frame, quarantine_rows(str(path), bad))


def _column(name: str, values: list[Any]) -> pl.Series:
    """Values of one kind as that kind; a field that is sometimes a list and sometimes text becomes text."""
    if len({type(value) for value in values if value is not None} - {int, float}) <= 1:
        try:
            return pl.Series(name, values, strict=not any(isinstance(value, float) for value in values))
        except (TypeError, OverflowError, pl.exceptions.PolarsError):
            pass
    return pl.Series(name, [_as_text(value) for value in values], dtype=pl.String)


def _as_text(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list):
        return " ".join(text for text in map(_as_text, value) if text)
    return json.dumps(value, ensure_ascii=False)


def _python_literal(text: str) -> dict[str, Any] | None:
    """The Amazon files of 2014 hold Python dictionaries, not JSON; a literal is data and runs nothing."""
    if not text.lstrip().startswith("{'"):
        return None
    try:
        value = ast.literal_eval(text.strip())
    except (ValueError, SyntaxError):
        return None
    return value if isinstance(value, dict) else None


def _typed(frame: pl.DataFrame) -> pl.DataFrame:
    """Columns of text whose every cell is a whole number or a number become numbers."""
    typed = []
    for name in frame.columns:
        column = frame[name]
        for dtype in (pl.Int64, pl.Float64):
            cast = column.cast(dtype, strict=False)
            if cast.null_count() == column.null_count() and column.null_count() < column.len():
                column = cast
                break
        typed.append(column)
    return pl.DataFrame(typed)
