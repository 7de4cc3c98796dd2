"""Typed input columns: how a raw value becomes what a model reads (numpy only; torch and polars never).

One implementation for both sides: preparing a table and answering a request encode with this very function, so what
a model is served cannot differ from what it was trained on. Vocabularies, bucket edges and scales are learned from
train rows by data.features; here they are only applied.
"""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal
from functools import cached_property
from itertools import islice, repeat
from types import NoneType
from typing import Any, Literal

import numpy as np

from distilrec.errors import DataError, problem

__all__ = ["ID_KINDS", "KINDS", "RAGGED_KINDS", "Feature", "category_keys", "encode", "words"]

Kind = Literal["category", "number", "list", "sequence", "text", "vector"]
KINDS: tuple[Kind, ...] = ("category", "number", "list", "sequence", "text", "vector")
ID_KINDS = ("category", "list", "sequence", "text")  # encoded as ids of a vocabulary
RAGGED_KINDS = ("list", "sequence", "text")  # several ids a row, padded with -1

CROSSED = "\x1f"  # stands between the values of a cross
_WORD = re.compile(r"[^\W_]+", re.UNICODE)
_WHOLE = re.compile(r"(0|-?[1-9][0-9]*)\.0")


@dataclass(frozen=True)
class Feature:
    """One input of a model, fitted.

    category: one id. A number with `edges` is a category too (its bucket), and so is a cross of several columns.
    number: one float, standardized: (f(x) - mean) / scale with f = sign(x) log(1 + |x|) if `log`; missing = 0.
    list: ids of a set (tags, genres). sequence: ids in time order, oldest first, which share the vocabulary of the
        category feature `of`; the latest `max_length` are kept. text: ids of lower-case words.
    vector: `dim` floats, made elsewhere.
    Id 0 always means unknown or missing; known values have ids from 1 to `size` - 1.
    """

    name: str
    kind: Kind
    columns: tuple[str, ...] = ()  # raw columns it is made of, itself by default; a cross has several
    size: int = 0  # number of ids, 0 included
    vocabulary: tuple[str, ...] = ()  # id i + 1 -> value; empty where ids are hashes or buckets
    hashed: bool = False  # id = 1 + CRC-32 of the UTF-8 value modulo (size - 1)
    edges: tuple[float, ...] = ()  # bucket id = 1 + number of edges <= x
    mean: float = 0.0
    scale: float = 1.0
    log: bool = False
    of: str | None = None
    max_length: int = 0  # ids kept of a list, sequence or text
    dim: int = 0
    available: Literal["request", "training"] = "request"  # "training": not known when a request comes
    required: bool = False  # a request without it is refused; otherwise it is missing (id 0, number 0, empty list)

    @property
    def sources(self) -> tuple[str, ...]:
        return self.columns or (self.name,)

    @property
    def bucketed(self) -> bool:
        return self.kind == "category" and bool(self.edges)

    @cached_property
    def index(self) -> Mapping[str, int]:
        """value -> id, for the values of the vocabulary."""
        return {_text_key(value): place + 1 for place, value in enumerate(self.vocabulary)}

    def to_json(self) -> dict[str, Any]:
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_json(cls, document: Mapping[str, Any]) -> Feature:
        given: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in document.items()}
        return cls(**given)


def encode(feature: Feature, columns: Sequence[Sequence[Any] | np.ndarray]) -> np.ndarray:
    """What a model reads of N raw rows.

    Args:
        columns: one sequence of N raw values per name in `feature.sources`; None is missing.
    Returns:
        category int32 [N]; list, sequence, text int32 [N, L], -1 pads on the right, L the longest of these rows (at
        least 1); number float32 [N]; vector float32 [N, dim].
    Raises:
        DataError: a value of the wrong type (text where a number belongs, ...), naming the row.
    """
    if feature.kind == "number":
        numbers = _numbers(feature, columns[0])
        if feature.log:
            numbers = np.sign(numbers) * np.log1p(np.abs(numbers))
        with np.errstate(over="ignore"):
            scaled = ((numbers - feature.mean) / feature.scale).astype(np.float32)
        if np.isinf(scaled).any():
            row = int(np.flatnonzero(np.isinf(scaled))[0])
            raise _wrong(feature, row, numbers[row], "a number within the range of float32")
        scaled[np.isnan(scaled)] = 0.0
        return scaled
    if feature.kind == "vector":
        return _vectors(feature, columns[0])
    if feature.kind == "category":
        if feature.bucketed:
            numbers = _numbers(feature, columns[0])
            ids = 1 + np.searchsorted(np.asarray(feature.edges), numbers, side="right")
            return np.where(np.isnan(numbers), 0, ids).astype(np.int32)
        return _ids(feature, category_keys(columns))
    return _ragged(feature, columns[0])


def words(text: str) -> list[str]:
    """The words of a text in lower case: runs of letters and digits.

    >>> words("Mr. Smith, 2nd_Edition")
    ['mr', 'smith', '2nd', 'edition']
    """
    return _WORD.findall(text.lower())


def category_keys(columns: Sequence[Sequence[Any] | np.ndarray]) -> list[str | None]:
    """The texts by which N category values are known, None where missing; several columns are crossed into one value.

    >>> category_keys([[3, 3.0, "3", "3.0", True, None]])
    ['3', '3', '3', '3', 'true', None]
    """
    keys = [_keys(column) for column in columns]
    if len(keys) == 1:
        return keys[0]
    return [None if None in row else CROSSED.join(map(str, row)) for row in zip(*keys, strict=True)]


