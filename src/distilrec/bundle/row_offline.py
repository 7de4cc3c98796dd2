"""The offline batch job of a bundle of predict or tag: a file of rows in, a file of predictions out, block by block.

Needs no torch and no server; memory does not grow with the file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from distilrec import progress
from distilrec.bundle.row_runtime import RowBundle
from distilrec.errors import DataError, nearest, problem
from distilrec.features import RAGGED_KINDS
from distilrec.files import atomic_file

__all__ = ["predict_file", "predict_table", "told"]

_BLOCK = 8192  # rows between two steps of the progress bar
_READ = (".parquet", ".csv", ".tsv", ".jsonl", ".ndjson")
_WRITTEN = (".parquet", ".csv", ".jsonl")
_ROW = "row"


def predict_file(
    bundle: RowBundle, rows_path: str | Path, out_path: str | Path, *, keep: Sequence[str] = (), delimiter: str = "|",
) -> dict[str, Any]:
    """Predict every row of a file; returns counts: rows, missing {feature: rows without any known value}, and unread,
    absent: columns of the file that the bundle does not read, and fields of the bundle that the file lacks.

    rows_path: Parquet, CSV, TSV or JSON Lines with the raw fields as columns. Cells of CSV and TSV files stay text
        where a category is meant ("007" is not 7); an empty cell is missing; lists and vectors are split at
        `delimiter`.
    out_path: .parquet, .csv or .jsonl, one row per row in the same order: `row` (from 0), the columns of `keep` as
        text, and a column prediction.HEAD with the probability or value; of tags a column prediction.HEAD.CLASS per
        class and prediction.HEAD, the classes from their threshold on (joined by `delimiter` in CSV). It appears when
        it is whole; an existing file stays until then.

    Raises DataError for a file that cannot be read, a suffix, a column of `keep` that is not there, a required field
    that is missing and a value of the wrong type; the message says in which block of rows.
    """
    rows_path, out_path = Path(rows_path), Path(out_path)
    if out_path.suffix not in _WRITTEN:
        raise DataError(problem(f"cannot tell the format of {out_path}", ", ".join(_WRITTEN)))
    if len(delimiter) != 1:
        raise DataError(problem(f"delimiter: {delimiter!r}", "one character"))
    counts: dict[str, Any] = {"rows": 0, "missing": dict.fromkeys((one.name for one in bundle.features), 0)}
    names: set[str] = set()
    with atomic_file(out_path) as temporary, progress.track(_total(rows_path), "predicting") as bar:
        writer = _Writer(temporary, out_path.suffix, _schema(bundle, keep), delimiter)
        with writer:
            for columns, n in _blocks(rows_path, bundle, keep, delimiter):
                names.update(columns)
                start = counts["rows"]
                try:
                    table = predict_table(bundle, columns, n, keep=keep, start=start, missing=counts["missing"])
                except DataError as error:
                    raise DataError(f"{rows_path}, rows {start:,} to {start + n - 1:,}, counted from the first of "
                                    f"these: {error}") from None
                writer.write(table)
                counts["rows"] += n
                bar.advance(n)
        if counts["rows"]:
            _check_kept(keep, sorted(names), rows_path)
    counts["unread"] = sorted(names - bundle.fields.keys() - set(keep))
    counts["absent"] = [field for field in bundle.fields if field not in names] if counts["rows"] else []
    return counts


def told(counts: Mapping[str, Any]) -> list[str]:
    """What a reader of the predictions has to know, in lines: what was missing, unknown or not read."""
    lines = [f"{name}: {count:,} rows without a value that the bundle knows"
             for name, count in counts["missing"].items() if count]
    for field in counts["absent"]:
        lines.append(f"{field}: not in the file, missing in every row{nearest(field, counts['unread'])}")
    if counts["unread"]:
        lines.append(f"not read by this bundle: {', '.join(counts['unread'])}")
    return lines


def predict_table(
    bundle: RowBundle, columns: Mapping[str, Sequence[Any]], n: int, *, keep: Sequence[str] = (), start: int = 0,
    missing: dict[str, int] | None = None,
) -> pa.Table:
    """Predictions of n raw rows as a table, see `predict_file`.

    columns: column -> n raw values; those that the bundle does not read are left aside. start: number of the first
    row. missing: {feature: count} to which the rows without any known value of an id feature are added.
    """
    read = {field: columns[field] for field in bundle.fields if field in columns}
    if not read:
        raise DataError(problem(f"none of the columns {', '.join(map(repr, columns))} is a field of this bundle",
                                ", ".join(bundle.fields), "rename the columns of the file"))
    encoded = bundle.encode(read)
    for feature in bundle.features:
        if missing is not None and (feature.kind == "category" or feature.kind in RAGGED_KINDS):
            known = encoded[feature.name] > 0
            missing[feature.name] += int((~(known if known.ndim == 1 else known.any(1))).sum())
    arrays: list[Any] = [np.arange(start, start + n)]
    arrays += [[None if value is None else str(value) for value in columns.get(name, [None] * n)] for name in keep]
    for head, values in zip(bundle.heads, bundle.answers(encoded).values(), strict=True):
        if head.kind == "tags":
            arrays.append([[tag for tag, _ in bundle.chosen_tags(head.name, row)] for row in values])
            arrays += list(values.T)
        else:
            arrays.append(values)
    schema = _schema(bundle, keep)
    return pa.table([pa.array(array, field.type) for array, field in zip(arrays, schema, strict=True)], schema=schema)


def _schema(bundle: RowBundle, keep: Sequence[str]) -> pa.Schema:
    fields = [(_ROW, pa.int64()), *((name, pa.string()) for name in keep)]
    for head in bundle.heads:
        if head.kind == "tags":
            fields.append((f"prediction.{head.name}", pa.list_(pa.string())))
            fields += [(f"prediction.{head.name}.{one}", pa.float32()) for one in head.classes]
        else:
            fields.append((f"prediction.{head.name}", pa.float32()))
    names = [name for name, _ in fields]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise DataError(problem(f"two columns of the output would be called {twice[0]!r}", "different names",
                                "leave it out of --keep"))
    return pa.schema(fields)


class _Writer:
    """Appends tables of one schema to a file."""

    def __init__(self, path: Path, suffix: str, schema: pa.Schema, delimiter: str) -> None:
        self.suffix, self.delimiter, self.schema = suffix, delimiter, schema
        self.parquet = pq.ParquetWriter(path, schema) if suffix == ".parquet" else None
        self.text = None if self.parquet else path.open("wb")
        if self.text and suffix == ".csv":
            pa.csv.write_csv(self._flat(schema.empty_table()), self.text)

    def __enter__(self) -> _Writer:
        return self

    def __exit__(self, *_: object) -> None:
        for one in (self.parquet, self.text):
            if one is not None:
                one.close()

    def write(self, table: pa.Table) -> None:
        if self.parquet is not None:
            self.parquet.write_table(table)
        elif self.text is not None and self.suffix == ".csv":
            pa.csv.write_csv(self._flat(table), self.text, pa.csv.WriteOptions(include_header=False))
        elif self.text is not None:
            lines = (json.dumps(row, ensure_ascii=False, allow_nan=False) for row in table.to_pylist())
            self.text.write("".join(f"{line}\n" for line in lines).encode())

    def _flat(self, table: pa.Table) -> pa.Table:
        """Lists as text: CSV has none."""
        for place, field in enumerate(table.schema):
            if pa.types.is_list(field.type):
                joined = [self.delimiter.join(one) for one in table.column(place).to_pylist()]
                table = table.set_column(place, field.name, pa.array(joined, pa.string()))
        return table


def _total(path: Path) -> int | None:
    """Rows of the file where they can be had without reading it."""
    try:
        return pq.ParquetFile(path).metadata.num_rows if path.suffix == ".parquet" else None
    except (OSError, pa.ArrowInvalid):
        return None  # the reader will say what is wrong


def _blocks(
    path: Path, bundle: RowBundle, keep: Sequence[str], delimiter: str
) -> Iterator[tuple[dict[str, Sequence[Any]], int]]:
    """({column: raw values of a block of rows}, rows in it)."""
    if path.suffix not in _READ:
        raise DataError(problem(f"cannot tell the format of {path}", ", ".join(_READ)))
    try:
        if path.suffix == ".parquet":
            yield from _parquet_blocks(path, bundle, keep)
        elif path.suffix in (".csv", ".tsv"):
            yield from _csv_blocks(path, bundle, keep, delimiter)
        else:
            yield from _json_blocks(path)
    except FileNotFoundError:
        raise DataError(problem(f"{path} does not exist", "a file of rows", "check the path")) from None
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        seen = f"{path} cannot be read: {str(error).splitlines()[0]}"
        raise DataError(problem(seen, "a whole file of rows")) from None


def _parquet_blocks(
    path: Path, bundle: RowBundle, keep: Sequence[str]
) -> Iterator[tuple[dict[str, Sequence[Any]], int]]:
    file = pq.ParquetFile(path)
    names = file.schema_arrow.names
    _check_kept(keep, names, path)
    wanted = [name for name in names if name in bundle.fields or name in keep]
    for batch in file.iter_batches(_BLOCK, columns=wanted):
        # a column that is not read still has a name, by which it is counted
        found: dict[str, Sequence[Any]] = dict.fromkeys(names, ())
        found.update({name: batch.column(name).to_pylist() for name in wanted})
        yield found, batch.num_rows


def _csv_blocks(
    path: Path, bundle: RowBundle, keep: Sequence[str], delimiter: str
) -> Iterator[tuple[dict[str, Sequence[Any]], int]]:
    if path.stat().st_size == 0:
        raise DataError(problem(f"{path} is empty", "a line with the names of the columns"))
    parse = pa.csv.ParseOptions(delimiter="," if path.suffix == ".csv" else "\t", newlines_in_values=True)
    names = pa.csv.open_csv(path, parse_options=parse).schema.names
    _check_kept(keep, names, path)
    convert = pa.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=True,
                                    null_values=[""], quoted_strings_can_be_null=True)
    kinds = {source: "number" if feature.bucketed else feature.kind
             for feature in bundle.features for source in feature.sources}
    for batch in pa.csv.open_csv(path, parse_options=parse, convert_options=convert):
        for start in range(0, batch.num_rows, _BLOCK):
            part = batch.slice(start, _BLOCK)
            columns = {name: part.column(place).to_pylist() for place, name in enumerate(names)}
            yield {name: [_cell(one, kinds.get(name), delimiter) for one in column]
                   for name, column in columns.items()}, part.num_rows


def _cell(text: str | None, kind: str | None, delimiter: str) -> Any:
    """The value of a cell; a text that is not what it should be stays as it is, and the encoder will refuse it."""
    if text is None or kind in (None, "category", "text"):
        return text
    try:
        if kind == "number":
            return float(text) if text.strip() else None
        parts = [part.strip() for part in text.split(delimiter)]
        if kind == "vector":
            return [float(part) for part in parts]
        return [part for part in parts if part]  # as the table that the student was trained on was read
    except ValueError:
        return text


def _json_blocks(path: Path) -> Iterator[tuple[dict[str, Sequence[Any]], int]]:
    rows: list[dict[str, Any]] = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as error:
                raise DataError(problem(f"{path}, line {number} is not JSON: {error}", "an object a line")) from None
            if not isinstance(row, dict):
                raise DataError(problem(f"{path}, line {number} is {line.strip()!r:.60}", "an object a line"))
            rows.append(row)
            if len(rows) == _BLOCK:
                yield _columns(rows), len(rows)
                rows = []
    if rows:
        yield _columns(rows), len(rows)


def _columns(rows: Sequence[Mapping[str, Any]]) -> dict[str, Sequence[Any]]:
    names = dict.fromkeys(name for row in rows for name in row)
    return {name: [row.get(name) for row in rows] for name in names}


def _check_kept(keep: Sequence[str], names: Sequence[str], path: Path) -> None:
    for name in keep:
        if name not in names:
            raise DataError(problem(f"{path} has no column {name!r}{nearest(name, names)}", ", ".join(names)))
