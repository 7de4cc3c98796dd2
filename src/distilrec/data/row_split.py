"""Putting every row of a table into exactly one of train, valid and test."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from distilrec.data.feature_spec import Fault
from distilrec.data.split import CARVED
from distilrec.errors import DataError, nearest, problem
from distilrec.types import PARTS
from distilrec.types_rows import Head

__all__ = ["ROW_METHODS", "check_classes", "divide_rows", "row_split_settings", "split_columns", "split_faults"]

# method -> its settings and their defaults
ROW_METHODS: dict[str, dict[str, Any]] = {
    "random": {"parts": (0.8, 0.1, 0.1), "by": ()},
    "time": {"column": "timestamp", "parts": (0.8, 0.1, 0.1), "by": ()},
    "given": {"column": "split", "carve": 0.1, "by": ()},
    "k-fold": {"folds": 5, "fold": 0, "carve": 0.1, "by": ()},
}
_WORDS = {"train": 0, "training": 0, "valid": 1, "validation": 1, "val": 1, "dev": 1, "test": 2}
_DROP = np.int8(-1)


def row_split_settings(settings: str | Mapping[str, Any]) -> dict[str, Any]:
    """{"method": ..., every setting of it, "seed"} from a name or a mapping. Raises DataError for all its faults."""
    faults = list(split_faults(settings))
    if faults:
        lines = "; ".join(f"{'.'.join(('split', *place))}: {seen} (expected {expected})" for place, seen, expected
                          in faults)
        raise DataError(problem(lines, "a method and its settings", "correct them"))
    given = {"method": settings} if isinstance(settings, str) else dict(settings)
    method = given.get("method", "random")
    whole = {"method": method, "seed": None, **ROW_METHODS[method], **given}
    whole["by"] = (whole["by"],) if isinstance(whole["by"], str) else tuple(whole["by"] or ())
    return whole


def split_columns(settings: Mapping[str, Any]) -> list[str]:
    """The columns that a split reads."""
    return [*([settings["column"]] if "column" in settings else []), *settings["by"]]


def split_faults(settings: Any) -> Iterator[Fault]:
    """(place, seen, expected) for every fault of a specification of a split that shows without data."""
    if not isinstance(settings, str | Mapping):
        yield (), f"{settings!r:.60}", "a method, or a mapping with one"
        return
    given = {"method": settings} if isinstance(settings, str) else dict(settings)
    method = given.pop("method", "random")
    if method not in ROW_METHODS:
        yield ("method",), f"unknown split {method!r}{nearest(str(method), ROW_METHODS)}", ", ".join(ROW_METHODS)
        return
    known = (*ROW_METHODS[method], "seed")
    for key, value in given.items():
        if key not in known:
            yield (str(key),), f"split {method!r} has no setting {key!r}{nearest(str(key), known)}", ", ".join(known)
        elif key == "parts":
            numbers = isinstance(value, list | tuple) and len(value) == 3 and all(map(_is_share, value))
            if not numbers or abs(sum(value) - 1) > 1e-6:
                yield (key,), f"{value!r:.60}", "three shares above 0 (train, valid, test) with the sum 1"
        elif key == "carve" and not _is_share(value):
            yield (key,), f"{value!r:.60}", "a share between 0 and 1"
        elif key in ("folds", "fold", "seed") and value is not None:
            least = 2 if key == "folds" else 0
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                yield (key,), f"{value!r:.60}", f"a whole number from {least}"
        elif key == "column" and not isinstance(value, str):
            yield (key,), f"{value!r:.60}", "the name of a column"
        elif key == "by" and value is not None:
            listed = [value] if isinstance(value, str) else value
            if not isinstance(listed, list | tuple) or not all(isinstance(one, str) for one in listed):
                yield (key,), f"{value!r:.60}", "a column, or a list of columns"
    folds, fold = given.get("folds", 5), given.get("fold", 0)
    if method == "k-fold" and isinstance(folds, int) and isinstance(fold, int) and fold >= folds >= 2:
        yield ("fold",), f"fold {fold} of {folds}", f"0 to {folds - 1}"


def divide_rows(
    frame: pl.DataFrame, settings: Mapping[str, Any], seed: int = 0
) -> tuple[np.ndarray, str, dict[str, int]]:
    """(int8 [N] part of each row, -1 = dropped; the method as it will be recorded; what was dropped or moved).

    - random: the shares `parts` of all rows, by seed.
    - time: the earliest share of rows is train, the latest test; rows of one moment stay together.
    - given: the column says train, valid or test.
    - k-fold: fold `fold` of `folds` is test.
    Where there is no validation part, the share `carve` of train becomes it. Rows that are equal in the columns `by`
    stay together; a given split or one by time that would part them is refused.
    Raises DataError for that, for missing columns and for an empty part.
    """
    method, by = settings["method"], list(settings["by"])
    for name in split_columns(settings):
        if name not in frame.columns:
            raise DataError(problem(f"split {method!r} needs the column {name!r}{nearest(name, frame.columns)}",
                                    ", ".join(frame.columns), "name it in the split, or choose another method"))
    seed = seed if settings.get("seed") is None else settings["seed"]
    rng = np.random.default_rng(seed)
    groups = _groups(frame, by)
    counts: dict[str, int] = {}
    recorded = method
    if method == "random":
        parts = _deal(groups, settings["parts"], rng).astype(np.int8)
    elif method == "k-fold":
        folds, fold = settings["folds"], settings["fold"]
        if groups.max(initial=-1) + 1 < folds:
            raise DataError(problem(f"{folds} folds of {groups.max(initial=-1) + 1} "
                                    f"{'groups' if by else 'rows'}", "at least one in each fold", "use fewer folds"))
        dealt = _deal(groups, [1 / folds] * folds, rng)
        parts = np.where(dealt == fold, 2, 0).astype(np.int8)
        recorded = f"k-fold {fold + 1}/{folds}"
    elif method == "time":
        parts = _by_time(frame[settings["column"]], settings["parts"], counts)
    else:
        parts = _given(frame[settings["column"]], counts)
    if by and method in ("time", "given"):
        _refuse_parted(parts, groups, frame, by)
    if method in ("given", "k-fold") and not (parts == 1).any():
        _carve(parts, groups, settings["carve"], rng, counts)
        recorded = CARVED if method == "given" else recorded
    empty = [name for place, name in enumerate(PARTS) if not (parts == place).any()]
    if empty:
        raise DataError(problem(f"the split {method!r} leaves {' and '.join(empty)} empty ({frame.height} rows in "
                                f"{groups.max(initial=-1) + 1} {'groups' if by else 'rows'})",
                                "rows in every part", "choose other shares, other columns in by, or more rows"))
    return parts, recorded, counts


def check_classes(parts: np.ndarray, heads: Sequence[Head], labels: Mapping[str, np.ndarray]) -> None:
    """Raise DataError where the only binary head has one class in some part, or any binary head in train, and where a
    number head has no label in train."""
    binary = [head.name for head in heads if head.kind == "binary"]
    found = [f"train has no label of {head.name!r}" for head in heads
             if head.kind == "number" and np.isnan(labels[head.name][parts == 0]).all()]
    for name in binary:
        for place, part in enumerate(PARTS):
            if part != "train" and (len(heads) > 1 or len(binary) > 1):
                continue
            values = labels[name][parts == place]
            values = values[~np.isnan(values)]
            if len(values) == 0 or (values == values[0]).all():
                held = f"only the label {values[0]:g} in {len(values)} rows" if len(values) else "no label"
                found.append(f"{part} has {held} of {name!r}")
    if found:
        raise DataError(problem("; ".join(found), "rows of both classes in every part, labels of every head in train",
                                "split by other columns or another seed, use fewer folds, or check the labels"))


def _is_share(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 1


def _groups(frame: pl.DataFrame, by: list[str]) -> np.ndarray:
    """int64 [N]: the number of a row's group among the sorted ones, or of the row itself without columns."""
    if not by:
        return np.arange(frame.height)
    keys = frame.select(pl.col(name).alias(f"{place}") for place, name in enumerate(by))
    distinct = keys.unique().sort(keys.columns, nulls_last=True).with_row_index("_group")
    joined = keys.join(distinct, on=keys.columns, how="left", nulls_equal=True, maintain_order="left")
    return joined["_group"].to_numpy().astype(np.int64)


