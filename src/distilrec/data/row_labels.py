"""What is to be predicted: from columns to heads and labels, by rules that are checked before any data is read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl

from distilrec.data.feature_spec import Fault
from distilrec.data.row_table import RowTable, blame
from distilrec.errors import DataError, nearest, problem
from distilrec.types_rows import Head

__all__ = ["head_settings", "label_columns", "label_faults", "make_labels", "numeric_labels", "usable_rows"]

HEAD_KINDS = ("binary", "number", "tags")
_KEYS = ("column", "kind", "positive", "after", "classes", "delimiter")
_RULE = re.compile(r"^\s*(>=|<=|==|!=|>|<)\s*(.+?)\s*$")
MAX_CLASSES = 100
_OBSERVED = "_observed"  # whether a row has a label, while some are set aside


def head_settings(name: str, given: str | Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a head as a mapping with `column` and `kind`; a bare word is its column.

    Without a kind a head with classes is of tags, any other is binary.
    """
    settings = {"column": given} if isinstance(given, str) else dict(given)
    tags = settings.get("classes") is not None or settings.get("delimiter") is not None
    return {"column": name, "kind": "tags" if tags else "binary", **settings}


def label_columns(labels: Mapping[str, Any]) -> dict[str, str]:
    """head -> column."""
    return {name: head_settings(name, given)["column"] for name, given in labels.items()}


def numeric_labels(labels: Mapping[str, Any]) -> list[str]:
    """The columns that have to hold numbers."""
    found = []
    for name, given in labels.items():
        settings = head_settings(name, given)
        rule = _rule(settings.get("positive"))
        if settings["kind"] == "number" or (settings["kind"] == "binary" and not (rule and isinstance(rule[1], str))):
            found.append(settings["column"])
    return found


def label_faults(labels: Any) -> Iterator[Fault]:
    """(place, seen, expected) for every fault of a specification of labels that shows without data."""
    if not isinstance(labels, Mapping) or not labels:
        yield (), f"labels: {labels!r:.60}", "{head: column} or {head: {column: ..., kind: ...}}, at least one"
        return
    for name, given in labels.items():
        if not isinstance(name, str) or not name:
            yield (str(name),), f"the head name {name!r}", "text"
        elif not isinstance(given, str | Mapping):
            yield (name,), f"{given!r:.60}", "a column, or a mapping"
        else:
            yield from _head_faults(name, head_settings(name, given), labels)


def _head_faults(name: str, settings: dict[str, Any], labels: Mapping[str, Any]) -> Iterator[Fault]:
    for key in settings:
        if key not in _KEYS:
            yield (name, str(key)), f"unknown setting {key!r}{nearest(str(key), _KEYS)}", ", ".join(_KEYS)
    kind = settings["kind"]
    if kind not in HEAD_KINDS:
        yield (name, "kind"), f"unknown kind {kind!r}{nearest(str(kind), HEAD_KINDS)}", ", ".join(HEAD_KINDS)
        return
    if not isinstance(settings["column"], str) or not settings["column"]:
        yield (name, "column"), f"{settings['column']!r:.60}", "the name of a column"
    for key, owner in (("positive", "binary"), ("after", "binary"), ("classes", "tags"), ("delimiter", "tags")):
        if settings.get(key) is not None and kind != owner:
            yield (name, key), f"{key} of a {kind} head", f"a head of the kind {owner}"
    positive, classes, delimiter = (settings.get(key) for key in ("positive", "classes", "delimiter"))
    if positive is not None and _rule(positive) is None:
        yield (name, "positive"), f"{positive!r:.60}", "a rule such as '>= 4', '< 2.5' or '== purchase'"
    if delimiter is not None and (not isinstance(delimiter, str) or not delimiter):
        yield (name, "delimiter"), f"{delimiter!r:.60}", "text, such as '|'"
    names = isinstance(classes, list | tuple) and all(isinstance(one, str) and one for one in classes)
    if isinstance(classes, list | tuple):
        if not names or not classes or len(set(classes)) < len(classes):
            yield (name, "classes"), f"{classes!r:.60}", "a list of different names"
    elif classes is not None and (not isinstance(classes, int) or isinstance(classes, bool) or classes < 1):
        yield (name, "classes"), f"{classes!r:.60}", "a list of names, or how many of the most frequent to keep"
    after = settings.get("after")
    if after is None:
        return
    binary = [
        one for one, given in labels.items()
        if one != name and isinstance(given, str | Mapping) and head_settings(one, given)["kind"] == "binary"
    ]
    if after not in binary:
        yield (name, "after"), f"{after!r}{nearest(str(after), binary)}", "another binary head: " + ", ".join(binary)
    elif _circle(name, labels):
        yield (name, "after"), f"{name!r} comes after itself", "heads in an order in which they can happen"


