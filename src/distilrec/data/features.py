"""Fitting features to train rows: vocabularies, bucket edges, means and scales; and encoding whole tables.

Only `distilrec.features.encode` turns values into ids and numbers. What is here decides once per distinct value
where a column repeats itself, so that a table of a million rows costs seconds.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl

from distilrec.data.feature_spec import MAX_LENGTH, Fault, feature_settings, feature_sources, spec_faults
from distilrec.errors import DataError, nearest, problem
from distilrec.features import RAGGED_KINDS, Feature, category_keys, encode, words
from distilrec.types_rows import RowSplit

__all__ = ["collision_rate", "column_faults", "describe_features", "encode_frame", "fit_features", "spec_faults",
           "spec_problem"]


def fit_features(spec: Mapping[str, Any], frame: pl.DataFrame, train: np.ndarray) -> dict[str, Feature]:
    """The features of a specification, with everything learned from the train rows of `frame` only.

    Args:
        spec: {feature: kind} or {feature: {kind, column, columns or cross (category), min_count, max_size, hash
            (number of buckets), buckets (by quantiles) or edges (category of a number), log (number), max_length, of
            (sequence), available, required}}. A vocabulary is ordered by falling frequency, then by value.
        train: int64 [n], rows of `frame`.
    Raises:
        DataError: all faults of the specification and of its columns at once.
    """
    faults = list(spec_faults(spec)) or list(column_faults(spec, frame))
    if faults:
        raise spec_problem([(("features", *place), seen, expected) for place, seen, expected in faults])
    # a sequence has the vocabulary of another feature, which is therefore fitted first
    ordered = sorted(spec, key=lambda name: "of" in feature_settings(spec[name]))
    fitted: dict[str, Feature] = {}
    for name in ordered:
        settings = feature_settings(spec[name])
        columns = frame.select(feature_sources(name, settings))[train]
        fitted[name] = _fit(name, settings, columns, fitted)
    return {name: fitted[name] for name in spec}


def column_faults(spec: Mapping[str, Any], frame: pl.DataFrame) -> Iterator[Fault]:
    """(place, seen, expected) for every column that is missing or holds what its feature cannot be made of."""
    for name, given in spec.items():
        settings = feature_settings(given)
        for source in feature_sources(name, settings):
            if source not in frame.columns:
                yield (name,), f"unknown column {source!r}{nearest(source, frame.columns)}", ", ".join(frame.columns)
            elif fault := _type_fault(settings, frame[source]):
                yield (name,), f"column {source!r} {fault[0]}", fault[1]


def spec_problem(faults: Sequence[Fault]) -> DataError:
    """One error for all faults of a specification."""
    lines = [f"{'.'.join(place)}: {seen}\n    expected: {expected}" for place, seen, expected in faults]
    count = "1 fault" if len(lines) == 1 else f"{len(lines)} faults"
    return DataError(problem(f"{count} in what to read\n  " + "\n  ".join(lines), "", "correct them and run again"))


def encode_frame(feature: Feature, frame: pl.DataFrame) -> np.ndarray:
    """`encode` of the rows of a frame; the same result, each distinct value being looked at once."""
    sources = list(feature.sources)
    if feature.kind == "number" or feature.bucketed:
        return encode(feature, [frame[sources[0]].cast(pl.Float64).to_numpy()])
    if feature.kind == "vector":
        return encode(feature, [frame[sources[0]].to_list()])
    if feature.kind in ("list", "sequence"):
        return _encode_lists(feature, frame[sources[0]])
    places, distinct = _distinct(frame.select(sources))
    return encode(feature, [column.to_list() for column in distinct])[places]


def collision_rate(feature: Feature, values: Sequence[Sequence[Any]]) -> float:
    """Share of the distinct known values (one sequence per source) that share their hash with another; 0 without."""
    keys = sorted({key for key in category_keys(values) if key is not None})
    if not feature.hashed or not keys:
        return 0.0
    plain = replace(feature, kind="category", columns=())
    ids = encode(plain, [keys])
    return float((np.bincount(ids)[ids] > 1).mean())


def describe_features(split: RowSplit) -> list[dict[str, Any]]:
    """One row per feature for reports: name, kind, size, unknown or missing share on train, valid and test, and the
    rate of collisions of a hashed one among the train values (None where there is no hash).

    The unknown share of a list, sequence or text is that of its values, of a vector or number that of missing rows.
    """
    described = []
    for name, feature in split.features.items():
        unknown = {part: _unknown_share(feature, split, part) for part in ("train", "valid", "test")}
        rate = None
        if feature.hashed:
            train = pl.DataFrame(split.raw.select(list(feature.sources)))[split.rows("train")]
            rate = collision_rate(feature, _values(feature, train))
        described.append({
            "feature": name, "kind": feature.kind, "columns": list(feature.sources),
            "size": feature.size or feature.dim or 1,
            "unknown": unknown, "collision_rate": rate,
        })
    return described


def _fit(name: str, settings: Mapping[str, Any], columns: pl.DataFrame, fitted: Mapping[str, Feature]) -> Feature:
    kind, sources = settings["kind"], feature_sources(name, settings)
    feature = Feature(
        name, kind, () if sources == (name,) else sources, available=settings.get("available", "request"),
        required=settings.get("required", False), max_length=settings.get("max_length", MAX_LENGTH.get(kind, 0)),
    )
    if kind == "number":
        return _fit_number(replace(feature, log=settings.get("log", False)), columns)
    if kind == "vector":
        return replace(feature, dim=_fit_dim(name, columns.to_series()))
    if kind == "sequence":
        of = fitted[settings["of"]]
        return replace(feature, of=of.name, size=of.size, vocabulary=of.vocabulary, hashed=of.hashed)
    if settings.get("edges") is not None or settings.get("buckets") is not None:
        edges = settings.get("edges") or _quantiles(columns.to_series(), settings["buckets"])
        return replace(feature, edges=tuple(map(float, edges)), size=len(edges) + 2)
    if settings.get("hash") is not None:
        return replace(feature, hashed=True, size=settings["hash"] + 1)
    vocabulary = _vocabulary(kind, columns, settings.get("min_count", 1), settings.get("max_size"))
    return replace(feature, vocabulary=vocabulary, size=len(vocabulary) + 1)


def _fit_number(feature: Feature, columns: pl.DataFrame) -> Feature:
    values = columns.to_series().drop_nulls().cast(pl.Float64).drop_nans().to_numpy()
    if feature.log:
        values = np.sign(values) * np.log1p(np.abs(values))
    if len(values) == 0:
        return feature
    mean, scale = float(values.mean()), float(values.std())
    # a constant column has a deviation of rounding errors at most
    return replace(feature, mean=mean, scale=scale if scale > 1e-9 * max(1.0, abs(mean)) else 1.0)


def _fit_dim(name: str, column: pl.Series) -> int:
    widths = _widths(column)
    if len(widths) == 0:
        raise DataError(problem(f"feature {name!r} has no vector in any train row", "at least one", "leave it out"))
    return int(widths.to_list()[0])


def _quantiles(column: pl.Series, buckets: int) -> list[float]:
    values = column.drop_nulls().cast(pl.Float64).drop_nans().to_numpy()
    if len(values) == 0:
        return [0.0]
    inner = np.linspace(0, 1, buckets + 1)[1:-1]
    return np.unique(np.quantile(values, inner, method="higher")).tolist()


def _vocabulary(kind: str, columns: pl.DataFrame, min_count: int, max_size: int | None) -> tuple[str, ...]:
    if kind == "list":
        column = _as_lists(columns.to_series())
        columns = column.filter(column.list.len() > 0).explode().to_frame()
    counted = columns.group_by(columns.columns).len("_count")
    counts = counted["_count"].to_list()
    values = [column.to_list() for column in counted.drop("_count")]
    total: Counter[str] = Counter()
    if kind == "text":
        for text, count in zip(values[0], counts, strict=True):
            for word in words(text or ""):
                total[word] += count
    else:
        for key, count in zip(category_keys(values), counts, strict=True):
            if key is not None:
                total[key] += count
    kept = sorted((-count, value) for value, count in total.items() if count >= min_count)
    return tuple(value for _, value in kept[:max_size])


def _type_fault(settings: Mapping[str, Any], column: pl.Series) -> tuple[str, str] | None:
    """(seen, expected) where a column cannot make a feature of these settings."""
    kind, dtype = settings["kind"], column.dtype
    if dtype == pl.Null:
        return "is empty in every row", "values"
    if kind == "number" or settings.get("buckets") is not None or settings.get("edges") is not None:
        if dtype.is_numeric() or dtype == pl.Boolean:
            return None
        if dtype != pl.String:
            return f"is of type {dtype}", "numbers"
        text = column.filter(column.is_not_null() & column.cast(pl.Float64, strict=False).is_null())
        shown = text if len(text) else column.drop_nulls()
        return (f"holds text in {len(shown)} of {len(column)} rows, such as " +
                ", ".join(map(repr, shown.head(3).to_list())), "numbers")
    plain = (pl.String, pl.Boolean, pl.Categorical, pl.Enum)
    if kind == "category":
        return None if dtype.is_numeric() or dtype in plain else (f"is of type {dtype}", "text or numbers")
    if kind == "text":
        return None if dtype in (pl.String, pl.Categorical, pl.Enum) else (f"is of type {dtype}", "text")
    inner = getattr(dtype, "inner", None)
    if inner is None:
        hint = ", or text with a 'delimiter'" if kind != "vector" else ""
        return f"is of type {dtype}", f"lists{hint}"
    if kind != "vector":
        fine = inner.is_numeric() or inner in (*plain, pl.Null)
        return None if fine else (f"holds lists of {inner}", "lists of text or of numbers")
    widths = _widths(column)
    if not inner.is_numeric() or len(widths) > 1 or 0 in widths:
        seen = f"holds lists of {inner} of the lengths {', '.join(map(str, widths.head(3).to_list()))}"
        return seen, "lists of numbers, all of one length"
    return None


def _widths(column: pl.Series) -> pl.Series:
    lengths = column.arr.len() if isinstance(column.dtype, pl.Array) else column.list.len()
    return lengths.drop_nulls().unique().sort()


def _distinct(columns: pl.DataFrame) -> tuple[np.ndarray, pl.DataFrame]:
    """(int64 [N] place of each row's values among the distinct ones, the distinct ones)."""
    # NaN is equal to nothing, and to nothing it is to be joined: it means missing, as null does
    floats = [pl.col(name).fill_nan(None) for name in columns.columns if columns[name].dtype.is_float()]
    columns = columns.with_columns(floats)
    names = columns.columns
    distinct = columns.unique(maintain_order=True)
    places = columns.join(
        distinct.with_row_index("_place"), on=names, how="left", nulls_equal=True, maintain_order="left"
    )["_place"]
    return places.to_numpy().astype(np.int64), distinct


def _as_lists(column: pl.Series) -> pl.Series:
    return column.arr.to_list() if isinstance(column.dtype, pl.Array) else column


def _encode_lists(feature: Feature, column: pl.Series) -> np.ndarray:
    column = _as_lists(column)
    cut = column.list.tail(feature.max_length) if feature.kind == "sequence" else column.list.head(feature.max_length)
    lengths = cut.list.len().fill_null(0).to_numpy().astype(np.int64)
    out = np.full((len(column), max(1, int(lengths.max(initial=0)))), -1, dtype=np.int32)
    flat = cut.filter(cut.list.len() > 0).explode().to_frame()
    if flat.height:
        places, distinct = _distinct(flat)
        plain = replace(feature, kind="category", columns=())
        out[np.arange(out.shape[1]) < lengths[:, None]] = encode(plain, [distinct.to_series().to_list()])[places]
    return out


def _values(feature: Feature, frame: pl.DataFrame) -> list[list[Any]]:
    """The values behind the ids of a feature: words of a text, elements of a list."""
    columns = list(frame.unique())
    if feature.kind == "text":
        return [[word for text in columns[0].to_list() for word in words(text or "")]]
    if feature.kind in ("list", "sequence"):
        lists = _as_lists(columns[0])
        return [lists.filter(lists.list.len() > 0).explode().unique().to_list()]
    return [column.to_list() for column in columns]


def _unknown_share(feature: Feature, split: RowSplit, part: Any) -> float | None:
    rows = split.rows(part)
    if feature.kind in ("number", "vector"):
        column = split.raw.column(feature.sources[0]).take(rows)
        values = pl.Series(column)
        missing = (values.fill_nan(None) if values.dtype.is_float() else values).null_count()
        return missing / len(rows) if len(rows) else None
    ids = np.asarray(split.columns[feature.name])[rows]
    ids = ids[ids >= 0] if feature.kind in RAGGED_KINDS else ids
    return float((ids == 0).mean()) if len(ids) else None
