"""Readers of published formats: MovieLens, Amazon reviews, one sequence per line."""

from __future__ import annotations

import gzip
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import polars as pl

from distilrec.data.read import LINE, RawTable, decoded, quarantine_rows, read_bytes, read_raw, read_table
from distilrec.errors import DataError, problem

__all__ = [
    "RawLog",
    "amazon_files",
    "existing",
    "is_amazon",
    "is_sequences",
    "read_amazon",
    "read_movielens_100k",
    "read_movielens_1m",
    "read_movielens_latest",
    "read_sequences",
]

GENRES_100K = (
    "unknown",
    "Action",
    "Adventure",
    "Animation",
    "Children's",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Fantasy",
    "Film-Noir",
    "Horror",
    "Musical",
    "Mystery",
    "Romance",
    "Sci-Fi",
    "Thriller",
    "War",
    "Western",
)
# field names of the three releases (McAuley et al. 2015; Ni et al., EMNLP 2019; Hou et al., 2024)
AMAZON_REVIEWS = (
    {"user_id": "reviewerID", "item_id": "asin", "rating": "overall", "timestamp": "unixReviewTime"},  # 2014 and 2018
    {"user_id": "user_id", "item_id": "parent_asin", "rating": "rating", "timestamp": "timestamp"},  # 2023
)
AMAZON_ITEMS = (
    "title",
    "brand",
    "store",
    "price",
    "description",
    "feature",
    "features",
    "category",
    "categories",
    "main_category",
    "main_cat",
)


@dataclass(frozen=True, eq=False)
class RawLog:
    """What a layout holds: interactions with line numbers, item and user tables, and the column of each role."""

    layout: str
    interactions: RawTable
    items: pl.DataFrame | None = None
    users: pl.DataFrame | None = None
    columns: Mapping[str, str] = field(default_factory=dict)


def _lines(path: Path, encoding: str) -> tuple[pl.DataFrame, list[tuple[int, str, str]]]:
    """(lines that hold more than blanks in column "cells", with their numbers; bad lines, those of other bytes).

    Lines by the line feeds of the file only: str.splitlines would also cut at signs that occur in titles.
    """
    numbers, cells, bad = [], [], []
    for number, line in enumerate(read_bytes(path).splitlines(), 1):
        text, reason = decoded(line, encoding)
        if reason is not None:
            bad.append((number, reason, text[:500]))
        elif text.strip():
            numbers.append(number)
            cells.append(text)
    if not cells and not bad:
        raise DataError(problem(f"{path} is empty", "at least one line", "copy or unpack it again"))
    return pl.DataFrame({LINE: numbers, "cells": cells}, schema={LINE: pl.Int64, "cells": pl.String}), bad


def existing(path: Path) -> Path:
    """The file; where there is none, the packed one of its name."""
    packed = path.with_name(path.name + ".gz")
    return packed if packed.is_file() and not path.is_file() else path


def _delimited(path: Path, separator: str, names: Sequence[str], encoding: str) -> RawTable:
    """A headerless file with a separator of any length; lines with another number of cells are bad."""
    path = existing(path)
    if not path.is_file():
        raise DataError(
            problem(f"there is no file {path}", "all files of the published archive", "unpack the archive again")
        )
    frame, bad = _lines(path, encoding)
    frame = frame.with_columns(pl.col("cells").str.split(separator).alias("_parts"))
    whole = frame["_parts"].list.len() == len(names)
    bad += [
        (line, f"{len(parts)} cells, expected {len(names)}", text)
        for line, text, parts in frame.filter(~whole).select(LINE, "cells", "_parts").rows()
    ]
    cells = [pl.col("_parts").list.get(i).alias(name) for i, name in enumerate(names)]
    return RawTable(str(path), frame.filter(whole).select(*cells, LINE), quarantine_rows(str(path), sorted(bad)))


def _table(path: Path, separator: str, names: Sequence[str], encoding: str) -> pl.DataFrame | None:
    if not existing(path).is_file():
        return None
    table = _delimited(path, separator, names, encoding)
    if table.bad.height:
        raise DataError(
            problem(
                f"{path} has {table.bad.height} lines of another form, the first is line {table.bad['line'][0]}",
                f"{len(names)} cells separated by {separator!r}",
                "unpack the archive again",
            )
        )
    return table.frame.drop(LINE)


def read_movielens_100k(path: Path) -> RawLog:
    """u.data (tab), u.item and u.user (|), latin-1: the archive ml-100k.zip of GroupLens."""
    events = _delimited(path / "u.data", "\t", ("user_id", "item_id", "rating", "timestamp"), "latin-1")
    items = _table(path / "u.item", "|", ("item_id", "title", "released", "video", "url", *GENRES_100K), "latin-1")
    if items is not None:
        flags = [pl.when(pl.col(name) == "1").then(pl.lit(name)) for name in GENRES_100K]
        items = items.select(
            "item_id", "title", "released", pl.concat_str(flags, separator="|", ignore_nulls=True).alias("genres")
        )
    users = _table(path / "u.user", "|", ("user_id", "age", "gender", "occupation", "zip_code"), "latin-1")
    return RawLog("movielens-100k", events, items, users)