def usable_rows(table: RowTable, labels: Mapping[str, Any]) -> RowTable:
    """The table without rows that cannot be used: those without any label are dropped and counted, and those that say
    that something happened without what it comes after go to quarantine.

    Raises DataError for a binary label that is neither 0 nor 1, and where more than one row in twenty says that
    something happened without what it comes after.
    """
    kinds, outside = _kinds(table.frame, labels), []
    made, observed, faults = {}, np.zeros(table.frame.height, dtype=bool), []
    for name, kind in kinds.items():
        settings = head_settings(name, labels[name])
        column = table.frame[settings["column"]]
        if kind == "tags":
            observed |= _lists(column, settings).is_not_null().to_numpy()
            continue
        values, wrong = _number(column) if kind == "number" else _binary(column, settings.get("positive"))
        if wrong.any():
            outside.append(f"{int(wrong.sum())} of {len(column)} labels of {name!r} (column {column.name!r}), "
                           f"such as {', '.join(map(repr, column.filter(wrong).head(3).to_list()))}")
        made[name] = values
    if outside:
        raise DataError(problem(f"outside {{0, 1}}: {'; '.join(outside)}", "0 or 1 in every binary label",
                                "say what counts as positive, e.g. positive: '>= 4', or choose the kind number"))
    for name, after in _chain(labels, made):
        wrong = pl.Series((made[name] == 1) & (made[after] == 0))
        faults.append((label_columns(labels)[name], f"says that {name} happened without {after}", wrong))
    for values in made.values():
        observed |= ~np.isnan(values)
    table = blame(replace(table, frame=table.frame.with_columns(pl.Series(_OBSERVED, observed))), faults)
    kept = table.frame.filter(_OBSERVED).drop(_OBSERVED)
    if kept.height < table.frame.height:
        table.counts["dropped: rows without a label"] = table.frame.height - kept.height
    if kept.height == 0:
        raise DataError(problem(f"no row of {table.file} has a label ({', '.join(label_columns(labels).values())})",
                                "labels that are not empty", "name other columns"))
    return replace(table, frame=kept)


def make_labels(
    frame: pl.DataFrame, labels: Mapping[str, Any], train: np.ndarray, counts: dict[str, int]
) -> tuple[tuple[Head, ...], dict[str, np.ndarray]]:
    """(heads, labels float32 [N, C] per head, NaN = not observed) of a frame of usable rows.

    A binary label is 0 or 1, or what its rule makes of the column. That of a head `after` another is 0 where the
    other is. Tags are lists (or text with a delimiter); without given classes they are the most frequent of the rows
    `train` bool [N], at most 100, sorted: what only held-out rows hold is not known when a model is trained. Tags
    outside the classes are counted in `counts`, those of train and of held-out rows apart.
    Raises DataError where classes are to be looked up and train holds no tag.
    """
    heads = _make_heads(frame, labels, train)
    made: dict[str, np.ndarray] = {}
    for head in heads:
        settings = head_settings(head.name, labels[head.name])
        column = frame[settings["column"]]
        if head.kind == "tags":
            made[head.name] = _tags(head, column, settings, train, counts)
        else:
            values, _ = _number(column) if head.kind == "number" else _binary(column, settings.get("positive"))
            made[head.name] = values[:, None]
    _chain(labels, made)
    return heads, made


def _kinds(frame: pl.DataFrame, labels: Mapping[str, Any]) -> dict[str, str]:
    """The kind of every head of a specification without faults; a column of lists can be nothing but tags."""
    kinds = {}
    for name, given in labels.items():
        settings = head_settings(name, given)
        said = isinstance(given, Mapping) and "kind" in given
        listed = isinstance(frame[settings["column"]].dtype, pl.List)
        kinds[name] = "tags" if listed and not said else settings["kind"]
    return kinds


def _make_heads(frame: pl.DataFrame, labels: Mapping[str, Any], train: np.ndarray) -> tuple[Head, ...]:
    heads = []
    for name, kind in _kinds(frame, labels).items():
        settings = head_settings(name, labels[name])
        classes = settings.get("classes")
        if kind == "tags":
            if not isinstance(classes, list | tuple):
                lists = _lists(frame[settings["column"]].filter(pl.Series(train)), settings)
                classes = _frequent(name, lists, classes or MAX_CLASSES)
            heads.append(Head(name, "tags", tuple(classes)))
        else:
            heads.append(Head(name, "number") if kind == "number" else Head(name, after=settings.get("after")))
    return tuple(heads)


