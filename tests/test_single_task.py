"""Controls of one head each beside the control of all heads: the recipe key `control.single_task`."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import rows_world
from distilrec import pipeline
from distilrec.api_rows import train_each_alone
from distilrec.errors import DataError, RecipeError
from distilrec.recipe import Recipe
from distilrec.recipe_yaml import parse_recipe
from distilrec.types_rows import Head

TEXT = """
name: small-shop
task: predict
data: {shop: {users: 60, items: 60, events_per_user: 4, table: impressions, rows: 2500}}
features: {item_id: category, price: {kind: number, log: true}}
labels:
  click: click
  purchase: {column: purchase, after: click}
  dwell: {column: log_dwell, kind: number}
group: user_id
teacher: {model: mmoe, settings: {dim: 4, hidden: [8], experts: 2}, train: {epochs: 2, learning_rate: 0.01}}
student: {model: shared_bottom, settings: {dim: 4, hidden: [8]}, train: {epochs: 2, learning_rate: 0.01}}
control: {settings: {dropout: 0.1}, single_task: {dwell: {dropout: 0.3, batch_size: 32}}}
tune: {student: [{}, {dim: 2}], control: [{}, {weight_decay: 0.1}]}
evaluate: {metric: click.auc, baselines: []}
seeds: [0, 1]
"""


def recipe_of(*overrides: str) -> Recipe:
    return parse_recipe(TEXT, overrides)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "out"
    pipeline.run(recipe_of(), out, say=lambda _: None)
    return out


def trained(out: Path, seed: int, head: str) -> SimpleNamespace:
    return SimpleNamespace(**json.loads(
        (out / "students" / f"seed-{seed}" / "single-task" / head / "model.json").read_text()))


def test_the_report_compares_the_student_with_them(finished: Path) -> None:
    report = json.loads((finished / "report.json").read_text())
    (alone,) = [model for model in report["models"] if model["name"] == "single-task"]
    assert alone["role"] == "control"
    assert len(alone["metrics"]["test"]["purchase.auc"]["per_seed"]) == 2
    compared = {c["metric"] for c in report["comparisons"] if (c["a"], c["b"]) == ("student", "single-task")}
    assert {"click.auc", "purchase.auc", "dwell.rmse"} <= compared


@pytest.mark.parametrize("seed", [0, 1])
def test_each_is_the_control_with_one_head(finished: Path, seed: int) -> None:
    folder = finished / "students" / f"seed-{seed}"
    student, control = (json.loads((folder / role / "model.json").read_text()) for role in ("student", "control"))
    for head in ("click", "purchase"):
        alone = trained(finished, seed, head)
        assert [(one["name"], one["after"]) for one in alone.heads] == [(head, None)]
        assert alone.settings == control["settings"]
        assert alone.features == student["features"]
        assert alone.training["steps"] >= student["training"]["steps"]
        assert alone.training["losses"] == {"binary_cross_entropy": 1.0}
        assert list(alone.training["valid"]) == ["auc"]
        assert alone.training["settings"]["seed"] == seed
    dwell = trained(finished, seed, "dwell")
    assert dwell.settings["dropout"] == 0.3
    assert dwell.training["settings"]["batch_size"] == 32
    assert dwell.training["losses"] == {"squared_error": 1.0}
    assert list(dwell.training["valid"]) == ["rmse"]


def test_trials_train_none_and_a_second_run_has_nothing_to_do(finished: Path) -> None:
    assert not list((finished / "students" / "trials").rglob("single-task"))
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("model.json")}
    said: list[str] = []
    pipeline.run(recipe_of(), finished, say=said.append)
    assert "distill: nothing to do" in said
    assert before == {path: path.stat().st_mtime_ns for path in finished.rglob("model.json")}


def test_a_step_holds_as_many_labels_as_one_of_all_heads() -> None:
    split = rows_world.table(800, heads=(Head("click"), Head("rating", "number")))
    rows = split.rows("train")
    share = float((~np.isnan(split.labels["rating"][rows])).mean())
    alone = train_each_alone("mlp", split, dim=2, hidden=[4], epochs=2, batch_size=100, steps=30,
                             features=["item", "price"])
    sizes = [one.training["settings"]["batch_size"] for one in alone.members]
    assert sizes == [100, round(100 * share)]
    assert all(one.training["steps"] >= 30 for one in alone.members)
    test = split.rows("test")
    found = alone.predict(split, test)
    assert found.shape == (len(test), 2)
    assert np.array_equal(found[:, 1:], alone.members[1].predict(alone.views[1], test))
    assert alone.parameters == sum(one.parameters for one in alone.members)
    with pytest.raises(DataError, match="rows"):
        alone.predict(rows_world.table(400, heads=split.heads), test)


@pytest.mark.parametrize(("override", "words"), [
    ("control.single_task={sale: {}}", "sale"),
    ("control.single_task={click: {dropuot: 0.1}}", "dropout"),
    ("control.single_task={click: {epochs: 0}}", "epochs"),
    ("labels={click: click}", "two heads"),
])
def test_faults_are_found_before_anything_runs(override: str, words: str) -> None:
    with pytest.raises(RecipeError, match=words):
        recipe_of(override)