def _deal(groups: np.ndarray, shares: Sequence[float], rng: np.random.Generator) -> np.ndarray:
    """int64 [N]: parts in which the rows of a group stay together, in a random order of the groups.

    A group goes where the middle of its rows falls, so that parts come as near to their shares as groups allow.
    """
    if len(groups) == 0:
        return np.zeros(0, dtype=np.int64)
    sizes = np.bincount(groups)
    order = rng.permutation(len(sizes))
    ends = np.cumsum(sizes[order])
    middle = (ends - sizes[order] / 2) / ends[-1]
    part = np.empty(len(sizes), dtype=np.int64)  # folds may be more than int8 counts
    # the sum of the shares may miss 1 by a rounding error: the last part takes the rest
    part[order] = np.searchsorted(np.cumsum(shares)[:-1], middle, side="right")
    return part[groups]


def _carve(
    parts: np.ndarray, groups: np.ndarray, share: float, rng: np.random.Generator, counts: dict[str, int]
) -> None:
    train = np.flatnonzero(parts == 0)
    own = np.unique(groups[train], return_inverse=True)[1]
    moved = _deal(own, (1 - share, share), rng) == 1
    if not moved.any() and len(np.unique(own)) > 1:  # a share below one group
        moved = own == rng.integers(own.max() + 1)
    parts[train[moved]] = 1
    counts["rows moved from train to valid"] = int(moved.sum())


