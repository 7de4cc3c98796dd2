"""What the columns of an unknown log mean, guessed from their names and content."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl

from distilrec.data.layouts import find_file, read_layout
from distilrec.data.published import RawLog
from distilrec.data.read import LINE, SUFFIXES, read_raw, read_table
from distilrec.data.rows import standardize
from distilrec.errors import DataError, problem

__all__ = ["guess"]

# role -> names by which logs call it, the most telling first; compared without case, blanks and underscores
_NAMES = {
    "user_id": (
        "userid",
        "user",
        "uid",
        "customerid",
        "customer",
        "reviewerid",
        "memberid",
        "visitorid",
        "accountid",
        "sessionid",
        "session",
        "buyer",
    ),
    "item_id": (
        "itemid",
        "item",
        "iid",
        "productid",
        "product",
        "sku",
        "asin",
        "parentasin",
        "movieid",
        "movie",
        "articleid",
        "article",
        "bookid",
        "isbn",
        "songid",
        "trackid",
        "videoid",
        "contentid",
        "businessid",
        "gameid",
        "recipeid",
        "jobid",
    ),
    "timestamp": (
        "timestamp",
        "time",
        "ts",
        "datetime",
        "date",
        "unixreviewtime",
        "eventtime",
        "createdat",
        "created",
        "when",
        "day",
        "visittime",
    ),
    "seq_pos": ("seqpos", "position", "pos", "order", "sequence", "rank", "step"),
    "rating": ("rating", "overall", "stars", "score", "ratings", "weight"),
    "split": ("split", "part", "fold", "subset", "set"),
    "event": ("event", "eventtype", "action", "behavior", "behaviortype", "interactiontype", "type"),
}
_TEXTS = ("title", "name", "productname", "itemname", "text", "description", "headline", "summary")
_INTERACTIONS = (
    "interactions",
    "ratings",
    "events",
    "reviews",
    "clicks",
    "logs",
    "log",
    "transactions",
    "purchases",
    "train",
)
_ITEMS = ("items", "movies", "products", "articles", "books", "catalog", "metadata", "meta")
_USERS = ("users", "customers", "members")


def guess(path: str | Path) -> dict[str, Any]:
    """A guess at how to prepare `path`, a file or folder of interactions, for a person to edit.

    {"interactions": path, "items": path or None, "users": ..., "layout": name or None, "columns": {role: column},
    "text": [item columns], "split": method, "clean": {rule: value}, "notes": [what was seen and why it was chosen]}.
    Raises DataError when no columns of users and items can be told apart.
    """
    path = Path(path)
    log, items, users, layout = _find(path)
    frame = log.interactions.frame
    columns = {**_roles(frame.drop(LINE, strict=False)), **log.columns}
    missing = [role for role in ("user_id", "item_id") if role not in columns]
    if missing:
        raise DataError(
            problem(
                f"no column of {log.interactions.file} looks like {' or '.join(missing)}; it has "
                + ", ".join(name for name in frame.columns if name != LINE),
                "a column of users and a column of items",
                "write a recipe with data.columns by hand",
            )
        )
    rows, bad = standardize(frame, columns, log.interactions.file)
    notes = [f"{rows.height:,} rows, {rows['user_id'].n_unique():,} users, {rows['item_id'].n_unique():,} items"]
    bad = log.interactions.bad.vstack(bad)
    if bad.height:
        notes.append(f"{bad.height} bad rows, the first: {bad['reason'][0]}")
    table = log.items if items is None else read_table(items)
    return {
        "interactions": str(path if layout else log.interactions.file),
        "items": None if items is None else str(items),
        "users": None if users is None else str(users),
        "layout": layout,
        "columns": {role: name for role, name in columns.items() if role != name and log.columns.get(role) != name},
        "text": _texts(table, notes),
        "split": _split(rows, notes),
        "clean": _clean(rows, notes),
        "notes": notes,
    }


def _find(path: Path) -> tuple[RawLog, Path | None, Path | None, str | None]:
    """(log, items file, users file, layout or None if only its files were found by name)."""
    if path.is_dir():
        try:
            log = read_layout(path)
            return log, None, None, log.layout
        except DataError:
            file = find_file(path, _INTERACTIONS)
            items, users = find_file(path, _ITEMS), find_file(path, _USERS)
            tables = [
                child
                for child in sorted(path.iterdir())
                if child.name.lower().removesuffix(".gz").endswith(SUFFIXES)
                and child.name != "META.json"
                and child not in (items, users)
            ]
            if file is None and len(tables) != 1:
                raise
            return RawLog("table", read_raw(file or tables[0])), items, users, None
    log = read_layout(path)
    if log.layout == "table":
        items = find_file(path.parent, _ITEMS)
        return log, items if items != path else None, find_file(path.parent, _USERS), None
    return log, None, None, log.layout


def _roles(frame: pl.DataFrame) -> dict[str, str]:
    plain = {name: "".join(c for c in name.lower() if c.isalnum()) for name in frame.columns}
    found: dict[str, str] = {}
    for role, known in _NAMES.items():
        for word in known:
            match = next((name for name in frame.columns if plain[name] == word and name not in found.values()), None)
            if match is not None and _fits(frame[match], role):
                found[role] = match
                break
    return found


def _fits(column: pl.Series, role: str) -> bool:
    """Whether the content can play the role; names alone mislead ("order" may be the number of an order)."""
    filled = column.drop_nulls()
    if filled.len() == 0 or filled.dtype.is_nested():
        return False
    if role in ("user_id", "item_id"):
        return True
    if role in ("split", "event"):
        few = filled.cast(pl.String).str.to_lowercase().unique()
        return few.len() <= 20 and (
            role == "event" or set(few.to_list()) <= {"train", "training", "valid", "validation", "val", "dev", "test"}
        )
    if role == "timestamp":
        try:
            rows, bad = standardize(
                pl.DataFrame({"user_id": ["u"] * filled.len(), "item_id": ["i"] * filled.len(), "timestamp": filled}),
                None,
                "guess",
            )
        except DataError:
            return False
        return bad.height * 10 <= rows.height
    numbers = filled.cast(pl.String).cast(pl.Float64, strict=False)
    if numbers.null_count() * 10 > filled.len():
        return False
    values = numbers.drop_nulls()
    if role == "seq_pos":
        return bool((values == values.round()).all()) and values.n_unique() > 1
    return values.n_unique() <= 1000  # a rating; a column with more values is a price or a count


def _texts(table: pl.DataFrame | None, notes: list[str]) -> list[str]:
    if table is None:
        notes.append("no table of items: the items have no text")
        return []
    plain = {"".join(c for c in name.lower() if c.isalnum()): name for name in table.columns}
    found = [plain[word] for word in _TEXTS if word in plain]
    if not found:
        notes.append("no item column looks like a title or text")
        return []
    if found[0] != "title":
        notes.append(f"items have no title; their text is taken from {found[0]!r}")
    return found[:1]


def _split(rows: pl.DataFrame, notes: list[str]) -> str:
    if "split" in rows.columns:
        notes.append("the column of parts is used as it is")
        return "given"
    for name in ("timestamp", "seq_pos"):
        if name in rows.columns and rows[name].null_count() < rows.height:
            notes.append(f"ordered by {name!r}: each user's last event is the test")
            return "leave-last-out"
    notes.append("no order in time: events are split at random")
    return "random"


def _clean(rows: pl.DataFrame, notes: list[str]) -> dict[str, Any]:
    """Cores are proposed only where they keep most of the log."""
    rules: dict[str, Any] = {}
    if "split" not in rows.columns:
        lengths = rows.group_by("user_id").len()["len"]
        kept = int(lengths.filter(lengths >= 5).sum())
        if lengths.min() is not None and kept < rows.height and kept * 2 >= rows.height:
            rules |= {"user_core": 5, "item_core": 5}
            notes.append(f"{kept:,} rows are of users with 5 events or more: a 5-core is proposed")
    return rules
