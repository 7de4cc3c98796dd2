"""The whole way from a table of examples to a RowSplit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from distilrec.data.feature_spec import Fault, feature_settings, feature_sources, spec_faults
from distilrec.data.features import column_faults, encode_frame, fit_features, spec_problem
from distilrec.data.read import LINE
from distilrec.data.row_labels import label_columns, label_faults, make_labels, numeric_labels, usable_rows
from distilrec.data.row_split import check_classes, divide_rows, row_split_settings, split_columns, split_faults
from distilrec.data.row_table import RowTable, blame, join, read_rows, settle
from distilrec.errors import DataError, nearest, problem
from distilrec.types_rows import RowSplit

__all__ = ["prepare_rows"]


def prepare_rows(
    source: Any,
    *,
    features: Mapping[str, Any],
    labels: Mapping[str, Any],
    group: str | None = None,
    split: str | Mapping[str, Any] = "random",
    columns: Sequence[str] | None = None,
    joins: Sequence[Mapping[str, Any]] = (),
    name: str | None = None,
    weight: str | None = None,
    seed: int = 0,
) -> RowSplit:
    """Read, join, clean, label, split and encode a table of examples.

    source: a file (Parquet, CSV, JSON Lines, libFM), a folder with rows.* or ctr.*, or a frame.
    features: {feature: kind or settings}, see `features.fit_features`.
    labels: {head: column or {column, kind: binary, number or tags, positive: a rule such as ">= 4", after, classes}}.
    group: the column of whose equal rows GAUC and intervals are made. weight: a column of numbers from 0.
    split: a method of `row_split.ROW_METHODS`, or a mapping {"method": ..., its settings}.
    columns: names of a libFM file's fields. joins: [{path or frame, on, columns?, prefix?}], see `row_table.join`.

    What was dropped, and why, is in `RowSplit.counts`; bad rows are in `RowSplit.quarantine`.
    Raises DataError; all faults of the settings are told at once, and so are all those of the columns.
    """
    faults: list[Fault] = []
    for what, found in (("features", spec_faults(features)), ("labels", label_faults(labels)),
                        ("split", split_faults(split))):
        faults += [((what, *place), seen, expected) for place, seen, expected in found]
    if faults:
        raise spec_problem(faults)
    settings = row_split_settings(split)
    table = read_rows(source, columns)
    table.counts["rows read"] = table.frame.height + table.bad.height
    table = join(table, joins)
    _check_columns(table, features, labels, group, weight, settings)
    table = settle(table, _numeric(features, labels, weight), _delimiters(features))
    faults = [(("features", *place), seen, expected) for place, seen, expected in
              column_faults(features, table.frame)]
    if faults:
        raise spec_problem(faults)
    table = _check_rows(table, group, weight)
    table = usable_rows(table, labels)
    parts, method, moved = divide_rows(table.frame, settings, seed)
    kept = parts >= 0
    frame = table.frame.filter(pl.Series(kept))
    parts = parts[kept]
    heads, targets = make_labels(frame, labels, parts == 0, table.counts)
    check_classes(parts, heads, targets)
    if weight is not None and not frame[weight].filter(pl.Series(parts == 0)).sum():
        raise DataError(problem(f"the weights in column {weight!r} are 0 in every train row", "some above 0",
                                "name another column, or leave weight out"))
    fitted = fit_features(features, frame, np.flatnonzero(parts == 0))
    table.counts["dropped: bad rows, in quarantine"] = table.bad.height
    return RowSplit(
        name or _name(source), method, fitted, {one: encode_frame(fitted[one], frame) for one in fitted}, heads,
        targets, parts, frame.drop(LINE).to_arrow(),
        groups=None if group is None else _numbered(frame[group]),
        weights=None if weight is None else frame[weight].cast(pl.Float32).to_numpy(),
        counts={**table.counts, **moved, "rows kept": frame.height},
        quarantine=table.bad.to_arrow() if table.bad.height else None,
    )


def _check_columns(
    table: RowTable, features: Mapping[str, Any], labels: Mapping[str, Any], group: str | None, weight: str | None,
    split: Mapping[str, Any],
) -> None:
    """All columns that are not there, and all features that read a label, in one error."""
    known = [column for column in table.frame.columns if column != LINE]
    wanted: list[tuple[tuple[str, ...], str]] = [
        (("labels", head), column) for head, column in label_columns(labels).items()
    ]
    wanted += [(("split",), column) for column in split_columns(split)]
    wanted += [((role,), column) for role, column in (("group", group), ("weight", weight)) if column is not None]
    faults: list[Fault] = []
    for feature, given in features.items():
        for column in feature_sources(feature, feature_settings(given)):
            wanted.append((("features", feature), column))
            told = [head for head, label in label_columns(labels).items() if label == column]
            if told:
                faults.append((("features", feature), f"reads {column!r}, the label of {told[0]!r}",
                               "columns that are known before what is to be predicted"))
    faults += [
        (place, f"unknown column {column!r}{nearest(column, known)}", ", ".join(known))
        for place, column in wanted if column not in known
    ]
    if faults:
        raise spec_problem(faults)


def _numeric(features: Mapping[str, Any], labels: Mapping[str, Any], weight: str | None) -> list[str]:
    found = numeric_labels(labels) + ([] if weight is None else [weight])
    for name, given in features.items():
        settings = feature_settings(given)
        ranged = settings.get("buckets") is not None or settings.get("edges") is not None
        if settings["kind"] == "number" or ranged:
            found += feature_sources(name, settings)
    return found


def _delimiters(features: Mapping[str, Any]) -> dict[str, str]:
    found = {}
    for name, given in features.items():
        settings = feature_settings(given)
        if "delimiter" in settings:
            found[feature_sources(name, settings)[0]] = settings["delimiter"]
    return found


def _check_rows(table: RowTable, group: str | None, weight: str | None) -> RowTable:
    faults = []
    if group is not None:
        column = table.frame[group]
        empty = column.is_null() | column.is_nan() if column.dtype.is_float() else column.is_null()
        faults.append((group, "is empty", empty))
    if weight is not None:
        values = table.frame[weight].cast(pl.Float64)
        faults.append((weight, "is not a number from 0", ~(values >= 0).fill_null(False) | values.is_nan()))
    return blame(replace(table), faults)


def _numbered(column: pl.Series) -> np.ndarray:
    """int32 [N]: the place of each value among the sorted different ones."""
    return (column.rank("dense").cast(pl.Int32) - 1).to_numpy()


def _name(source: Any) -> str:
    return (Path(source).resolve().name.split(".")[0] if isinstance(source, str | Path) else "") or "data"
