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

__all__ = ["head_settings", "label_columns", "label_faults", "make_heads", "make_labels", "numeric_labels"]

HEAD_KINDS = ("binary", "number", "tags")
_KEYS = ("column", "kind", "positive", "after", "classes", "delimiter")
_RULE = re.compile(r"^\s*(>=|<=|==|!=|>|<)\s*(.+?)\s*$")
MAX_CLASSES = 100
_POSITION = "_position"  # of a row before some are set aside


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


def make_labels(
    table: RowTable, labels: Mapping[str, Any]
) -> tuple[RowTable, tuple[Head, ...], dict[str, np.ndarray]]:
    """(the table without rows that cannot be used, heads, labels float32 [N, C] per head, NaN = not observed).

    A binary label is 0 or 1, or what its rule makes of the column. That of a head `after` another is 0 where the
    other is. Tags are lists (or text with a delimiter); without given classes they are the most frequent of the
    table, at most 100, sorted. Rows without any label are dropped and counted.
    Raises DataError for a binary label that is neither, and where more than one row in twenty says that something
    happened without what it comes after; fewer go to quarantine.
    """
    heads = make_heads(table.frame, labels)
    made: dict[str, np.ndarray] = {}
    faults, outside = [], []
    for head in heads:
        settings = head_settings(head.name, labels[head.name])
        column = table.frame[settings["column"]]
        if head.kind == "tags":
            made[head.name] = _tags(head, column, settings, table.counts)
        elif head.kind == "number":
            made[head.name] = column.cast(pl.Float32).fill_null(float("nan")).to_numpy()[:, None]
        else:
            values, wrong = _binary(column, settings.get("positive"))
            if wrong.any():
                outside.append(f"{int(wrong.sum())} of {len(column)} labels of {head.name!r} (column {column.name!r}), "
                               f"such as {', '.join(map(repr, column.filter(wrong).head(3).to_list()))}")
            made[head.name] = values[:, None]
    if outside:
        raise DataError(problem(f"outside {{0, 1}}: {'; '.join(outside)}", "0 or 1 in every binary label",
                                "say what counts as positive, e.g. positive: '>= 4', or choose the kind number"))
    for head in _in_order(heads):
        if head.after is not None:
            own, other = made[head.name], made[head.after]
            own[np.isnan(own) & (other == 0)] = 0
            wrong = pl.Series((own[:, 0] == 1) & (other[:, 0] == 0))
            column_name = label_columns(labels)[head.name]
            faults.append((column_name, f"says that {head.name} happened without {head.after}", wrong))
    observed = np.zeros(table.frame.height, dtype=bool)
    for array in made.values():
        observed[~np.isnan(array).all(axis=1)] = True
    table = blame(replace(table, frame=table.frame.with_row_index(_POSITION)), faults)
    places = table.frame[_POSITION].to_numpy()
    kept = observed[places]
    if not kept.all():
        table.counts["dropped: rows without a label"] = int((~kept).sum())
    frame = table.frame.filter(pl.Series(kept)).drop(_POSITION)
    if frame.height == 0:
        raise DataError(problem(f"no row of {table.file} has a label ({', '.join(label_columns(labels).values())})",
                                "labels that are not empty", "name other columns"))
    made = {name: np.ascontiguousarray(array[places[kept]]) for name, array in made.items()}
    return replace(table, frame=frame), heads, made


def make_heads(frame: pl.DataFrame, labels: Mapping[str, Any]) -> tuple[Head, ...]:
    """The heads of a specification without faults; the classes of tags are looked up in the frame where not given."""
    heads = []
    for name, given in labels.items():
        settings = head_settings(name, given)
        column = frame[settings["column"]]
        kind, classes = settings["kind"], settings.get("classes")
        if "kind" not in (given if isinstance(given, Mapping) else ()) and isinstance(column.dtype, pl.List):
            kind = "tags"  # a list can be nothing else
        if kind == "tags":
            heads.append(Head(name, "tags", tuple(classes) if isinstance(classes, list | tuple)
                              else _frequent(name, _lists(column, settings), classes or MAX_CLASSES)))
        elif kind == "number":
            heads.append(Head(name, "number"))
        else:
            heads.append(Head(name, after=settings.get("after")))
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


def _binary(column: pl.Series, positive: str | None) -> tuple[np.ndarray, pl.Series]:
    """(float32 [N], bool [N] where the label is neither 0 nor 1 nor missing)."""
    rule = _rule(positive)
    if column.dtype.is_float():
        column = column.fill_nan(None)
    if rule is not None:
        sign, bound = rule
        if isinstance(bound, str):
            column = column.cast(pl.String)
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
        raise DataError(problem(f"head {head!r}: column {lists.name!r} holds no tag", "lists with tags",
                                "name another column"))
    return tuple(sorted(tag for tag, _ in sorted(counted, key=lambda one: (-one[1], one[0]))[:count]))


def _tags(head: Head, column: pl.Series, settings: Mapping[str, Any], counts: dict[str, int]) -> np.ndarray:
    lists = _lists(column, settings)
    out = np.zeros((len(lists), len(head.classes)), dtype=np.float32)
    out[lists.is_null().to_numpy()] = np.nan
    lengths = lists.list.len().fill_null(0).to_numpy()
    flat = lists.filter(lists.list.len() > 0).explode().to_list()
    index = {name: place for place, name in enumerate(head.classes)}
    places = np.array([index.get(tag, -1) for tag in flat], dtype=np.int64)
    rows = np.repeat(np.arange(len(lists)), lengths)
    out[rows[places >= 0], places[places >= 0]] = 1
    if (places < 0).any():
        counts[f"tags of {head.name} outside its classes"] = int((places < 0).sum())
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


def _in_order(heads: tuple[Head, ...]) -> list[Head]:
    """Every head behind the one that it comes after."""
    left, ordered = list(heads), []
    while left:
        ready = [head for head in left if head.after not in {one.name for one in left}]
        ordered += ready
        left = [head for head in left if head not in ready]
    return ordered