def _rule(positive: Any) -> tuple[str, float | str] | None:
    found = _RULE.match(positive) if isinstance(positive, str) else None
    if found is None:
        return None
    sign, text = found.groups()
    try:
        return sign, float(text)
    except ValueError:
        return (sign, text.strip("'\"")) if sign in ("==", "!=") else None


def _number(column: pl.Series) -> tuple[np.ndarray, pl.Series]:
    """(float32 [N], bool [N], all False: that a cell is no number has been told before)."""
    values = column.cast(pl.Float32).fill_null(float("nan")).to_numpy().copy()
    return values, pl.repeat(False, len(column), eager=True)


def _binary(column: pl.Series, positive: str | None) -> tuple[np.ndarray, pl.Series]:
    """(float32 [N], bool [N] where the label is neither 0 nor 1 nor missing)."""
    rule = _rule(positive)
    if column.dtype.is_float():
        column = column.fill_nan(None)
    if rule is not None:
        sign, bound = rule
        if isinstance(bound, str):
            column = column.cast(pl.String)
        elif column.dtype == pl.Boolean:
            column = column.cast(pl.Int8)
        one = {">=": column.ge, "<=": column.le, "==": column.eq, "!=": column.ne, ">": column.gt, "<": column.lt}
        column = one[sign](bound)
    if not (column.dtype.is_numeric() or column.dtype == pl.Boolean):
        return np.full(len(column), np.nan, dtype=np.float32), column.is_not_null()
    values = column.cast(pl.Float32)
    wrong = ((values != 0) & (values != 1)).fill_null(False)
    return values.fill_null(float("nan")).to_numpy().copy(), wrong


def _lists(column: pl.Series, settings: Mapping[str, Any]) -> pl.Series:
    if column.dtype == pl.String:
        parts = pl.col(column.name).str.split(settings.get("delimiter") or "|")
        cleaned = parts.list.eval(pl.element().str.strip_chars()).list.eval(pl.element().filter(pl.element() != ""))
        return column.to_frame().select(cleaned).to_series()
    if isinstance(column.dtype, pl.Array):
        return column.arr.to_list()
    if not isinstance(column.dtype, pl.List):
        raise DataError(problem(f"tags column {column.name!r} is of type {column.dtype}",
                                "lists of text, or text with a delimiter", "name another column"))
    return column.cast(pl.List(pl.String))


def _frequent(head: str, lists: pl.Series, count: int) -> tuple[str, ...]:
    counted = lists.filter(lists.list.len() > 0).explode().drop_nulls().alias("tag").value_counts().rows()
    if not counted:
        raise DataError(problem(f"head {head!r}: column {lists.name!r} holds no tag in train rows", "lists with tags",
                                "name another column"))
    return tuple(sorted(tag for tag, _ in sorted(counted, key=lambda one: (-one[1], one[0]))[:count]))


def _tags(
    head: Head, column: pl.Series, settings: Mapping[str, Any], train: np.ndarray, counts: dict[str, int]
) -> np.ndarray:
    lists = _lists(column, settings)
    out = np.zeros((len(lists), len(head.classes)), dtype=np.float32)
    out[lists.is_null().to_numpy()] = np.nan
    lengths = lists.list.len().fill_null(0).to_numpy()
    flat = lists.filter(lists.list.len() > 0).explode().to_list()
    index = {name: place for place, name in enumerate(head.classes)}
    places = np.array([index.get(tag, -1) for tag in flat], dtype=np.int64)
    rows = np.repeat(np.arange(len(lists)), lengths)
    out[rows[places >= 0], places[places >= 0]] = 1
    for where, inside in (("", train[rows]), (", in valid and test", ~train[rows])):
        lost = int((inside & (places < 0)).sum())
        if lost:
            counts[f"tags of {head.name} outside its classes{where}"] = lost
    return out


def _circle(name: str, labels: Mapping[str, Any]) -> bool:
    seen, at = {name}, name
    while True:
        given = labels.get(at)
        after = head_settings(at, given).get("after") if isinstance(given, str | Mapping) else None
        if after is None or (after in seen and after != name):
            return False
        if after == name:
            return True
        seen.add(after)
        at = after


def _chain(labels: Mapping[str, Any], made: Mapping[str, np.ndarray]) -> list[tuple[str, str]]:
    """(head, the one it comes after) of every chained head; its label becomes 0 where the other's is, in place."""
    after: dict[str, str] = {}
    for name in made:
        first = head_settings(name, labels[name]).get("after")
        if first is not None:
            after[name] = first
    left, ordered = list(after), []
    while left:  # what comes first is settled first
        ready = [name for name in left if after[name] not in left]
        for name in ready:
            made[name][np.isnan(made[name]) & (made[after[name]] == 0)] = 0
        ordered += [(name, after[name]) for name in ready]
        left = [name for name in left if name not in ready]
    return ordered
