"""Which test rows belong to which slice: the values of a raw column, what training never saw, new groups."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa

from distilrec.errors import DataError, nearest, problem
from distilrec.types_rows import RowSplit

__all__ = ["slices_of"]

_MOST = 8  # values of one column
_FEW = 20  # numbers with no more values than this are taken one by one, others by quarters


def slices_of(split: RowSplit, rows: np.ndarray, columns: Sequence[str]) -> dict[str, np.ndarray]:
    """{"column=value": bool [n]} for the `rows` of a split.

    The 8 most frequent values of each raw column (of a list: rows that hold the value), a column of many numbers by
    quarters; "column=(unknown)" are values that no train row has; "group=(new)" are groups without a train row.

    Raises DataError for a column that the table does not have.
    """
    found: dict[str, np.ndarray] = {}
    for name in columns:
        if name not in split.raw.column_names:
            raise DataError(problem(f"slice {name!r} is no column{nearest(name, split.raw.column_names)}",
                                    f"columns of the table: {', '.join(split.raw.column_names)}"))
        column = split.raw.column(name).take(pa.array(rows))
        feature = split.features.get(name)
        plain = feature is None or feature.kind == "number" or feature.bucketed
        kind = column.type
        if plain and (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
            numbers = column.cast(pa.float64()).to_numpy()
            if len(np.unique(numbers[~np.isnan(numbers)])) > _FEW:
                found |= _quarters(name, numbers)
                continue
        found |= _frequent(name, column.to_pylist())
        if feature is not None and feature.kind == "category" and not plain and not feature.hashed:
            unknown = (split.columns[name][rows] == 0) & ~np.asarray(column.is_null())
            found[f"{name}=(unknown)"] = unknown
    if split.groups is not None:
        found["group=(new)"] = ~np.isin(split.groups[rows], split.groups[split.rows("train")])
    return {name: inside for name, inside in found.items() if inside.any() and not inside.all()}


def _frequent(name: str, values: list[Any]) -> dict[str, np.ndarray]:
    held = [{_shown(one) for one in value} if isinstance(value, list | tuple) else {_shown(value)} for value in values]
    counts = Counter(value for row in held for value in row)
    # by count, then by name: equal counts must not depend on the order of the rows
    chosen = sorted(counts, key=lambda value: (-counts[value], value))[:_MOST]
    return {f"{name}={value}": np.array([value in row for row in held]) for value in chosen}


def _quarters(name: str, numbers: np.ndarray) -> dict[str, np.ndarray]:
    edges = np.unique(np.nanquantile(numbers, [0, 0.25, 0.5, 0.75, 1]))
    place = np.searchsorted(edges[1:-1], numbers, side="right")
    found = {f"{name}={low:.4g} to {high:.4g}": (place == i) & ~np.isnan(numbers)
             for i, (low, high) in enumerate(pairwise(edges))}
    return found | {f"{name}=(missing)": np.isnan(numbers)}


def _shown(value: Any) -> str:
    if value is None:
        return "(missing)"
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)
