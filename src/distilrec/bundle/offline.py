"""The offline batch job: a file of users in, a file of recommendations out. Needs no torch and no server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl

from distilrec import progress
from distilrec.bundle.runtime import Bundle
from distilrec.errors import DataError, problem
from distilrec.files import atomic_file
from distilrec.types import Histories

__all__ = ["read_histories", "recommend_file"]

_CHUNK = 4096  # users between two steps of the progress bar
_COLUMNS = "user_id and history (a list of item ids), or one event per row: user_id, item_id and, if any, timestamp"


def recommend_file(
    bundle: Bundle, users_path: str | Path, out_path: str | Path, k: int = 10, *, seen: str | None = None
) -> dict[str, int]:
    """Recommend for every user of a file; returns counts: users, rows, unknown_events, users_without_known_items.

    users_path: Parquet, CSV or JSON Lines, with the columns user_id and history (a list; in CSV the keys separated by
        spaces), or with one event per row: user_id, item_id[, timestamp]. Events are put in order of time; equal times,
        and files without times, keep the order of the file.
    out_path: .parquet, .csv or .jsonl; columns user_id, rank (1 is best), item_id, score; users in the order of their
        first row. It appears when it is whole; an existing file stays until then.

    Raises DataError for a column that is missing, a suffix or a file that cannot be read, and for k below 1.
    """
    out_path = Path(out_path)
    _check_out(out_path)
    frame = read_histories(users_path)
    keys = frame.get_column("user_id").to_list()
    lists = frame.get_column("history")
    ids = {key: i for i, key in enumerate(bundle.item_keys)}
    users = bundle.user_ids(keys)
    parts: list[pl.DataFrame] = []
    names = pl.Series("item_id", bundle.item_keys, dtype=pl.String)
    events = known_events = strangers = 0
    exclude_seen = bundle.drops(seen)
    with progress.track(len(keys), "recommending") as bar:
        for start in range(0, len(keys), _CHUNK):
            chunk = [[] if row is None else row for row in lists.slice(start, _CHUNK).to_list()]
            known = [[ids[item] for item in row if item in ids] for row in chunk]
            events += sum(map(len, chunk))
            known_events += sum(map(len, known))
            strangers += sum(not row for row in known)
            histories = Histories.of(known, None if users is None else users[start:start + _CHUNK])
            nothing = Histories.of([[] for _ in known])
            found = bundle.recommend_ids(histories, histories if exclude_seen else nothing, k)
            rows, places = np.nonzero(found.items >= 0)
            parts.append(pl.DataFrame({
                "user_id": pl.Series([keys[start + row] for row in rows.tolist()], dtype=pl.String),
                "rank": (places + 1).astype(np.int32),
                "item_id": names.gather(found.items[rows, places]),
                "score": found.scores[rows, places],
            }))
            bar.advance(len(chunk))
    schema = {"user_id": pl.String, "rank": pl.Int32, "item_id": pl.String, "score": pl.Float32}
    table = pl.concat(parts) if parts else pl.DataFrame(schema=schema)
    with atomic_file(out_path) as temporary:
        _write(table, temporary, out_path.suffix)
    return {"users": len(keys), "rows": len(table), "unknown_events": events - known_events,
            "users_without_known_items": strangers}


def read_histories(path: str | Path) -> pl.DataFrame:
    """Columns user_id (string) and history (list of strings, oldest first), one row per user, in the file's order."""
    frame = _read(Path(path))
    if "user_id" not in frame.columns or not {"history", "item_id"} & set(frame.columns):
        raise DataError(problem(f"{path} has the columns {', '.join(frame.columns) or '(none)'}", _COLUMNS,
                                "rename the columns of the file"))
    frame = frame.with_columns(pl.col("user_id").cast(pl.String))
    missing = frame.get_column("user_id").null_count()
    if missing:
        raise DataError(problem(f"{path}: {missing} rows without user_id", "a user in every row"))
    if "history" in frame.columns:
        return _from_lists(frame, path)
    events = frame.with_columns(pl.col("item_id").cast(pl.String))
    if "timestamp" in events.columns:
        events = events.sort("timestamp", maintain_order=True, nulls_last=False)
        order = frame.select(pl.col("user_id").unique(maintain_order=True))
        grouped = events.group_by("user_id").agg(pl.col("item_id").drop_nulls().alias("history"))
        return order.join(grouped, on="user_id", how="left", maintain_order="left")
    return events.group_by("user_id", maintain_order=True).agg(pl.col("item_id").drop_nulls().alias("history"))


def _from_lists(frame: pl.DataFrame, path: str | Path) -> pl.DataFrame:
    kind = frame.schema["history"]
    history = pl.col("history")
    if isinstance(kind, pl.List):
        history = history.cast(pl.List(pl.String)).list.drop_nulls()
    elif kind == pl.Null:
        history = pl.lit([], dtype=pl.List(pl.String))
    else:  # text, or a column of single numbers that the CSV reader took for integers
        history = history.cast(pl.String).fill_null("").str.extract_all(r"\S+")
    twice = len(frame) - frame.get_column("user_id").n_unique()
    if twice:
        raise DataError(problem(f"{path}: {twice} users have more than one history", "one row per user",
                                "give one event per row instead: user_id, item_id, timestamp"))
    return frame.select("user_id", history.alias("history"))


def _read(path: Path) -> pl.DataFrame:
    readers: dict[str, Callable[[Path], pl.DataFrame]] = {
        ".parquet": pl.read_parquet, ".csv": _read_csv, ".jsonl": pl.read_ndjson, ".ndjson": pl.read_ndjson,
    }
    if path.suffix not in readers:
        raise DataError(problem(f"cannot tell the format of {path}", f"one of {', '.join(readers)}"))
    try:
        return readers[path.suffix](path)
    except FileNotFoundError:
        raise DataError(problem(f"{path} does not exist", _COLUMNS)) from None
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(problem(f"{path} cannot be read: {str(error).splitlines()[0]}", _COLUMNS)) from None


def _read_csv(path: Path) -> pl.DataFrame:
    """Keys stay text ("007" is not 7); only the time is a number."""
    frame = pl.read_csv(path, infer_schema=False)
    if "timestamp" in frame.columns:
        times = frame.get_column("timestamp").cast(pl.Float64, strict=False)
        bad = times.null_count() - frame.get_column("timestamp").null_count()
        if bad:
            raise DataError(problem(f"{path}: {bad} timestamps are no numbers", "Unix seconds, or a position"))
        frame = frame.with_columns(times)
    return frame


def _check_out(path: Path) -> None:
    if path.suffix not in (".parquet", ".csv", ".jsonl"):
        raise DataError(problem(f"cannot tell the format of {path}", ".parquet, .csv or .jsonl"))


def _write(table: pl.DataFrame, path: Path, suffix: str) -> None:
    if suffix == ".parquet":
        table.write_parquet(path)
    elif suffix == ".csv":
        table.write_csv(path)
    else:
        table.write_ndjson(path)