def read_movielens_1m(path: Path) -> RawLog:
    """ratings.dat, movies.dat, users.dat with `::` between cells: the archive ml-1m.zip (ml-10m too).

    The first was published in latin-1, the second in UTF-8. Titles of the one are not valid in the other's encoding,
    so whether the file of titles is UTF-8 tells which it is.
    """
    encoding = "latin-1"
    movies = existing(path / "movies.dat")
    if movies.is_file() and decoded(read_bytes(movies))[1] is None:
        encoding = "utf-8"
    events = _delimited(path / "ratings.dat", "::", ("user_id", "item_id", "rating", "timestamp"), encoding)
    items = _table(movies, "::", ("item_id", "title", "genres"), encoding)
    users = _table(path / "users.dat", "::", ("user_id", "gender", "age", "occupation", "zip_code"), encoding)
    return RawLog("movielens-1m", events, items, users)


def read_movielens_latest(path: Path) -> RawLog:
    """ratings.csv and movies.csv (ml-latest, ml-latest-small, ml-20m, ml-25m)."""
    return RawLog(
        "movielens-latest",
        read_raw(existing(path / "ratings.csv")),
        read_table(existing(path / "movies.csv")).rename({"movieId": "item_id"}),
        None,
        {"user_id": "userId", "item_id": "movieId", "rating": "rating", "timestamp": "timestamp"},
    )


def _json_files(path: Path) -> list[Path]:
    folder = [path] if path.is_file() else sorted(path.iterdir()) if path.is_dir() else []
    return [
        child for child in folder if child.name.lower().removesuffix(".gz").endswith((".json", ".jsonl", ".ndjson"))
    ]


def _first_line(path: Path) -> str:
    opener = gzip.open if path.suffix == ".gz" else open
    try:
        with opener(path, "rt", encoding="utf-8", errors="replace") as file:
            return next((line for line in file if line.strip()), "")
    except (EOFError, OSError):
        return ""


def _amazon_columns(path: Path) -> Mapping[str, str] | None:
    """The field names of a review file, None if it is something else."""
    line = _first_line(path)
    for names in AMAZON_REVIEWS:
        if all(f'"{name}"' in line for name in (names["user_id"], names["item_id"], names["rating"])):
            return names
    return None


def is_amazon(path: Path) -> bool:
    """A JSON Lines file of Amazon reviews, or a folder that holds one."""
    return any(_amazon_columns(file) for file in _json_files(path))


def amazon_files(path: Path) -> tuple[Path, Path | None]:
    """(the file of reviews, its metadata or None): any `meta*` file beside it that bears its name.

    A folder that holds a single metadata file needs no such name. Raises DataError unless there is one review file.
    """
    reviews = [file for file in _json_files(path) if _amazon_columns(file)]
    if len(reviews) != 1:
        raise DataError(
            problem(
                f"{path} holds {len(reviews)} Amazon review files",
                "exactly one",
                "point to the file of reviews; its metadata is found beside it",
            )
        )
    (file,) = reviews
    stem = file.name.split(".")[0].removeprefix("reviews_").removesuffix("_5").removesuffix("_10")
    metas = [other for other in _json_files(file.parent) if other.name.startswith("meta")]
    alone = metas[0] if len(metas) == 1 and path.is_dir() else None
    return file, next((other for other in metas if stem in other.name), alone)


def read_amazon(path: Path) -> RawLog:
    """Reviews as JSON Lines in the field names of 2014, 2018 or 2023, and their metadata (see `amazon_files`)."""
    file, meta = amazon_files(path)
    names = _amazon_columns(file) or {}
    events, items = read_raw(file, list(names.values())), None
    if meta is not None:
        items, bad = _amazon_items(meta)
        events = replace(events, bad=pl.concat([events.bad, bad]))
    return RawLog("amazon", events, items, None, names)


def _amazon_items(path: Path) -> tuple[pl.DataFrame, pl.DataFrame]:
    """(metadata, bad rows): the last entry of an item counts (the files of 2018 repeat some entries)."""
    key = next((name for name in ("parent_asin", "asin") if name in _first_line(path)), "asin")
    table = read_raw(path, [key], optional=AMAZON_ITEMS)
    kept = [name for name in AMAZON_ITEMS if name in table.frame.columns]
    frame = table.frame.select(pl.col(key).alias("item_id"), *kept)
    # descriptions are text in one release and lists in another; empty lists and texts are no text
    for name in kept:
        if frame[name].dtype == pl.List(pl.Null):
            frame = frame.with_columns(pl.lit(None, dtype=pl.String).alias(name))
    return frame.unique("item_id", keep="last", maintain_order=True), table.bad


def is_sequences(path: Path) -> bool:
    """A .txt or .seq file whose first line is a user followed by at least one item, all separated by blanks."""
    if not path.is_file() or path.name.removesuffix(".gz").rpartition(".")[2] not in ("txt", "seq", "sequences"):
        return False
    return len(_first_line(path).split()) >= 2


def read_sequences(path: Path) -> RawLog:
    """One line per user: the user's key, then the keys of its items, oldest first, separated by blanks."""
    lines, bad = _lines(path, "utf-8")
    lines = lines.with_columns(pl.col("cells").str.extract_all(r"\S+").alias("_parts"))
    short = lines.filter(pl.col("_parts").list.len() < 2)
    bad += [(line, "a user without items", cells) for cells, line in short.select("cells", LINE).rows()]
    whole = lines.filter(pl.col("_parts").list.len() >= 2)
    events = whole.select(
        pl.col("_parts").list.first().alias("user_id"),
        pl.col("_parts").list.slice(1).alias("item_id"),
        pl.int_ranges(0, pl.col("_parts").list.len() - 1, dtype=pl.Int64).alias("seq_pos"),
        LINE,
    ).explode("item_id", "seq_pos")
    return RawLog("sequences", RawTable(str(path), events, quarantine_rows(str(path), sorted(bad))))
