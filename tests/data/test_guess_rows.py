from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from distilrec.cli_views import row_recipe_text
from distilrec.data import prepare_rows, shop_table, simulate_shop
from distilrec.data.guess_rows import guess_rows, is_table
from distilrec.errors import DataError
from distilrec.recipe_yaml import parse_recipe

pytestmark = pytest.mark.req("A1")


def clicks(n: int = 400) -> pl.DataFrame:
    rng = np.random.default_rng(0)
    click = rng.integers(0, 2, n)
    return pl.DataFrame({
        "row_id": [f"r{i}" for i in range(n)],
        "User ID": rng.integers(0, 40, n), "item": [f"i{k}" for k in rng.integers(0, 30, n)],
        "price": np.exp(rng.normal(2, 2, n)), "age": rng.integers(18, 80, n), "hour": rng.integers(0, 24, n),
        "genres": [["a|b", "c", "a|c"][k] for k in rng.integers(0, 3, n)],
        "title": [f"a blue lamp of kind {k}" for k in rng.integers(0, 30, n)],
        "history": [[f"i{k}" for k in rng.integers(0, 30, int(m))] for m in rng.integers(0, 4, n)],
        "vector": rng.normal(size=(n, 3)).tolist(), "empty": [None] * n, "always": ["x"] * n,
        "click": click, "purchase": click * rng.integers(0, 2, n), "timestamp": np.arange(n) + 1_700_000_000,
    })


def test_every_kind_of_column_is_told_by_its_content(tmp_path: Path) -> None:
    clicks().write_parquet(tmp_path / "ads.parquet")
    found = guess_rows(tmp_path / "ads.parquet")
    assert found["task"] == "predict"
    assert found["labels"] == {
        "click": "click", "purchase": {"column": "purchase", "kind": "binary", "after": "click"}}
    assert found["group"] == "User ID"
    assert found["split"] == {"method": "time", "column": "timestamp", "parts": [0.8, 0.1, 0.1]}
    assert found["features"] == {
        "User ID": "category", "item": "category", "price": {"kind": "number", "log": True}, "age": "number",
        "hour": "category", "genres": {"kind": "list", "delimiter": "|"}, "title": "text",
        "history": {"kind": "sequence", "of": "item"}, "vector": "vector",
    }
    told = "\n".join(found["notes"])
    for one in ("left out as a name of nearly every row: row_id", "nearly empty: empty", "always the same: always",
                "whole numbers taken for amounts: age", "no row has 'purchase' without 'click'", "BEFORE"):
        assert one in told
    recipe = parse_recipe(row_recipe_text(found, name="ads"))
    assert (recipe.teacher.model, recipe.student.model) == ("mmoe", "shared_bottom")
    split = prepare_rows(tmp_path / "ads.parquet", features=recipe.features, labels=recipe.labels, group=recipe.group,
                         split=dict(recipe.split))
    assert len(split) == 400
    assert split.heads[1].after == "click"


def test_a_csv_is_read_like_the_parquet_of_the_same_rows(tmp_path: Path) -> None:
    table = clicks().drop("history", "vector", "empty")
    table.write_parquet(tmp_path / "a.parquet")
    table.write_csv(tmp_path / "b.csv")
    a, b = (guess_rows(tmp_path / name) for name in ("a.parquet", "b.csv"))
    assert {**a, "path": "", "notes": a["notes"]} == {**b, "path": "", "notes": b["notes"]}


@pytest.mark.parametrize(("kind", "labels"), [
    ("impressions", {"click", "purchase", "rating", "log_dwell"}), ("reviews", {"rating"}),
])
def test_tables_of_the_shop(tmp_path: Path, kind: str, labels: set[str]) -> None:
    shop_table(simulate_shop(users=60, items=60, events_per_user=5), kind, rows=400).write_parquet(
        tmp_path / "rows.parquet")
    found = guess_rows(tmp_path)
    assert set(found["labels"]) == labels
    assert found["group"] == "user_id"
    place = {"kind": "category", "available": "training"}
    assert found["features"].get("position") == (place if kind == "impressions" else None)
    parse_recipe(row_recipe_text(found, name="shop"))


def test_a_rating_is_a_number_and_tags_are_tags(tmp_path: Path) -> None:
    file = tmp_path / "t.csv"
    pl.DataFrame({"user": [1, 2, 3, 4], "rating": [1, 5, 3, 2], "tags": ["a|b", "b", "a|c", "c"]}).write_csv(file)
    assert guess_rows(file)["labels"] == {"rating": {"column": "rating", "kind": "number"}}
    found = guess_rows(file, ["tags"])
    assert found["task"] == "tag"
    assert found["labels"] == {"tags": {"column": "tags", "kind": "tags", "delimiter": "|"}}
    assert "rating" in found["features"]


def test_a_libfm_file_has_fields_by_number(tmp_path: Path) -> None:
    file = tmp_path / "frappe.libfm"
    file.write_text("".join(f"{i % 2} {i % 7}:1 {10 + i % 3}:1 20:{i / 3:.2f}\n" for i in range(90)))
    found = guess_rows(file)
    assert found["features"] == {"f0": "category", "f1": "category", "f2": "number"}
    assert found["labels"] == {"label": "label"}
    assert any("data.columns" in note for note in found["notes"])
    assert parse_recipe(row_recipe_text(found, name="frappe")).split["method"] == "random"


@pytest.mark.parametrize(("parts", "used"), [
    (["train", "valid", "test"], True), (["valid", "test"], False), (["red", "blue"], False),
])
def test_parts_are_used_where_they_are_parts(tmp_path: Path, parts: list[str], used: bool) -> None:
    file = tmp_path / "t.csv"
    pl.DataFrame({"item": [i % 5 for i in range(30)], "label": [i % 2 for i in range(30)],
                  "split": [parts[i % len(parts)] for i in range(30)]}).write_csv(file)
    found = guess_rows(file)
    assert found["split"]["method"] == ("given" if used else "random")
    assert ("it is not used" in "".join(found["notes"])) != used


@pytest.mark.parametrize(("columns", "expected"), [
    ({"user": [1, 2], "item": [3, 4], "rating": [4, 5]}, False),
    ({"user": [1, 2], "item": [3, 4], "click": [0, 1]}, True),
    ({"user": [1, 2], "item": [3, 4], "click": [7, 9]}, False), ({"x": ["a", "b"], "label": ["0", "1"]}, True),
])
def test_what_is_a_table_and_what_a_log(tmp_path: Path, columns: dict[str, Any], expected: bool) -> None:
    pl.DataFrame(columns).write_csv(tmp_path / "t.csv")
    assert is_table(tmp_path / "t.csv") == expected


@pytest.mark.parametrize(("labels", "words"), [
    ([], "no column of"), (["clik"], "did you mean 'click'"), (["item"], "'item' of"), (["click", "x"], "'x' of"),
])
def test_what_nobody_can_guess_is_asked_for(tmp_path: Path, labels: list[str], words: str) -> None:
    pl.DataFrame({"item": ["a", "b"], "click": ["no", "yes"], "x": ["q", "r"]}).write_csv(tmp_path / "t.csv")
    with pytest.raises(DataError, match=words):
        guess_rows(tmp_path / "t.csv", labels)


def test_a_table_of_nothing_but_labels(tmp_path: Path) -> None:
    pl.DataFrame({"click": [0, 1], "timestamp": [1, 2]}).write_csv(tmp_path / "t.csv")
    with pytest.raises(DataError, match="is left to predict from"):
        guess_rows(tmp_path / "t.csv")
