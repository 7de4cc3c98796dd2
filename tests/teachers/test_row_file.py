"""Parquet files of scores as teachers, and the map of their keys."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import rows_world
from distilrec.errors import DataError
from distilrec.teachers.row_file import RowFile
from distilrec.types_rows import Head, RowSplit

pytestmark = pytest.mark.req("A2")


def write(path: Path, **columns: Any) -> Path:
    pl.DataFrame(columns).write_parquet(path)
    return path


@pytest.fixture
def scores(clicks: RowSplit) -> np.ndarray:
    return np.random.default_rng(4).normal(size=len(clicks))


def test_by_position_in_any_order(clicks: RowSplit, everything: np.ndarray, scores: np.ndarray, tmp_path: Path) -> None:
    order = np.random.default_rng(1).permutation(everything)
    teacher = RowFile(write(tmp_path / "s.parquet", row=order, click=scores[order]), clicks, space="logit")
    assert teacher.predict(clicks, everything[::-1]).ravel() == pytest.approx(scores[::-1], abs=1e-6)
    assert teacher.parameters == len(clicks)
    shares = RowFile(write(tmp_path / "p.parquet", row=order, click=1 / (1 + np.exp(-scores[order]))), clicks,
                     space="probability")
    assert shares.predict(clicks, everything).ravel() == pytest.approx(scores, abs=1e-5)
    assert shares.digest != teacher.digest


def test_by_keys_that_may_stand_in_several_rows(clicks: RowSplit, everything: np.ndarray, tmp_path: Path) -> None:
    known = pl.from_arrow(clicks.raw.select(["user", "item"]))
    assert isinstance(known, pl.DataFrame)
    whole = known.drop_nulls().unique(maintain_order=True).sample(fraction=1.0, shuffle=True, seed=3)
    number = {pair: float(place) for place, pair in enumerate(whole.rows())}
    path = tmp_path / "pairs.parquet"
    whole.with_columns(score=pl.int_range(pl.len()).cast(pl.Float32)).write_parquet(path)
    chosen = np.flatnonzero([None not in row for row in known.rows()])
    kept = RowSplit(clicks.name, "given", clicks.features, {k: v[chosen] for k, v in clicks.columns.items()},
                    clicks.heads, {"click": clicks.labels["click"][chosen]}, clicks.parts[chosen],
                    clicks.raw.take(chosen))
    teacher = RowFile(path, kept, space="logit", keys=["user", "item"], columns={"click": "score"})
    wanted = [number[row] for row in known[chosen.tolist()].rows()]
    assert teacher.predict(kept, np.arange(len(kept))).ravel().tolist() == wanted
    with pytest.raises(DataError, match=r"lacks \d+ of \d+ train rows, e\.g\. \(u\d+, None\)"):
        RowFile(path, clicks, space="logit", keys=["user", "item"], columns={"click": "score"})


def test_numbers_as_keys_are_compared_as_text(clicks: RowSplit, tmp_path: Path) -> None:
    split = rows_world.table(60, heads=(Head("click"),))
    raw = split.raw.append_column("code", [np.arange(100, 160)])
    coded = RowSplit(split.name, "given", split.features, split.columns, split.heads, split.labels, split.parts, raw)
    path = write(tmp_path / "s.parquet", code=[str(one) for one in range(100, 160)], click=np.arange(60.0))
    assert RowFile(path, coded, space="logit", keys="code").predict(coded, np.array([7])).tolist() == [[7.0]]


def test_columns_of_many_outputs(tmp_path: Path) -> None:
    split = rows_world.table(50)
    space = {"click": "logit", "buy": "logit", "rating": "value", "tags": "probability"}
    rows = np.arange(50)
    path = write(tmp_path / "s.parquet", row=rows, click=rows * 1.0, buy=rows * 2.0, rating=rows * 3.0,
                 **{"tags.new": rows / 50, "tags.cheap": 1 - rows / 50})
    got = RowFile(path, split, space=space).predict(split, rows)
    assert got[:, :3] == pytest.approx(np.stack([rows, rows * 2, rows * 3], 1))
    assert got[25, 3:] == pytest.approx([0, 0], abs=1e-6)
    assert got[10, 3] == pytest.approx(np.log(0.2 / 0.8))


def test_rows_that_the_file_lacks_are_an_error_when_they_are_asked_for(clicks: RowSplit, tmp_path: Path) -> None:
    rows = np.r_[clicks.rows("train"), clicks.rows("valid")]
    teacher = RowFile(write(tmp_path / "s.parquet", row=rows, click=rows * 0.1), clicks, space="logit")
    assert len(teacher.predict(clicks, clicks.rows("valid"))) == 30
    first = clicks.rows("test")[:3]
    with pytest.raises(DataError, match=f"lacks 60 of 60 rows .*e.g. {first[0]}, {first[1]}, {first[2]}"):
        teacher.predict(clicks, clicks.rows("test"))


def test_faults_of_a_file_are_counted_and_shown(
    clicks: RowSplit, everything: np.ndarray, scores: np.ndarray, tmp_path: Path
) -> None:
    rows = everything
    (tmp_path / "bad.parquet").write_bytes(b"nothing")
    faults: list[tuple[Path, dict[str, Any], str]] = [
        (tmp_path / "none.parquet", {}, "does not exist"),
        (tmp_path / "bad.parquet", {}, "cannot be read as Parquet"),
        (write(tmp_path / "a.parquet", row=np.r_[rows, [300, 301, 302, 303]], click=np.r_[scores, np.zeros(4)]), {},
         "4 keys that the table does not have, e.g. 300, 301, 302\n"),
        (write(tmp_path / "b.parquet", row=np.r_[rows, [5, 5, 9]], click=np.r_[scores, np.zeros(3)]), {},
         "2 keys that stand more than once, e.g. 5, 9"),
        (write(tmp_path / "c.parquet", row=rows[200:], click=scores[200:]), {},
         r"lacks \d+ of 210 train rows, e\.g\. "),
        (write(tmp_path / "d.parquet", row=rows, clicks=scores), {}, "no column 'click', did you mean 'clicks'"),
        (write(tmp_path / "e.parquet", row=rows, click=np.where(rows == 7, np.nan, scores)), {},
         "1 of 300 answers for 'click' are NaN or infinite, first at row 7"),
        (write(tmp_path / "f.parquet", row=rows, click=scores), {"space": "probability"}, r"outside \[0, 1\]"),
        (write(tmp_path / "g.parquet", row=rows, click=["much"] * 300), {}, "wrong type"),
        (write(tmp_path / "h.parquet", row=[*rows[:-1].tolist(), None], click=scores), {}, "1 lines without a key"),
        (tmp_path / "f.parquet", {"space": None}, "is not said"),
        (tmp_path / "f.parquet", {"keys": ["user"]}, "no column 'user'"),
        (write(tmp_path / "i.parquet", other=rows, click=scores), {"keys": ["other"]}, "the table has no column other"),
        (tmp_path / "f.parquet", {"columns": {"klick": "click"}}, "columns names klick"),
        (write(tmp_path / "j.parquet", row=[], click=[]), {}, "has no rows"),
        (write(tmp_path / "k.parquet", row=rows, click=np.clip(np.abs(scores) / 9, 0, 1)), {}, "all 300 logits"),
    ]
    for path, given, text in faults:
        with pytest.raises(DataError, match=re.compile(text)):
            RowFile(path, clicks, **{"space": "logit", **given})


def test_another_table_is_refused(
    clicks: RowSplit, other: RowSplit, everything: np.ndarray, scores: np.ndarray, tmp_path: Path
) -> None:
    teacher = RowFile(write(tmp_path / "s.parquet", row=everything, click=scores), clicks, space="logit")
    with pytest.raises(DataError, match="checked against another table"):
        teacher.predict(other, everything)
