"""What the columns of an unknown table of examples mean (tasks predict and tag), guessed from names and content."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import polars as pl

from distilrec.data.layouts import detect_layout, find_file
from distilrec.data.read import LINE
from distilrec.data.row_table import LIBFM, read_rows
from distilrec.errors import DataError, nearest, problem

__all__ = ["guess_rows", "is_table"]

# names by which tables call them, the most telling first; compared without case, blanks and underscores
_BINARY = ("label", "click", "clicked", "isclick", "clk", "y", "target", "conversion", "converted", "isconversion",
           "purchase", "purchased", "buy", "bought", "order", "ordered", "install", "like", "liked", "favorite",
           "share", "follow", "longview", "finish", "watched", "response", "positive")
_AFTER = _BINARY[_BINARY.index("conversion"):_BINARY.index("like")]  # what follows a click
_CLICKS = ("click", "clicked", "isclick", "clk")
_NUMBERS = ("rating", "stars", "overall", "score", "logdwell", "dwell", "dwelltime", "watchtime", "playtime",
            "duration")
_TAGS = ("tags", "genres", "labels", "classes", "topics", "genre")
_USERS = ("userid", "user", "uid", "customerid", "customer", "memberid", "visitorid", "accountid")
_REQUESTS = ("requestid", "request", "impressionid", "queryid", "query", "sessionid", "session", "searchid")
_ITEMS = ("itemid", "item", "iid", "productid", "product", "sku", "adid", "ad", "creativeid", "movieid", "articleid",
          "videoid", "newsid")
_TIMES = ("timestamp", "time", "ts", "datetime", "date", "eventtime", "createdat")
_PARTS = ("split", "part", "fold", "subset")
_HISTORIES = ("hist", "history", "recent", "clicks", "past", "behavior", "sequence", "seq", "viewed")
_KNOWN_PARTS = {"train", "training", "valid", "validation", "val", "dev", "test"}
_NAMING = ("country", "city", "region", "zip", "location", "store", "brand", "categor", "type", "color", "device", "os",
           "browser", "gender", "language", "app", "publisher", "advertiser", "campaign", "channel", "slot", "segment",
           "department", "class", "genre", "collection", "weather", "job", "occupation", "weekday", "hour", "month",
           "previous")
_SHOWN = ("position", "pos", "rank", "slot", "displayposition", "adposition")  # what only the page knows
_FEW = 20  # different whole numbers up to which a column is taken for names of something
_KEY = 0.95  # share of different values from which on a column is taken for the name of the row itself
_WORDS = 2.5  # mean number of words from which on text is read word by word


def is_table(path: str | Path) -> bool:
    """Whether `path` looks like a table of examples and not like a log of who took what.

    Libfm files, folders with rows.* or ctr.*, and tables with a column of 0 and 1 by a name such as click or label.
    """
    path = Path(path)
    if path.is_dir():
        return any(one.name.split(".")[0] in ("rows", "ctr") for one in path.iterdir())
    if path.name.removesuffix(".gz").endswith(LIBFM):
        return True
    try:
        if detect_layout(path) != "table":
            return False
        frame = read_rows(path).frame
    except DataError:
        return False
    return any(_is_binary(frame[name]) for name in frame.columns if _plain(name) in _BINARY)


def guess_rows(path: str | Path, labels: Sequence[str] = ()) -> dict[str, Any]:
    """A guess at a recipe for the table at `path`, for a person to edit.

    labels: columns to predict, where their names do not tell.

    {"task", "path", "features", "labels", "group" (or None), "split", "teacher", "student" (names of models),
    "notes": [what was seen and why it was chosen, and what nobody can see in a table]}.
    Raises DataError where nothing looks like a label, or nothing is left to be a feature.
    """
    table = read_rows(path)
    frame = table.frame.drop(LINE)
    notes = [f"{frame.height:,} rows, {frame.width} columns"]
    if table.bad.height:
        notes.append(f"{table.bad.height} bad rows, the first: {table.bad['reason'][0]}")
    if table.file.removesuffix(".gz").endswith(LIBFM):
        notes.append("a libFM file names no fields: give names under data.columns, in their order, and use them below")
    heads = _labels(frame, labels, table.file, notes)
    told = {head["column"] for head in heads.values()}
    roles = {role: _named(frame, names, told) for role, names in
             (("user", _USERS), ("request", _REQUESTS), ("item", _ITEMS), ("time", _TIMES), ("part", _PARTS))}
    split = _split(frame, roles, notes)
    aside = told | {name for role in ("request", "time", "part") if (name := roles[role]) is not None}
    features = _features(frame.drop(aside, strict=False), roles, notes)
    beside = _beside(Path(path), roles["item"])
    if beside:
        notes.append(f"{beside} lies beside the table: data.joins: [{{path: {beside}, on: {roles['item']}}}] adds its "
                     "columns, which can then be features")
    if not features:
        raise DataError(problem(f"no column of {table.file} is left to predict from; it has {', '.join(frame.columns)}",
                                "columns that are known before what is to be predicted", "write a recipe by hand"))
    group = roles["user"] or roles["request"]
    notes.append(f"AUC within each {group!r} and the intervals group by it" if group else
                 "no column of users or requests: rows count one by one, and there is no GAUC")
    notes.append("check that every feature is known BEFORE what is predicted; mark what no request brings with "
                 "{available: training}")
    binary = all(head["kind"] == "binary" for head in heads.values())
    kinds = {head["kind"] for head in heads.values()}
    history = any(isinstance(one, dict) and one["kind"] == "sequence" for one in features.values())
    teacher = "mmoe" if len(heads) > 1 else "din" if history and binary else "dcnv2"
    return {
        "task": "tag" if kinds == {"tags"} else "predict", "path": str(path),
        "features": features, "labels": {name: _short(name, head) for name, head in heads.items()}, "group": group,
        "split": split, "teacher": teacher, "student": "shared_bottom" if len(heads) > 1 else "mlp", "notes": notes,
    }


def _labels(frame: pl.DataFrame, chosen: Sequence[str], file: str, notes: list[str]) -> dict[str, dict[str, Any]]:
    for name in chosen:
        if name not in frame.columns:
            raise DataError(problem(f"label {name!r} is no column of {file}{nearest(name, frame.columns)}",
                                    ", ".join(frame.columns)))
    named = chosen or [name for word in (*_BINARY, *_NUMBERS) for name in frame.columns if _plain(name) == word]
    found = {name: head for name in named if (head := _head(name, frame[name], bool(chosen))) is not None}
    if not found and not chosen:
        lists = [name for name in frame.columns if _plain(name) in _TAGS]
        found = {name: head for name in lists[:1] if (head := _head(name, frame[name], False)) is not None}
    refused = [name for name in chosen if name not in found]
    if refused or not found:
        seen = f"{', '.join(map(repr, refused))} of {file}" if refused else f"no column of {file}"
        raise DataError(problem(
            f"{seen} looks like a label; the columns are {', '.join(frame.columns)}",
            "0 and 1, numbers, or lists of tags; by a name such as label, click, rating or tags",
            "name the columns to predict with --label COLUMN; for a log of who took what, --task rank"))
    clicked = next((name for name in found if _plain(name) in _CLICKS), None)
    for name, head in found.items():
        held = head["kind"] == "binary" and clicked not in (None, name) and _plain(name) in _AFTER
        if held and frame.filter((_as_bits(frame[name]) == 1) & (_as_bits(frame[str(clicked)]) == 0)).is_empty():
            head["after"] = clicked
            notes.append(f"no row has {name!r} without {clicked!r}: it is learned on all rows, as what comes after it")
    for name, head in found.items():
        if head["kind"] == "binary":
            bits = _as_bits(frame[name]).drop_nulls()
            notes.append(f"{name!r} happens in {(bits == 1).sum() / len(bits):.1%} of {len(bits):,} rows")
        else:
            notes.append(f"{name!r} is predicted as {'a number' if head['kind'] == 'number' else 'tags'}")
    return found


def _head(name: str, column: pl.Series, wanted: bool) -> dict[str, Any] | None:
    """The settings of a head, None where the column holds nothing that can be predicted."""
    if column.dtype == pl.List(pl.String) or (column.dtype == pl.String and _delimiter(column)):
        return {"column": name, "kind": "tags", **({"delimiter": mark} if (mark := _delimiter(column)) else {})}
    if _is_binary(column):
        return {"column": name, "kind": "binary"}
    numbers = column.cast(pl.Float64, strict=False) if not column.dtype.is_nested() else pl.Series([None])
    whole = numbers.len() > 0 and numbers.null_count() <= column.null_count() + 0.05 * len(column)
    return {"column": name, "kind": "number"} if whole and (wanted or _plain(name) in _NUMBERS) else None


def _short(name: str, head: dict[str, Any]) -> Any:
    plain = head["kind"] == "binary" and set(head) == {"column", "kind"} and head["column"] == name
    return name if plain else head


def _features(frame: pl.DataFrame, roles: dict[str, str | None], notes: list[str]) -> dict[str, Any]:
    """name -> kind, or a mapping; columns that cannot be one are named in the notes."""
    out: dict[str, Any] = {}
    left: dict[str, list[str]] = {}
    for name in frame.columns:
        column = frame[name]
        filled = column.drop_nulls()
        reason = ("nearly empty" if len(filled) < 0.01 * len(column) else
                  "always the same" if not column.dtype.is_nested() and filled.n_unique() == 1 and
                  len(filled) == len(column) else None)
        kind = None if reason else _kind(name, filled, roles, frame.height)
        if isinstance(kind, str) and kind.startswith("left out: "):
            reason, kind = kind.removeprefix("left out: "), None
        if kind is None:
            left.setdefault(reason or "of a type that no feature has", []).append(name)
        else:
            own = {"kind": kind} if isinstance(kind, str) else kind
            out[name] = {**own, "available": "training"} if _plain(name) in _SHOWN else kind
    shown = [name for name in out if _plain(name) in _SHOWN]
    if shown:
        notes.append(f"{', '.join(shown)}: not known when a request comes, so only the teacher reads it")
    if roles["item"] not in out:  # a history is one of the items that are there
        for name, kind in out.items():
            if isinstance(kind, dict) and kind["kind"] == "sequence":
                out[name] = "list"
    amounts = [name for name, kind in out.items() if _is_amount(kind) and _are_whole(frame[name])]
    if amounts:
        notes.append(f"whole numbers taken for amounts: {', '.join(amounts)}; write category where they name something")
    notes += [f"left out as {reason}: {', '.join(names)}" for reason, names in left.items()]
    return out


def _is_amount(kind: Any) -> bool:
    return kind == "number" or (isinstance(kind, dict) and kind["kind"] == "number")


def _are_whole(column: pl.Series) -> bool:
    numbers = column.cast(pl.Float64, strict=False).drop_nulls()
    return bool((numbers == numbers.round()).all())


def _kind(name: str, filled: pl.Series, roles: dict[str, str | None], height: int) -> Any:
    """A kind, a mapping with one, None, or "left out: " and why."""
    known = name in (roles["user"], roles["item"])
    dtype = filled.dtype
    if isinstance(dtype, pl.List | pl.Array):
        inner: Any = dtype.inner  # type: ignore[union-attr]
        if inner is not None and inner.is_float():
            return "vector" if filled.list.len().n_unique() == 1 else None
        if inner is None or inner.is_nested():
            return None
        past = any(word in _plain(name) for word in _HISTORIES) and roles["item"] is not None
        return {"kind": "sequence", "of": roles["item"]} if past else "list"
    if dtype == pl.Boolean:
        return "category"
    if dtype == pl.String:
        unique = filled.n_unique()
        delimiter = _delimiter(filled)
        if delimiter:
            return {"kind": "list", "delimiter": delimiter}
        numbers = filled.cast(pl.Float64, strict=False)
        padded = bool(filled.str.contains(r"^0\d").any())  # 007 is a name
        if numbers.null_count() == 0 and not known and not padded:
            return _kind(name, numbers.cast(pl.Int64) if bool((numbers == numbers.round()).all()) else numbers, roles,
                         height)
        if float(filled.str.split(" ").list.len().mean() or 0) > _WORDS:  # type: ignore[arg-type]
            return "text"
        return "left out: a name of nearly every row" if unique > _KEY * height and not known else "category"
    if dtype.is_integer():
        return _whole(name, filled, height) if not known else "category"
    if dtype.is_float():
        return {"kind": "number", "log": True} if _skewed(filled) else "number"
    return None


def _whole(name: str, filled: pl.Series, height: int) -> Any:
    """Whole numbers are names of something where they are few, or called an id; otherwise they count something."""
    unique = filled.n_unique()
    plain = _plain(name)
    named = name.lower().endswith(("id", "code", "_no")) or (name[:1] in "Cc" and name[1:].isdigit())
    named = named or any(plain == one or (len(one) > 3 and one in plain) for one in _NAMING)
    if named and unique > _KEY * height:
        return "left out: a name of nearly every row"
    if named or unique <= _FEW:
        return "category"
    return {"kind": "number", "log": True} if _skewed(filled) else "number"


def _skewed(values: pl.Series) -> bool:
    """Amounts and counts: nothing far below 0, and a largest value far above the middle one."""
    numbers = values.cast(pl.Float64).drop_nans()
    least, middle, most = (float(one or 0) for one in (numbers.min(), numbers.median(), numbers.max()))  # type: ignore
    return least >= -1 and most > 20 * max(middle, 1)


def _split(frame: pl.DataFrame, roles: dict[str, str | None], notes: list[str]) -> dict[str, Any]:
    part, time, request = roles["part"], roles["time"], roles["request"]
    if part is not None:
        words = {str(one).strip().lower() for one in frame[part].drop_nulls().unique().to_list()}
        if words <= _KNOWN_PARTS and "test" in words and words & {"train", "training"}:
            notes.append(f"the parts in {part!r} are used as they are")
            return {"method": "given", **({} if part == "split" else {"column": part})}
        notes.append(f"{part!r} holds {', '.join(sorted(words)[:5])}, not train, valid and test: it is not used")
    if time is not None and frame[time].n_unique() > 2:
        notes.append(f"ordered by {time!r}: the latest rows are the test")
        return {"method": "time", "column": time, "parts": [0.8, 0.1, 0.1]}
    if request is not None:
        notes.append(f"no order in time: split at random, the rows of a {request!r} together")
        return {"method": "random", "parts": [0.8, 0.1, 0.1], "by": [request]}
    notes.append("no order in time: split at random, row by row; where rows belong together (a positive and the "
                 "negatives drawn for it) name their columns under split.by")
    return {"method": "random", "parts": [0.8, 0.1, 0.1]}


def _named(frame: pl.DataFrame, names: Sequence[str], taken: set[str]) -> str | None:
    return next((name for word in names for name in frame.columns if _plain(name) == word and name not in taken), None)


def _beside(path: Path, item: str | None) -> str | None:
    """The name of a table of items in the same folder."""
    file = find_file(path if path.is_dir() else path.parent, ("items", "products", "movies", "ads"))
    return None if file is None or item is None or file == path else file.name


def _plain(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())


def _is_binary(column: pl.Series) -> bool:
    bits = _as_bits(column)
    return bits.len() > bits.null_count() == column.null_count() and bits.n_unique() - (bits.null_count() > 0) == 2


def _as_bits(column: pl.Series) -> pl.Series:
    """0, 1 or null; null also for everything else."""
    if column.dtype.is_nested() or column.dtype.is_temporal():
        return pl.Series([None] * len(column), dtype=pl.Float64)
    numbers = column.cast(pl.Float64, strict=False)
    return pl.select(pl.when(numbers.is_in([0.0, 1.0])).then(numbers)).to_series()


def _delimiter(column: pl.Series) -> str | None:
    """What stands between the values of a list in text: in a good part of the cells, and around short pieces."""
    if column.dtype != pl.String:
        return None
    for mark in ("|", ";"):
        share = column.str.contains(mark, literal=True).mean()
        if share is not None and float(share) > 0.2:  # type: ignore[arg-type]
            return mark
    return None
