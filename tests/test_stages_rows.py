"""What a recipe of rows hands on to teachers: threads to trees, a space for each head to what comes from outside."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

import rows_world
from distilrec.errors import RecipeError
from distilrec.recipe import Recipe
from distilrec.recipe_yaml import dump_recipe, parse_recipe
from distilrec.stages_rows import _Folds, teacher_of
from distilrec.teachers import trees as trees_module
from distilrec.types_rows import Head

TEXT = """
name: rows
task: predict
data: {path: rows.parquet}
features: {item: category, price: number}
labels: {click: click, rating: {column: rating, kind: number}}
teacher: {model: trees, settings: {rounds: 3}}
"""
HEADS = (Head("click"), Head("rating", "number"))


def recipe_of(*overrides: str) -> Recipe:
    return parse_recipe(TEXT, overrides)


def test_trees_take_the_threads_of_the_run_and_are_the_same_trees(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    split = rows_world.table(200, heads=HEADS)
    grown: list[int] = []
    original = trees_module._parameters

    def parameters(known: dict[str, int], kind: str, seed: int) -> dict[str, int]:
        grown.append(known["threads"])
        return original(known, kind, seed)

    monkeypatch.setattr(trees_module, "_parameters", parameters)
    one = teacher_of(recipe_of(), tmp_path / "one", split, 0)
    two = teacher_of(recipe_of("threads=2"), tmp_path / "two", split, 0)
    assert grown == [1, 1, 2, 2], "two heads each"
    assert one.digest == two.digest
    again = teacher_of(recipe_of("threads=2"), tmp_path / "one", split, 0)
    assert grown == [1, 1, 2, 2], "another number of threads trains nothing anew"
    assert again.training["threads"] == 2
    np.testing.assert_array_equal(again.predict(split, np.arange(50)), one.predict(split, np.arange(50)))
    teacher_of(recipe_of("threads=2", "teacher.settings.threads=1"), tmp_path / "three", split, 0)
    assert grown[4:] == [1, 1], "its own setting goes before"


def test_each_head_of_an_outside_teacher_has_a_space_of_its_own(tmp_path: Path) -> None:
    split = rows_world.table(200, heads=(Head("click"), Head("buy"), Head("rating", "number")))
    logits = np.random.default_rng(0).normal(0, 2, (len(split), 3))
    pl.DataFrame({"row": np.arange(len(split)), "click": 1 / (1 + np.exp(-logits[:, 0])), "buy": logits[:, 1],
                  "rating": logits[:, 2]}).write_parquet(tmp_path / "scores.parquet")
    recipe = parse_recipe(
        TEXT.replace("click: click,", "click: click, buy: buy,").replace(
            "{model: trees, settings: {rounds: 3}}",
            f"{{model: file, path: {tmp_path / 'scores.parquet'}, "
            "space: {click: probability, buy: logit, rating: value}}"))
    teacher = teacher_of(recipe, tmp_path, split, 0)
    np.testing.assert_allclose(teacher.predict(split, np.arange(len(split))), logits, atol=1e-4)
    assert parse_recipe(dump_recipe(recipe)).teacher.space == recipe.teacher.space


@pytest.mark.parametrize(("space", "told"), [
    ("{click: probability}", "each of click, rating"),
    ("{clik: probability, rating: value}", "each of click, rating"),
    ("{click: value, rating: value}", "'value' for the binary head 'click'"),
    ("{click: odds, rating: value}", "teacher.space"),
    ("odds", "teacher.space"),
    ("value", "'value' for the binary head 'click'"),
])
def test_a_space_that_fits_no_head_is_a_fault_of_the_recipe(space: str, told: str) -> None:
    with pytest.raises(RecipeError) as error:
        recipe_of("teacher={model: file, path: scores.parquet, space: " + space + "}")
    assert told in str(error.value)


def test_copies_without_a_digest_have_none_together() -> None:
    class Silent:
        name, parameters = "silent", 1

    assert _Folds([Silent(), Silent()], np.zeros(2), []).digest == ""  # type: ignore[list-item]
