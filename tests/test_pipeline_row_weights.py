"""A run whose teachers of rows are weighed by user and item: what the store holds, the report says, a resume does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from distilrec import pipeline
from distilrec.data import load_rows
from distilrec.errors import RecipeError
from distilrec.knowledge.store import KnowledgeStore
from distilrec.recipe import Recipe
from distilrec.recipe_yaml import parse_recipe
from distilrec.stages_rows import _weights_of, teacher_of
from distilrec.teachers.row_ensemble import RowEnsemble
from distilrec.teachers.row_local import LocalEnsemble

pytestmark = pytest.mark.req("C9")

TEXT = """
name: weighed
task: predict
data: {shop: {users: 100, items: 60, events_per_user: 4, table: impressions, rows: 2000}}
features: {user_id: category, item_id: category, price: {kind: number, log: true}}
labels: {click: click, dwell: {column: log_dwell, kind: number}}
group: user_id
split: {method: random, parts: [0.6, 0.2, 0.2]}
teacher:
  members:
    - {model: mlp, settings: {dim: 4, hidden: [8]}, train: {epochs: 1, learning_rate: 0.01}}
    - {model: trees, settings: {rounds: 10}}
knowledge: {weights: agreement, item: item_id, extra: 0.5, swap: [item_id, price]}
student: {model: logistic, train: {epochs: 1, learning_rate: 0.01}}
evaluate: {metric: click.auc, baselines: [base_rate]}
"""


def recipe_of(*overrides: str) -> Recipe:
    return parse_recipe(TEXT, overrides)


def test_a_run_with_weights_by_user_and_item_says_what_they_were(tmp_path: Path) -> None:
    report = pipeline.run(recipe_of(), tmp_path, say=lambda line: None)
    roles = [(model["role"], model["name"]) for model in report["models"]]
    assert ("member", "equal weights") in roles
    assert any((one["a"], one["b"]) == ("teacher", "equal weights") for one in report["comparisons"])
    (told,) = report["lineage"]["teacher_weights"]
    assert told["weights"] == "agreement" and told["item"] == "item_id"
    assert set(told["rows_measured"]) == {"users", "items"}
    for head in ("click", "dwell"):
        members = told["heads"][head]["members"]
        assert [one["member"] for one in members] == ["mlp", "trees"]
        assert sum(one["mean"] for one in members) == pytest.approx(1, abs=1e-3)
        assert all(0 <= one[axis][0] <= one["mean"] <= one[axis][1] <= 1 for one in members for axis in told[
            "rows_measured"])
    split = load_rows(tmp_path / "data")
    teacher = teacher_of(recipe_of(), tmp_path, split, 0)
    assert isinstance(teacher, LocalEnsemble)
    store = KnowledgeStore(tmp_path / "knowledge" / "seed-0", split)
    assert store.manifest["identity"]["teacher_digest"].startswith(teacher.digest)
    rows = split.rows("train")[:200]
    np.testing.assert_allclose(store.batch(rows)["response"], teacher.predict(split, rows), atol=1e-5)
    # the same again has nothing to do; other weights are another store
    said: list[str] = []
    pipeline.run(recipe_of(), tmp_path, say=said.append)
    for stage in ("prepare", "teach", "extract", "distill", "export", "evaluate"):
        assert any(line.startswith(f"{stage}: nothing to do") for line in said), stage
    pipeline.run_stage("extract", recipe_of("knowledge.weights=learned", "knowledge.item=null"), tmp_path,
                       say=said.append)
    learned = KnowledgeStore(tmp_path / "knowledge" / "seed-0", split)
    assert learned.digest != store.digest
    teacher = teacher_of(recipe_of("knowledge.weights=learned", "knowledge.item=null"), tmp_path, split, 0)
    told = _weights_of(teacher, split)
    assert told["weights"] == "learned"
    assert all(one["weight"] >= 0 for head in told["heads"].values() for one in head["members"])
    pipeline.run_stage("extract", recipe_of(), tmp_path, say=said.append)
    assert KnowledgeStore(tmp_path / "knowledge" / "seed-0", split).digest == store.digest


def test_copies_of_folds_are_weighed_themselves(tmp_path: Path) -> None:
    recipe = recipe_of("knowledge.folds=2", "knowledge.extra=0", "knowledge.swap=[]", "teacher.members=[]",
                       "teacher.model=trees", "teacher.copies=2", "teacher.settings={rounds: 5}")
    split = pipeline.run_stage("prepare", recipe, tmp_path, say=lambda line: None)
    stores = pipeline.run_stage("extract", recipe, tmp_path, say=lambda line: None)
    assert len(stores[0].batch(split.rows("train")[:5])["response"]) == 5
    plain = teacher_of(recipe_of("knowledge.weights=mean", "knowledge.item=null"), tmp_path / "plain", split, 0)
    assert isinstance(plain, RowEnsemble)


@pytest.mark.parametrize(("overrides", "told"), [
    (["knowledge.weights=equal", "knowledge.item=null"], "knowledge.weights: 'equal' in a recipe of the task predict"),
    (["knowledge.weights=mean"], "knowledge.item: 'item_id' with weights: mean"),
    (["knowledge.item=itm_id"], "knowledge.item: 'itm_id', did you mean 'item_id'?"),
    (["knowledge.item=price"], "knowledge.item: 'price', a feature of kind number"),
    (["knowledge.item=null", "group=null", "evaluate.metric=click.auc"], "'agreement' without users and items"),
    (["teacher.members=[]"], "knowledge.weights: 'agreement' with one teacher"),
    (["knowledge.weights=agreemnt", "knowledge.item=null"], "did you mean 'agreement'"),
])
def test_recipes_that_cannot_be_weighed(overrides: list[str], told: str) -> None:
    with pytest.raises(RecipeError) as caught:
        recipe_of(*overrides)
    assert told in str(caught.value)
    assert str(caught.value).count("\n  expected: ") == 1, str(caught.value)


def test_a_ranking_has_no_learned_weights_and_no_item() -> None:
    several = "name: x\ndata: {path: x}\nteacher: {members: [{model: als}, {model: ease}]}\n"
    with pytest.raises(RecipeError, match="'learned' in a recipe of the task rank"):
        parse_recipe(several + "knowledge: {weights: learned}")
    with pytest.raises(RecipeError, match="knowledge.item: given in a recipe of the task rank"):
        parse_recipe(several + "knowledge: {item: item_id}")
