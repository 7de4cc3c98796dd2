"""Cross-validation on the small simulated shop: every row tested once, and the same numbers as the folds' reports."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console
from typer.testing import CliRunner

from distilrec import crossval
from distilrec.cli import app
from distilrec.cli_inspect import print_anything
from distilrec.data import load_rows, load_split
from distilrec.errors import RecipeError
from distilrec.recipe import Recipe
from distilrec.recipe_yaml import parse_recipe

pytestmark = pytest.mark.req("A5")

ROWS = """
name: small
task: predict
data: {shop: {users: 60, items: 50, events_per_user: 4, table: reviews, rows: 600}}
features: {user_id: category, item_id: category}
labels: {rating: {column: rating, kind: number}}
group: user_id
teacher: {model: biased_mf, settings: {dim: 4}, train: {epochs: 2, learning_rate: 0.02}}
student: {model: biased_mf, settings: {dim: 2}, train: {epochs: 2, learning_rate: 0.02}}
evaluate: {baselines: [base_rate]}
"""
LISTS = """
name: tiny
data: {shop: {users: 60, items: 50, events_per_user: 6.0}}
split: {method: random, valid: 0.2, test: 0.2}
teacher: {model: mf, settings: {dim: 8}, train: {epochs: 1}}
student: {model: mf, settings: {dim: 4}, train: {epochs: 1}}
evaluate: {baselines: [popularity]}
"""


def quiet(_: str) -> None:
    return None


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    out = tmp_path_factory.mktemp("folds") / "out"
    return out, crossval.cross_validate(parse_recipe(ROWS), out, 2, resamples=50, say=quiet)


def test_every_row_is_tested_once(finished: tuple[Path, dict[str, Any]]) -> None:
    splits = [load_rows(finished[0] / f"fold-{i}" / "data") for i in range(2)]
    tested = np.concatenate([one.rows("test") for one in splits])
    assert np.array_equal(np.sort(tested), np.arange(len(splits[0])))
    assert all(np.array_equal(one.labels["rating"], splits[0].labels["rating"]) for one in splits)


def test_the_numbers_are_those_of_the_reports(finished: tuple[Path, dict[str, Any]]) -> None:
    out, document = finished
    reports = [json.loads((out / f"fold-{i}" / "report.json").read_text()) for i in range(2)]
    for at, model in enumerate(document["models"]):
        values = [report["models"][at]["metrics"]["test"]["rmse"]["mean"] for report in reports]
        assert model["metrics"]["rmse"]["per_fold"] == pytest.approx(values)
        assert model["metrics"]["rmse"]["mean"] == pytest.approx(np.mean(values))
    assert json.loads((out / "crossval.json").read_text()) == document


def test_the_bootstrap_asked_the_models_that_the_reports_are_of(finished: tuple[Path, dict[str, Any]]) -> None:
    out, document = finished
    for fold in range(2):
        recipe = crossval.fold_recipe(parse_recipe(ROWS), 2, fold)
        for name, seeds in crossval._asked(recipe, out / f"fold-{fold}", {"rmse"}).items():
            model = next(one for one in document["models"] if one["name"] == name)
            again = np.mean([one.statistics["rmse"].of() for one in seeds])
            assert again == pytest.approx(model["metrics"]["rmse"]["per_fold"][fold], abs=1e-6), name
    pairs = {(c["a"], c["b"]): c for c in document["comparisons"] if c["metric"] == "rmse"}
    own = pairs["student", "control"]
    assert own["of_units"]["n"] == len(np.unique(load_rows(out / "fold-0" / "data").groups))
    assert own["of_units"]["interval"][0] <= own["difference"] <= own["of_units"]["interval"][1]
    assert own["of_training"]["n"] == 2
    assert pairs["student", "base_rate"]["of_units"] is None


def test_a_second_run_has_nothing_to_do(finished: tuple[Path, dict[str, Any]]) -> None:
    said: list[str] = []
    again = crossval.cross_validate(parse_recipe(ROWS), finished[0], 2, resamples=50, say=said.append)
    assert again == finished[1]
    assert said[-1].startswith("cross-validate: nothing to do")
    assert sum(line.startswith("teach: nothing to do") for line in said) == 2


def test_it_goes_on_where_it_was_stopped(finished: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    out = tmp_path / "out"
    shutil.copytree(finished[0], out)
    (out / "crossval.json").unlink()
    (out / "fold-1" / "report.json").unlink()
    said: list[str] = []
    again = crossval.cross_validate(parse_recipe(ROWS), out, 2, resamples=50, say=said.append)
    assert sum(line.startswith("distill: nothing to do") for line in said) == 2
    assert again["comparisons"] == finished[1]["comparisons"]


def test_what_is_printed_says_what_it_means(finished: tuple[Path, dict[str, Any]]) -> None:
    console = Console(width=200, no_color=True)
    with console.capture() as capture:
        crossval.print_folds(finished[1], console)
    text = capture.get()
    assert "2 folds" in text and "RMSE ↓" in text and "±" in text
    own = next(line for line in crossval.sentences(finished[1]) if "student − control" in line)
    assert "of 2 folds" in own and "other groups to test" in own and "other data to train on" in own
    assert "no standard error" in crossval.sentences(finished[1])[-1]


def test_inspect_shows_it(finished: tuple[Path, dict[str, Any]]) -> None:
    for path in (finished[0], finished[0] / "crossval.json"):
        console = Console(width=200, no_color=True)
        with console.capture() as capture:
            print_anything(path, console)
        assert "2 folds" in capture.get()


def test_lists_are_cross_validated_too(tmp_path: Path) -> None:
    out = tmp_path / "out"
    document = crossval.cross_validate(parse_recipe(LISTS), out, 2, resamples=50, say=quiet)
    splits = [load_split(out / f"fold-{i}" / "data") for i in range(2)]
    assert sum(one.n_events("test") for one in splits) == len(splits[0].dataset.interactions)
    recipe = crossval.fold_recipe(parse_recipe(LISTS), 2, 1)
    for name, (one,) in crossval._asked(recipe, out / "fold-1", {"ndcg@10"}).items():
        model = next(entry for entry in document["models"] if entry["name"] == name)
        assert float(one.statistics["ndcg@10"].of()) == pytest.approx(model["metrics"]["ndcg@10"]["per_fold"][1])
    own = next(c for c in document["comparisons"] if (c["a"], c["b"], c["metric"]) == ("student", "control", "ndcg@10"))
    assert own["of_units"]["n"] <= splits[0].n_users


def split_of(text: str, *overrides: str, folds: int = 5, fold: int = 0) -> dict[str, Any]:
    return dict(crossval.fold_recipe(parse_recipe(text, overrides), folds, fold).split)


def test_a_random_split_keeps_its_share_of_validation_rows() -> None:
    kept = split_of(ROWS, "split={method: random, parts: [0.6, 0.2, 0.2], by: [user_id], seed: 3}", fold=2)
    assert kept == {"method": "k-fold", "folds": 5, "fold": 2, "carve": pytest.approx(0.25), "by": ["user_id"],
                    "seed": 3}
    assert split_of(LISTS) == {"method": "k-fold", "folds": 5, "fold": 0, "valid": pytest.approx(0.25)}
    assert split_of(ROWS, "split={method: k-fold, carve: 0.2}") == {"method": "k-fold", "carve": 0.2, "folds": 5,
                                                                    "fold": 0}


@pytest.mark.parametrize("split", ["{method: time}", "{method: given}"])
def test_a_split_that_folds_would_not_respect_is_refused(split: str) -> None:
    with pytest.raises(RecipeError, match="would not respect"):
        split_of(ROWS, f"split={split}")
    with pytest.raises(RecipeError, match="leave-last-out"):
        split_of(LISTS, "split={method: leave-last-out}")
    with pytest.raises(RecipeError, match="at least 2 folds"):
        split_of(ROWS, folds=1)


def test_the_number_of_folds_is_that_of_the_recipe_unless_another_is_asked_for() -> None:
    def count(*overrides: str, folds: int | None = None) -> int:
        recipe: Recipe = parse_recipe(ROWS, overrides)
        return crossval._count(recipe, folds)

    assert (count(), count("split={method: k-fold, folds: 3}"), count(folds=4)) == (5, 3, 4)


def test_the_verb(finished: tuple[Path, dict[str, Any]], tmp_path: Path) -> None:
    (tmp_path / "small.yaml").write_text(ROWS)
    out = tmp_path / "out"
    shutil.copytree(finished[0], out)
    done = CliRunner().invoke(app, ["cross-validate", str(tmp_path / "small.yaml"), "--folds", "2", "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert "2 folds" in done.output
    bad = CliRunner().invoke(app, ["cross-validate", str(tmp_path / "small.yaml"), "--set", "split={method: time}"])
    assert bad.exit_code == 2
    assert "would not respect" in bad.output
