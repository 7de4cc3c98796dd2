"""Every recipe that comes with distilrec is good."""

from __future__ import annotations

from pathlib import Path

import pytest

from distilrec.recipe_yaml import load_recipe

FILES = sorted((Path(__file__).resolve().parent.parent / "recipes").glob("*.yaml"))


def test_the_promised_ones_are_there() -> None:
    promised = {"demo", "movielens-100k", "movielens-1m", "amazon-beauty", "ads-ctr", "movielens-rating", "tags"}
    assert promised <= {file.stem for file in FILES}


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_it_is_good_and_says_what_it_is(file: Path) -> None:
    recipe = load_recipe(file)
    assert recipe.name == file.stem
    assert file.read_text(encoding="utf-8").startswith("# ")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_the_control_has_the_budget_of_the_student(file: Path) -> None:
    recipe = load_recipe(file)
    assert recipe.control.train.get("epochs", recipe.student.train.epochs) >= recipe.student.train.epochs
    assert recipe.control.train.get("patience", recipe.student.train.patience) >= recipe.student.train.patience
    assert len(recipe.tune.control) == len(recipe.tune.student)
