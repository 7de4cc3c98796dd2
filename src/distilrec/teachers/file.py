"""A teacher given as a Parquet file: any outside scorer, in any framework."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from distilrec.errors import DataError, problem
from distilrec.files import digest_file, digest_json
from distilrec.types import Histories, Split

__all__ = ["FILE_SETTINGS", "FileTeacher"]

FILE_SETTINGS = ("name", "temperature")

FORMS = "(user_id, item_id, score), (user_id, items[], scores[]) or (item_id, vector[])"


class FileTeacher:
    """Scores or item vectors made elsewhere, with external keys.

    Three forms of file are read: one row per (user_id, item_id, score); one row per user with lists `items` and
    `scores`; one row per item with a list `vector`. With scores the knowledge is kept per user, and items that the
    file does not name for a user score -inf. With vectors a history is answered by the cosine between the mean of
    its vectors and every item's, and the vectors can start a student's item table.

    Every key is checked against the data set: unknown users or items, missing ones and doubles are errors that
    count them and show three.
    """

    looked_up = True  # its answers were computed elsewhere

    def __init__(self, path: str | Path, split: Split, *, name: str = "", temperature: float = 0.1) -> None:
        self.path = Path(path)
        self.name = name or self.path.stem
        self.source = {"file": self.path.name, "sha256": digest_file(self.path) if self.path.exists() else None}
        table = _read(self.path)
        self.keyed = "user"  # a file of scores knows users, not single events
        self._vectors: np.ndarray | None = None
        self._temperature = temperature
        self._n_items = split.n_items
        try:
            self._fill(table, split)
        except pl.exceptions.PolarsError as error:
            raise DataError(problem(f"{self.path}: a column is of a wrong type ({error})", FORMS)) from error

    def _fill(self, table: pl.DataFrame, split: Split) -> None:
        columns = set(table.columns)
        if {"user_id", "items", "scores"} <= columns:
            _check_lists(table, self.path)
            table = table.explode("items", "scores").rename({"items": "item_id", "scores": "score"})
            columns = set(table.columns)
        if {"user_id", "item_id", "score"} <= columns:
            self._offsets, self._items, self._scores = _read_scores(table, split, self.path)
        elif {"item_id", "vector"} <= columns:
            self.keyed = "event"
            self._vectors = _read_vectors(table, split, self.path)
        else:
            raise DataError(problem(f"{self.path} has columns {', '.join(sorted(columns))}", FORMS,
                                    "rename the columns of the teacher's file"))

    def scores(self, histories: Histories) -> np.ndarray:
        """float32 [B, I]; -inf for items that the file does not name.

        Raises:
            DataError: a user whom the file does not know.
        """
        if self._vectors is not None:
            return self._cosine(histories)
        if (histories.users < 0).any():
            raise DataError(problem("a teacher that is a file of scores was asked about an unknown user",
                                    "users of the data set it was checked against"))
        out = np.full((len(histories), self._n_items), -np.inf, dtype=np.float32)
        for row, user in enumerate(histories.users):
            part = slice(self._offsets[user], self._offsets[user + 1])
            out[row, self._items[part]] = self._scores[part]
        return out

    def item_vectors(self) -> np.ndarray:
        """float32 [I, C].

        Raises:
            DataError: the file holds scores, not vectors.
        """
        if self._vectors is None:
            raise DataError(problem(f"{self.path} holds scores", "item vectors (item_id, vector[])",
                                    "start the student from text or from nothing: student.start"))
        return self._vectors

    @property
    def has_vectors(self) -> bool:
        return self._vectors is not None

    @property
    def content(self) -> np.ndarray | None:
        """float32 [I, C]: vectors made elsewhere are item content; a control may start from them as a student does."""
        return self._vectors

    @property
    def parameters(self) -> int:
        return int(self._vectors.size if self._vectors is not None else len(self._scores))

    @property
    def digest(self) -> str:
        return digest_json([self.source["sha256"], self._temperature if self._vectors is not None else None])

    def _cosine(self, histories: Histories) -> np.ndarray:
        vectors: Any = self._vectors
        unit = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        mean = np.zeros((len(histories), unit.shape[1]), dtype=np.float32)
        np.add.at(mean, np.repeat(np.arange(len(histories)), histories.lengths), unit[histories.items])
        mean /= np.maximum(np.linalg.norm(mean, axis=1, keepdims=True), 1e-12)
        return (mean @ unit.T / self._temperature).astype(np.float32)


def _read(path: Path) -> pl.DataFrame:
    if not path.exists():
        raise DataError(problem(f"the teacher's file {path} does not exist", f"Parquet: {FORMS}"))
    try:
        table = pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(problem(f"{path} cannot be read as Parquet ({error})", FORMS)) from error
    if table.is_empty():
        raise DataError(problem(f"{path} has no rows", FORMS))
    return table


def _check_lists(table: pl.DataFrame, path: Path) -> None:
    uneven = table.filter(pl.col("items").list.len() != pl.col("scores").list.len())
    if len(uneven):
        raise DataError(problem(f"{path}: {len(uneven)} rows whose lists differ in length, e.g. users "
                                f"{', '.join(map(str, uneven['user_id'].head(3)))}", "one score for every item"))


def _ids(keys: pl.Series, known: np.ndarray, what: str, path: Path) -> np.ndarray:
    """External keys -> internal ids; all unknown keys in one error."""
    index = pl.DataFrame({"key": [str(k) for k in known], "id": np.arange(len(known), dtype=np.int32)})
    ids = pl.DataFrame({"key": keys.cast(pl.String)}).join(index, on="key", how="left", maintain_order="left")["id"]
    unknown = keys.filter(ids.is_null()).unique(maintain_order=True)
    if len(unknown):
        raise DataError(problem(
            f"{path}: {len(unknown)} {what} that the data set does not have, e.g. "
            f"{', '.join(map(str, unknown.head(3)))}",
            f"the {what} keys of the data set, e.g. {', '.join(map(str, known[:3]))}",
            "write the same keys as the log has; rows of other items must be left out of the file",
        ))
    return ids.to_numpy()


def _missing(have: np.ndarray, wanted: np.ndarray, keys: np.ndarray, what: str, path: Path) -> None:
    lost = np.setdiff1d(wanted, have)
    if len(lost):
        raise DataError(problem(
            f"{path}: {len(lost)} of {len(wanted)} {what} are missing, e.g. {', '.join(map(str, keys[lost[:3]]))}",
            f"every one of the {what} that the data set trains on", "let the teacher score them too",
        ))


def _read_scores(table: pl.DataFrame, split: Split, path: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    users = _ids(table["user_id"], split.dataset.user_keys, "users", path)
    items = _ids(table["item_id"], split.dataset.item_keys, "items", path)
    scores = table["score"].cast(pl.Float32).to_numpy()
    if not np.isfinite(scores).all():
        raise DataError(problem(f"{path}: {int((~np.isfinite(scores)).sum())} scores are null, NaN or infinite",
                                "finite numbers, higher is better"))
    trained = np.flatnonzero(split.bounds[:, 1] > split.bounds[:, 0])
    _missing(np.unique(users), trained, split.dataset.user_keys, "users", path)
    order = np.lexsort((items, users))
    users, items, scores = users[order], items[order], scores[order]
    double = (np.diff(users) == 0) & (np.diff(items) == 0)
    if double.any():
        at = np.flatnonzero(double)[:3]
        shown = ", ".join(f"({split.dataset.user_keys[users[i]]}, {split.dataset.item_keys[items[i]]})" for i in at)
        raise DataError(problem(f"{path}: {int(double.sum())} pairs stand twice, e.g. {shown}", "one score per pair"))
    offsets = np.searchsorted(users, np.arange(split.n_users + 1))
    return offsets, items, scores


def _read_vectors(table: pl.DataFrame, split: Split, path: Path) -> np.ndarray:
    items = _ids(table["item_id"], split.dataset.item_keys, "items", path)
    column = table["vector"].cast(pl.List(pl.Float32))  # lists of fixed width and of other numbers as well
    widths = column.list.len().unique().to_list()
    if len(widths) != 1 or not widths[0]:
        raise DataError(problem(f"{path}: vectors of widths {', '.join(map(str, widths[:5]))}", "one width"))
    doubles = len(items) - len(np.unique(items))
    if doubles:
        raise DataError(problem(f"{path}: {doubles} items stand twice", "one vector per item"))
    _missing(items, np.arange(split.n_items), split.dataset.item_keys, "items", path)
    vectors = np.zeros((split.n_items, widths[0]), dtype=np.float32)
    vectors[items] = np.stack(column.to_list()).astype(np.float32)
    if not np.isfinite(vectors).all():
        raise DataError(problem(f"{path}: vectors hold NaN or infinite numbers", "finite numbers"))
    return vectors
