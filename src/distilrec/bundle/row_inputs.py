"""From raw rows to the arrays that a graph reads, with errors that name the row and the field.

The encoding itself is features.encode, the very function that the table was prepared with. This file only lays the
values of a request out in columns, and says what is wrong with them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from distilrec.errors import DataError, nearest, problem
from distilrec.features import RAGGED_KINDS, Feature, encode

__all__ = ["check_fields", "columns_of", "encode_columns", "fields_of", "graph_input"]

_SHOWN = 5
_EXPECTED = {
    "category": "text or a number", "number": "a finite number", "list": "a list of texts or numbers",
    "sequence": "a list of texts or numbers, oldest first", "text": "text",
}
_FIXED_BY = "mend the value, or leave it out where it is not known"


def fields_of(features: Sequence[Feature]) -> dict[str, list[str]]:
    """The raw fields that a row may have -> the features that are made of each."""
    fields: dict[str, list[str]] = {}
    for feature in features:
        for source in feature.sources:
            fields.setdefault(source, []).append(feature.name)
    return fields


def check_fields(given: Collection[Any], fields: Mapping[str, Any], where: str) -> None:
    """Raise DataError for a field that no feature is made of, with the nearest one that exists."""
    for name in given:
        if name not in fields:
            raise DataError(problem(f"{where}: unknown field {name!r}{nearest(str(name), fields)}",
                                    f"fields of this bundle: {', '.join(fields)}", "rename the field, or leave it out"))


def columns_of(rows: Any, fields: Mapping[str, Any], what: str = "row") -> tuple[dict[str, Any], int]:
    """({field: N raw values}, N) of N dicts, or of a mapping of columns; None where a row lacks a field.

    what: the word for one entry in messages.

    Raises DataError for an entry that is no mapping, an unknown field, or columns of unequal length.
    """
    if isinstance(rows, Mapping):
        check_fields(rows, fields, "columns")
        lengths = {name: len(column) for name, column in rows.items() if not isinstance(column, str)}
        if len(lengths) < len(rows) or len(set(lengths.values())) > 1:
            seen = ", ".join(f"{name}: {lengths.get(name, 'a text')}" for name in rows)
            raise DataError(problem(f"columns of unequal lengths ({seen})", "one value per row in every column"))
        return dict(rows), next(iter(lengths.values()), 0)
    # by type: asking an abstract class for every row would take longer than encoding it
    if not all(issubclass(kind, Mapping) for kind in set(map(type, rows))):
        place, row = next((place, row) for place, row in enumerate(rows) if not isinstance(row, Mapping))
        raise DataError(problem(f"{what} {place} is {row!r:.60}", "fields with their values, {\"field\": value}"))
    names: set[str] = set().union(*rows)
    if not names <= fields.keys():
        for place, row in enumerate(rows):
            check_fields(row, fields, f"{what} {place}")
    return {name: [row.get(name) for row in rows] for name in names}, len(rows)


def encode_columns(
    features: Sequence[Feature], columns: Mapping[str, Any], n: int, *, shared: Mapping[str, Any] | None = None,
    what: str = "row",
) -> dict[str, np.ndarray]:
    """{feature: encoded [n, ...]}, as features.encode gives it.

    columns: field -> n raw values. shared: field -> one value for all n rows; what is made of shared fields alone (or
    of none) is encoded once.

    Raises DataError for a required field that is missing and for a value of the wrong type; both name the rows.
    """
    shared = shared or {}
    encoded = {}
    for feature in features:
        if any(source in columns for source in feature.sources):
            values = [columns[source] if source in columns else [shared.get(source)] * n for source in feature.sources]
            encoded[feature.name] = _encode(feature, values, what)
        else:
            values = [[shared.get(source)] for source in feature.sources]
            one = _encode(feature, values, what, whole="the context" if shared else f"every {what}")
            encoded[feature.name] = np.repeat(one, n, axis=0)
    return encoded


def graph_input(feature: Feature, encoded: np.ndarray) -> np.ndarray:
    """int64 or float32, C-contiguous; columns that only pad are cut off."""
    if feature.kind in RAGGED_KINDS:
        width = int((encoded >= 0).sum(1).max(initial=1))
        encoded = encoded[:, :width]
    kind = np.float32 if feature.kind in ("number", "vector") else np.int64
    return np.ascontiguousarray(encoded, dtype=kind)


def _encode(feature: Feature, values: list[Any], what: str, whole: str = "") -> np.ndarray:
    """whole: what the only row of `values` stands for, where it stands for more than a row."""
    if feature.required:
        _check_present(feature, values, what, whole)
    try:
        return _checked(feature, values)
    except (DataError, OverflowError, UnicodeEncodeError):
        row = _first_fault(feature, values)
    shown = ", ".join(f"{source!r}: {column[row]!r:.60}"
                      for source, column in zip(feature.sources, values, strict=True))
    kind = "number" if feature.bucketed else feature.kind
    raise DataError(problem(f"{whole or f'{what} {row}'}: field {shown}",
                            f"{feature.dim} finite numbers" if kind == "vector" else _EXPECTED[kind], _FIXED_BY))


def _checked(feature: Feature, values: list[Any]) -> np.ndarray:
    """features.encode, which takes any iterable for a list and overflows float32 in silence."""
    if feature.kind in RAGGED_KINDS and any(
            issubclass(kind, Mapping) for kind in set(map(type, values[0]))):
        raise DataError("an object where a list belongs")
    with np.errstate(over="ignore", invalid="ignore"):
        encoded = encode(feature, values)
    if encoded.dtype.kind == "f" and not np.isfinite(encoded).all():
        raise DataError("a number beyond float32")
    return encoded


def _first_fault(feature: Feature, values: list[Any]) -> int:
    """The first row that cannot be encoded by itself; only called where there is one."""
    for row in range(len(values[0])):
        try:
            _checked(feature, [[column[row]] for column in values])
        except (DataError, OverflowError, UnicodeEncodeError):
            return row
    return 0


def _check_present(feature: Feature, values: list[Any], what: str, whole: str) -> None:
    for source, column in zip(feature.sources, values, strict=True):
        rows = [row for row, value in enumerate(column) if _is_missing(value)]
        if rows:
            more = f" and {len(rows) - _SHOWN:,} more" if len(rows) > _SHOWN else ""
            where = whole or f"{what}{'s' * (len(rows) > 1)} {', '.join(map(str, rows[:_SHOWN]))}{more}"
            raise DataError(problem(f"{where}: the required field {source!r} is missing", "a value in every row",
                                    f"give {source!r}"))


def _is_missing(value: Any) -> bool:
    return value is None or (isinstance(value, str) and not value) or (
        isinstance(value, float | np.floating) and bool(np.isnan(value)))