def _refuse_parted(parts: np.ndarray, groups: np.ndarray, frame: pl.DataFrame, by: list[str]) -> None:
    kept = np.flatnonzero(parts >= 0)
    lowest = np.full(groups.max(initial=-1) + 1, 3)
    highest = np.full(len(lowest), -1)
    np.minimum.at(lowest, groups[kept], parts[kept])
    np.maximum.at(highest, groups[kept], parts[kept])
    parted = highest > lowest
    if parted.any():
        row = int(np.flatnonzero(parted[groups])[0])
        raise DataError(problem(
            f"{int(parted.sum())} groups of equal {', '.join(by)} have rows in several parts, such as "
            f"{frame.select(by).row(row)}", "groups that lie in one part",
            "leave by out, or split by 'random' or 'k-fold', which keep groups together",
        ))


def _by_time(column: pl.Series, shares: Sequence[float], counts: dict[str, int]) -> np.ndarray:
    times = _moments(column)
    known = times.is_not_null().to_numpy()
    if not known.all():
        counts["dropped: rows without time"] = int((~known).sum())
    values = times.drop_nulls().to_numpy()
    parts = np.full(len(column), _DROP)
    if len(values):
        ordered = np.sort(values)
        first, second = (
            ordered[min(len(ordered) - 1, round(len(ordered) * share))] for share in np.cumsum(shares)[:2]
        )
        parts[known] = (values >= first).astype(np.int8) + (values >= second)
    return parts


def _moments(column: pl.Series) -> pl.Series:
    """Numbers that rise with time; null where it is not known."""
    if column.dtype == pl.String:
        try:
            times = column.str.to_datetime(strict=False, time_unit="us")
        except pl.exceptions.ComputeError:
            times = pl.Series([None] * len(column), dtype=pl.Datetime("us"))
        wrong = column.filter(column.is_not_null() & times.is_null())
        if len(wrong):
            raise DataError(problem(f"column {column.name!r} holds {len(wrong)} texts that are no dates, such as "
                                    + ", ".join(map(repr, wrong.head(3).to_list())), "numbers or ISO dates",
                                    "name the column of times in the split"))
        column = times
    if column.dtype == pl.Date:
        column = column.cast(pl.Datetime("us"))
    if isinstance(column.dtype, pl.Datetime):
        return column.dt.epoch("us")
    if not column.dtype.is_numeric():
        raise DataError(problem(f"column {column.name!r} is of type {column.dtype}", "times",
                                "name the column of times in the split"))
    return column.fill_nan(None) if column.dtype.is_float() else column


def _given(column: pl.Series, counts: dict[str, int]) -> np.ndarray:
    words = column.cast(pl.String).str.strip_chars().str.to_lowercase()
    found = words.drop_nulls().unique().to_list()
    unknown = sorted(set(found) - set(_WORDS))
    if unknown:
        raise DataError(problem(f"column {column.name!r} holds {', '.join(map(repr, unknown[:3]))}",
                                "train, valid or test", "name the column of parts in the split"))
    parts = words.replace_strict(_WORDS, default=-1, return_dtype=pl.Int8).to_numpy().copy()
    if (parts < 0).any():
        counts["dropped: rows without a part"] = int((parts < 0).sum())
    return parts
