"""A Parquet file of scores as teacher: any model in any framework, on any machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import polars as pl

from distilrec.errors import DataError, nearest, problem
from distilrec.files import digest_file, digest_json
from distilrec.teachers.outside import check_narrow, check_space, found, output_names, spaces_of, to_answers
from distilrec.types_rows import RowSplit

__all__ = ["RowFile"]


class RowFile:
    """Scores made elsewhere, one line per row of the table or per key.

    Columns: the keys, and one per output: the head's name, or `head.class` for tags (or as `columns` says). The file
    must cover every train row; a row of another part that it lacks is an error when it is asked for.

    Args:
        space: "probability", "logit" or "value", or a mapping of head to one of them; never guessed.
        keys: the raw columns by which a line is found, compared as text; ("row",) with no such raw column: the position
            of a row in the prepared table. Rows of the table with the same keys get the same scores.
        columns: {output: column of the file}, where they have other names.
        narrow_logits: True says that logits which all lie in [0, 1] are meant.
    Raises:
        DataError: no such file or columns; keys that stand twice, that the table does not have, or that it has and the
            file lacks, counted and three shown; scores that are not finite or not of their space.
    """

    def __init__(
        self, path: str | Path, split: RowSplit, *, space: str | Mapping[str, str] | None = None,
        keys: Sequence[str] = ("row",), columns: Mapping[str, str] | None = None, name: str = "",
        narrow_logits: bool = False,
    ) -> None:
        self.path = found(path, "Parquet with keys and one column per output")
        self.name = name or self.path.stem
        self.heads = split.heads
        self.keys = [keys] if isinstance(keys, str) else list(keys)
        spaces = spaces_of(space, split.heads)
        outputs = output_names(split.heads)
        named = {one: one for one in outputs} | dict(columns or {})
        if set(named) != set(outputs):
            raise DataError(problem(f"columns names {', '.join(set(named) - set(outputs))}", ", ".join(outputs)))
        table = self._read([*self.keys, *(named[one] for one in outputs)])
        try:
            scores = table.select(pl.col(named[one]).cast(pl.Float64) for one in outputs).to_numpy()
        except pl.exceptions.PolarsError as error:
            raise DataError(problem(f"{self.path.name}: a column of scores is of a wrong type ({error})",
                                    "numbers")) from error
        check_space(scores, spaces, split.heads, self.path.name, np.arange(len(scores)))
        if not narrow_logits:
            check_narrow(scores, spaces, split.heads, self.path.name)
        self._scores = to_answers(scores, spaces, split.heads, self.path.name)
        self._found = self._places(table, split)
        self._split_digest = split.digest
        self._require(split, split.rows("train"), "train rows")
        self.digest = digest_json([digest_file(self.path), self.keys, list(spaces), named])

    def predict(self, split: RowSplit, rows: np.ndarray) -> np.ndarray:
        """float32 [n, O]: logits, and values for number heads.

        Raises:
            DataError: rows that the file lacks; another table than the one that the keys were checked against.
        """
        if split.digest != self._split_digest:
            raise DataError(problem(f"{self.name} was checked against another table", "the table that it was made for",
                                    "make the teacher again for this table"))
        self._require(split, np.asarray(rows), "rows that it is asked about")
        return self._scores[self._found[rows]]

    @property
    def parameters(self) -> int:
        return int(self._scores.size)

    def _read(self, wanted: list[str]) -> pl.DataFrame:
        try:
            table = pl.read_parquet(self.path)
        except (pl.exceptions.PolarsError, OSError) as error:
            raise DataError(problem(f"{self.path.name} cannot be read as Parquet ({error})", "Parquet")) from error
        lost = [f"{one!r}{nearest(one, table.columns)}" for one in wanted if one not in table.columns]
        if lost:
            raise DataError(problem(f"{self.path.name} has no column {', '.join(lost)}", ", ".join(wanted),
                                    "rename the file's columns, or give keys and columns"))
        if table.is_empty():
            raise DataError(problem(f"{self.path.name} has no rows", "a line for every row"))
        return table

    def _places(self, table: pl.DataFrame, split: RowSplit) -> np.ndarray:
        """int64 [N]: for each row of the split its line of the file, or -1."""
        lines = _texts(table.select(self.keys)).with_columns(line=pl.int_range(pl.len()))
        self._refuse(lines.filter(pl.any_horizontal(pl.col(self.keys).is_null())), "lines without a key", "a key in "
                     "every line")
        self._refuse(lines.filter(pl.struct(self.keys).is_duplicated()).unique(self.keys, maintain_order=True),
                     "keys that stand more than once", "one line per key")
        rows = self._row_keys(split)
        self._refuse(lines.join(rows.unique(self.keys), on=self.keys, how="anti", maintain_order="left"),
                     "keys that the table does not have", f"keys such as {_shown(rows, self.keys)}",
                     "leave the other lines out; write keys as the table has them")
        joined = rows.join(lines, on=self.keys, how="left", maintain_order="left")
        return joined["line"].fill_null(-1).to_numpy()

    def _row_keys(self, split: RowSplit) -> pl.DataFrame:
        if self.keys == ["row"] and "row" not in split.raw.column_names:
            return pl.DataFrame({"row": np.arange(len(split))}).with_columns(pl.col("row").cast(pl.String))
        lost = [one for one in self.keys if one not in split.raw.column_names]
        if lost:
            raise DataError(problem(f"the table has no column {', '.join(lost)}", ", ".join(split.raw.column_names),
                                    "give keys that both the table and the file have, or row alone"))
        return _texts(pl.DataFrame(pl.from_arrow(split.raw.select(self.keys))))

    def _require(self, split: RowSplit, rows: np.ndarray, what: str) -> None:
        lost = rows[self._found[rows] < 0]
        if len(lost):
            shown = _shown(self._row_keys(split)[lost[:3].tolist()], self.keys)
            raise DataError(problem(f"{self.path.name} lacks {len(lost)} of {len(rows)} {what}, e.g. {shown}",
                                    "a line for each of them", "let the teacher score them too"))

    def _refuse(self, bad: pl.DataFrame, what: str, expected: str, do: str = "") -> None:
        if len(bad):
            shown = _shown(bad, self.keys)
            raise DataError(problem(f"{self.path.name}: {len(bad)} {what}, e.g. {shown}", expected, do))


def _texts(table: pl.DataFrame) -> pl.DataFrame:
    return table.with_columns(pl.all().cast(pl.String))


def _shown(table: pl.DataFrame, keys: list[str]) -> str:
    """The first three keys of a table in words."""
    rows = table.select(keys).head(3).rows()
    return ", ".join(str(row[0]) if len(row) == 1 else f"({', '.join(map(str, row))})" for row in rows)
