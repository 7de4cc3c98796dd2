"""`distilrec new` tells a table of examples from a log, and says when it is not sure."""

from __future__ import annotations

import shlex
from pathlib import Path

import polars as pl
import pytest
from typer.testing import CliRunner

from distilrec.cli import app
from distilrec.recipe_yaml import load_recipe


def new(line: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["new", *shlex.split(line)])
    return result.exit_code, result.output


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    people = {"user": [i % 9 for i in range(60)], "item": [i % 7 for i in range(60)]}
    pl.DataFrame({**people, "click": [i % 2 for i in range(60)], "price": [i / 7 for i in range(60)]}).write_csv(
        tmp_path / "ads.csv")
    pl.DataFrame({**people, "rating": [1 + i % 5 for i in range(60)]}).write_csv(tmp_path / "ratings.csv")
    pl.DataFrame({"color": ["red", "blue"] * 30, "happy": [i % 3 for i in range(60)]}).write_csv(tmp_path / "odd.csv")
    pl.DataFrame({"title": ["a b c"] * 60, "genres": ["x|y", "y", "z|x"] * 20, "year": list(range(60))}).write_csv(
        tmp_path / "films.csv")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_table_with_labels_gets_a_recipe_of_rows(folder: Path) -> None:
    code, said = new("ads.csv --out ads.yaml")
    assert code == 0
    assert "a table with labels (task predict); a log of who took what is --task rank" in said
    recipe = load_recipe("ads.yaml")
    assert (recipe.task, recipe.labels, recipe.group) == ("predict", {"click": "click"}, "user")
    assert recipe.features == {"user": "category", "item": "category", "price": "number"}
    assert new("ads.csv --out log.yaml --task rank")[0] == 0
    assert load_recipe("log.yaml").task == "rank"


def test_a_log_with_ratings_says_how_to_predict_them(folder: Path) -> None:
    code, said = new("ratings.csv --out a.yaml")
    assert code == 0
    assert "to predict a rating or a label of each row: --task predict" in said
    assert load_recipe("a.yaml").task == "rank"
    assert new("ratings.csv --out b.yaml --task predict")[0] == 0
    assert load_recipe("b.yaml").labels == {"rating": {"column": "rating", "kind": "number"}}


def test_what_no_name_tells_is_named_with_label(folder: Path) -> None:
    code, said = new("odd.csv --out a.yaml")
    assert code == 2
    assert "--label COLUMN" in said
    assert not Path("a.yaml").exists()
    assert new("odd.csv --out a.yaml --label happy")[0] == 0
    assert load_recipe("a.yaml").labels == {"happy": {"column": "happy", "kind": "number"}}


def test_a_table_that_is_no_log_is_tried_as_examples(folder: Path) -> None:
    code, said = new("films.csv --out a.yaml")
    assert code == 0
    assert "no log of who took what, but a table with labels (task tag)" in said
    assert load_recipe("a.yaml").evaluate.metric == "micro_f1"


@pytest.mark.parametrize(("line", "words"), [
    ("ads.csv --task ranc", "did you mean 'rank'"), ("ads.csv --task rank --label click", "--label with --task rank"),
    ("ads.csv --task tag", "no tags"), ("films.csv --task predict", "nothing but tags"),
])
def test_options_that_do_not_fit(folder: Path, line: str, words: str) -> None:
    code, said = new(line)
    assert code == 2
    assert words in said


def test_a_log_without_order_gets_factorizations(folder: Path) -> None:
    """A sequence model would learn an order that nobody knows."""
    pairs = [(user, item) for user in range(40) for item in range(30) if (user * 7 + item * 3) % 4]
    pl.DataFrame({"user_id": [u for u, _ in pairs], "item_id": [i for _, i in pairs]}).write_csv("log.csv")
    code, said = new("log.csv --out log.yaml")
    assert code == 0, said
    recipe = load_recipe("log.yaml")
    assert (recipe.split["method"], recipe.teacher.model, recipe.student.model) == ("random", "als", "mf")
    assert "without order, factorizations" in Path("log.yaml").read_text(encoding="utf-8")