def _ids(feature: Feature, keys: Iterable[str | None]) -> np.ndarray:
    if feature.hashed:
        buckets = feature.size - 1
        known: dict[str | None, int] = {None: 0}
        out = []
        for key in keys:
            if key not in known:
                known[key] = 1 + zlib.crc32(str(key).encode("utf-8", "surrogatepass")) % buckets
            out.append(known[key])
        return np.array(out, dtype=np.int32)
    look_up: Callable[[Any, int], int] = feature.index.get  # None is in no vocabulary
    return np.fromiter(map(look_up, keys, repeat(0)), dtype=np.int32)


def _keys(column: Sequence[Any] | np.ndarray) -> list[str | None]:
    """`_key` of every value; where all are texts, or all whole numbers, without asking each for its type."""
    kinds = set(map(type, column)) - {NoneType}
    if kinds <= {str}:
        return [(value and (value if value[-2:] != ".0" else _text_key(value))) or None for value in column]
    if kinds == {int}:
        return [None if value is None else str(value) for value in column]
    return [_key(value) for value in column]


def _text_key(text: str) -> str:
    """"3" for "3.0", as which a whole number is written where a column of a table has gaps; other texts stay."""
    return text[:-2] if text[-2:] == ".0" and _WHOLE.fullmatch(text) else text


def _key(value: Any) -> str | None:
    """The text by which a category value is known: 3, 3.0, "3" and "3.0" are one value; None and NaN are missing."""
    if isinstance(value, str):
        return _text_key(value) or None
    if value is None:
        return None
    if isinstance(value, bool | np.bool_):
        return "true" if value else "false"
    if isinstance(value, float | np.floating):
        number = float(value)
        if math.isnan(number):
            return None
        return str(int(number)) if number.is_integer() else repr(number)
    if isinstance(value, Decimal) and value.is_finite():
        return str(int(value)) if value == value.to_integral_value() else repr(float(value))
    if isinstance(value, list | tuple | dict | np.ndarray):
        raise DataError(problem(f"{value!r:.60} where one category value belongs", "text or a number"))
    return str(value)


def _ragged(feature: Feature, values: Sequence[Any] | np.ndarray) -> np.ndarray:
    rows: list[Sequence[Any]] = []
    for row, value in enumerate(values):
        if value is None or (isinstance(value, float) and math.isnan(value)):
            rows.append(())
            continue
        if feature.kind == "text":
            if not isinstance(value, str):
                raise _wrong(feature, row, value, "text")
            found = islice(_WORD.finditer(value.lower()), feature.max_length)  # no more of a long text than is kept
            rows.append([word.group() for word in found])
            continue
        # by type first: asking an abstract class takes longer than all the rest
        if type(value) is not list and (
                isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable)):
            raise _wrong(feature, row, value, "a list of values")
        kept = value if type(value) is list else list(value)
        start = max(0, len(kept) - feature.max_length) if feature.kind == "sequence" else 0
        rows.append(kept[start : start + feature.max_length])
    width = max([1, *map(len, rows)])
    out = np.full((len(rows), width), -1, dtype=np.int32)
    lengths = np.array([len(row) for row in rows], dtype=np.int64)
    if lengths.sum():
        out[np.arange(width) < lengths[:, None]] = _ids(
            feature, category_keys([[value for row in rows for value in row]])
        )
    return out


def _numbers(feature: Feature, values: Sequence[Any] | np.ndarray) -> np.ndarray:
    """float64 [N], NaN where missing."""
    if isinstance(values, np.ndarray) and values.dtype.kind in "fiub":
        numbers = values.astype(np.float64)
    else:
        plain = set(map(type, values)) <= {int, float, NoneType}
        try:
            numbers = np.array(values, dtype=np.float64) if plain else _one_by_one(feature, values)
        except OverflowError:
            numbers = _one_by_one(feature, values)
    if np.isinf(numbers).any():
        row = int(np.flatnonzero(np.isinf(numbers))[0])
        raise _wrong(feature, row, numbers[row], "a finite number")
    return numbers


def _one_by_one(feature: Feature, values: Sequence[Any] | np.ndarray) -> np.ndarray:
    """`_numbers` of values of any types, with an error that names the row."""
    numbers = np.empty(len(values), dtype=np.float64)
    for row, value in enumerate(values):
        if value is None:
            numbers[row] = math.nan
        elif isinstance(value, bool | np.bool_ | int | float | np.integer | np.floating):
            try:
                numbers[row] = value
            except OverflowError:
                raise _wrong(feature, row, value, "a number within the range of float64") from None
        else:
            raise _wrong(feature, row, value, "a number")
    return numbers


def _vectors(feature: Feature, values: Sequence[Any] | np.ndarray) -> np.ndarray:
    out = np.zeros((len(values), feature.dim), dtype=np.float32)
    for row, value in enumerate(values):
        if value is None:
            continue
        try:
            vector = np.asarray(value)
        except (TypeError, ValueError):  # lists of unequal lengths
            raise _wrong(feature, row, value, f"{feature.dim} numbers") from None
        # text would be parsed by a cast to float32: "1" must not pass for a number here and fail elsewhere
        if vector.shape != (feature.dim,) or vector.dtype.kind not in "fiu":
            raise _wrong(feature, row, value, f"{feature.dim} numbers")
        with np.errstate(over="ignore"):
            vector = vector.astype(np.float32)
        if not np.isfinite(vector).all():
            raise _wrong(feature, row, value, f"{feature.dim} finite numbers")
        out[row] = vector
    return out


def _wrong(feature: Feature, row: int, value: Any, expected: str) -> DataError:
    return DataError(problem(f"feature {feature.name!r}, row {row}: {value!r:.60}", expected,
                             "mend the value, or leave it out where it is not known"))
