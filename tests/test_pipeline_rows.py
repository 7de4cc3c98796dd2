"""The whole pointwise job on the simulated shop, in one run folder, from a recipe: the same pipeline as ranking."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import distilrec as dr
from distilrec import pipeline, stages_rows
from distilrec.data import load_rows
from distilrec.errors import DataError, KnowledgeError, RecipeError
from distilrec.knowledge.store import KnowledgeStore
from distilrec.recipe import Recipe
from distilrec.recipe_yaml import dump_recipe, parse_recipe

pytestmark = pytest.mark.req("A4")

TEXT = """
name: small-shop
task: predict
data: {shop: {users: 150, items: 80, events_per_user: 4, table: impressions, rows: 4000}}
features:
  user_id: category
  item_id: category
  price: {kind: number, log: true}
  recent: {kind: sequence, of: item_id, max_length: 5}
  position: {kind: category, available: training}
labels:
  click: click
  purchase: {column: purchase, after: click}
  dwell: {column: log_dwell, kind: number}
group: user_id
split: {method: random, parts: [0.7, 0.1, 0.2], by: [user_id]}
teacher:
  members:
    - {model: mmoe, settings: {dim: 8, hidden: [16], experts: 2}, train: {epochs: 2, learning_rate: 0.01}}
    - {model: trees, settings: {rounds: 20}}
knowledge: {extra: 0.5, swap: [item_id, price]}
student: {model: mlp, settings: {dim: 4, hidden: [8]}, train: {epochs: 2, learning_rate: 0.01}}
evaluate: {metric: click.auc, slices: [department], baselines: [base_rate]}
seeds: [0, 1]
"""


def recipe_of(*overrides: str) -> Recipe:
    return parse_recipe(TEXT, overrides)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "out"
    pipeline.run(recipe_of(), out, say=lambda _: None)
    return out


def test_the_report_holds_every_role_and_head(finished: Path) -> None:
    report = json.loads((finished / "report.json").read_text())
    assert report["task"] == "predict"
    assert [model["role"] for model in report["models"]] == ["teacher", "member", "member", "student", "control",
                                                             "baseline"]
    for model in report["models"]:
        assert {"click.auc", "purchase.log_loss", "dwell.rmse"} <= set(model["metrics"]["test"])
        assert len(model["metrics"]["test"]["click.auc"]["per_seed"]) == 2
    student = report["models"][3]
    assert student["bytes"] > 0
    assert student["latency_ms"]["p50"] > 0
    assert any(group.startswith("department=") for group in student["groups"])
    assert {c["metric"] for c in report["comparisons"] if (c["a"], c["b"]) == ("student", "control")} >= {"click.auc"}


def test_the_student_reads_only_what_a_request_can_bring(finished: Path) -> None:
    described = json.loads((finished / "students" / "seed-0" / "student" / "model.json").read_text())
    assert "position" not in [one["name"] for one in described["features"]]
    teacher = json.loads((finished / "teachers" / "seed-0" / "member-0" / "model.json").read_text())
    assert "position" in [one["name"] for one in teacher["features"]]


def test_the_control_is_trained_as_hard_and_without_the_teacher(finished: Path) -> None:
    for seed in (0, 1):
        student, control = (json.loads((finished / "students" / f"seed-{seed}" / role / "model.json").read_text())
                            for role in ("student", "control"))
        assert control["training"]["steps"] >= student["training"]["steps"]
        assert control["settings"] == student["settings"]
        assert control["features"] == student["features"]
        assert control["training"]["losses"] == {"binary_cross_entropy": 1.0, "squared_error": 1.0}
        assert student["training"]["losses"]["bernoulli_kl"] == 0.5


def test_the_store_holds_rows_that_nobody_logged(finished: Path) -> None:
    split = load_rows(finished / "data")
    store = KnowledgeStore(finished / "knowledge" / "seed-0", split)
    keys, columns = store.extra_rows()
    assert len(keys) == round(0.5 * split.n_rows("train"))
    assert keys.min() == len(split)
    train = split.rows("train")
    pairs = lambda c, rows: set(zip(c["item_id"][rows].tolist(), c["price"][rows].tolist(), strict=True))  # noqa: E731
    # item and price change places together, so every pair of them is one that was logged
    assert pairs(columns, slice(None)) <= pairs(split.columns, train)
    told = store.batch(keys)
    assert told["response"].shape == (len(keys), split.outputs.size)
    assert np.isfinite(told["response"]).all()


def test_groups_of_swapped_features_come_from_rows_of_their_own(tmp_path: Path) -> None:
    import rows_world
    from distilrec.knowledge.extract_rows import extract_rows
    from distilrec.models.base_rate import BaseRate
    from distilrec.types_rows import Head

    split = rows_world.table(600, heads=(Head("click"),))
    names = list(split.features)[:4]
    groups = [names[1:3], names[3:4]]
    keys, columns = extract_rows(BaseRate.fit(split), split, tmp_path, extra=1.0, swap=groups, seed=3).extra_rows()
    train = split.rows("train")
    rows_of = lambda table, own, at: [tuple(np.asarray(table[n][i]).tobytes() for n in own) for i in at]  # noqa: E731
    for own in (names[:1], *groups):  # each group was logged as it stands
        assert set(rows_of(columns, own, range(len(keys)))) <= set(rows_of(split.columns, own, train))
    together = rows_of(columns, names, range(len(keys)))
    assert len(set(together) - set(rows_of(split.columns, names, train))) > len(keys) / 4  # and most rows were not


def test_a_second_run_has_nothing_to_do(finished: Path) -> None:
    said: list[str] = []
    pipeline.run(recipe_of(), finished, say=said.append)
    for stage in ("prepare", "teach", "extract", "distill", "export", "evaluate"):
        assert any(line.startswith(f"{stage}: nothing to do") for line in said), (stage, said)


def test_the_bundle_answers_raw_rows(finished: Path) -> None:
    bundle = dr.load(finished / "bundle")
    known = {"user_id": 3, "item_id": 5, "price": 12.5, "recent": [7, 9]}
    answer = bundle.predict([known, {"item_id": "nobody knows it"}])
    assert set(answer) == {"click", "purchase", "dwell"}
    assert ((answer["click"] > 0) & (answer["click"] < 1)).all()
    assert (answer["purchase"] <= answer["click"] + 0.2).all()
    split = load_rows(finished / "data")
    rows = split.rows("test")[:50]
    model = stages_rows.load_model(finished / "students" / "seed-0" / "student", split)
    served = dr.load(finished / "students" / "seed-0" / "student.bundle")
    told = served.scores({one.name: split.columns[one.name][rows] for one in served.features})
    np.testing.assert_allclose(told, model.predict(split, rows), atol=1e-4)


def test_the_recipe_as_it_was_run_can_be_read_again(finished: Path) -> None:
    assert parse_recipe((finished / "recipe.yaml").read_text()) == recipe_of()
    assert dump_recipe(recipe_of()) == (finished / "recipe.yaml").read_text()


def test_a_store_of_another_table_is_refused(finished: Path) -> None:
    other = stages_rows.prepare_split(recipe_of("data.shop.rows=3000"), finished)
    with pytest.raises(KnowledgeError, match="made from another"):
        KnowledgeStore(finished / "knowledge" / "seed-0", other)


def test_soft_labels_by_copies_that_did_not_see_the_row(tmp_path: Path) -> None:
    recipe = recipe_of("knowledge.folds=3", "knowledge.extra=0", "seeds=[0]", "data.shop.rows=1500")
    split = pipeline.stage_prepare(recipe, tmp_path, say=lambda _: None)
    store = stages_rows.extract(recipe, tmp_path, split, 0)
    rows = split.rows("train")
    whole = stages_rows.teacher_of(recipe, tmp_path, split, 0).predict(split, rows)
    told = store.batch(rows)["response"]
    assert np.abs(told - whole).max() > 0.01
    # users are in one fold as a whole, so each was answered by a copy that knows none of their rows
    assert len(list((tmp_path / "teachers" / "seed-0-folds").iterdir())) == 3


def test_an_outside_teacher_from_a_file_teaches_through_the_pipeline(finished: Path, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    recipe = recipe_of("knowledge.extra=0", "seeds=[0]")
    split = load_rows(finished / "data")
    scores = stages_rows.teacher_of(recipe, finished, split, 0).predict(split, np.arange(len(split)))
    table = {"row": np.arange(len(split)), **{h.name: scores[:, i] for i, h in enumerate(split.heads)}}
    pq.write_table(pa.table(table), tmp_path / "scores.parquet")
    text = TEXT.replace(TEXT[TEXT.index("teacher:"):TEXT.index("knowledge:")],
                        f"teacher: {{model: file, path: {tmp_path / 'scores.parquet'}, space: logit}}\n")
    outside = parse_recipe(text, ["knowledge.extra=0", "seeds=[0]"])
    report = pipeline.run(outside, tmp_path / "out", say=lambda _: None)
    assert report["models"][0]["role"] == "teacher"


@pytest.mark.parametrize(("change", "told"), [
    ("features.price={kind: numbr}", "did you mean 'number'"),
    ("evaluate.metric=clik.auc", "did you mean 'click'"),
    ("student.losses={kl: 1.0}", "bernoulli_kl"),
    ("student.losses={bernoulli_kl: 1.0}", "nothing that teaches 'dwell'"),
    ("student.model=deepfn", "did you mean 'deepfm'"),
    ("student.settings.hiden=[4]", "did you mean 'hidden'"),
    ("student.start=teacher", "none or importance"),
    ("teacher.members=[{model: dcn}]", "did you mean 'dcnv2'"),
    ("knowledge.swap=[]", "features that extra rows take"),
    ("knowledge.swap=[item]", "item_id"),
    ("knowledge.swap=[[item_id], [prise]]", "did you mean 'price'"),
    ("student.losses={binary_cross_entropy: 1.0, squared_error: 1.0, hint: 1.0}", "knowledge: {hidden: true}"),
    ("labels.purchase={column: purchase, after: clik}", "click"),
    ("task=rank", "task: predict"),
    ("name=a/b", "no slash"),
])
def test_faults_are_found_before_anything_runs(change: str, told: str) -> None:
    with pytest.raises(RecipeError) as error:
        recipe_of(change)
    assert told in str(error.value)


def test_a_recipe_has_the_defaults_of_its_task() -> None:
    few = parse_recipe("name: a\ntask: predict\nfeatures: {x: number}\nlabels: {y: y}\n")
    assert (few.evaluate.metric, few.split["method"], few.student.start) == ("auc", "random", "none")
    stars = parse_recipe("name: a\ntask: predict\nfeatures: {x: number}\nlabels: {y: {column: y, kind: number}}\n")
    assert stars.evaluate.metric == "rmse"
    tags = parse_recipe("name: a\ntask: tag\nfeatures: {x: number}\nlabels: {y: {column: y, kind: tags}}\n")
    assert tags.evaluate.metric == "micro_f1"
    assert parse_recipe("name: a\nteacher: {model: sasrec}\n").evaluate.metric == "ndcg@10"


def test_two_runs_in_one_folder_are_refused(tmp_path: Path) -> None:
    from distilrec.runfolder import lock

    with lock(tmp_path), pytest.raises(DataError, match="at work in"):
        pipeline.run(recipe_of(), tmp_path, say=lambda _: None)


def test_the_python_functions_do_the_same(tmp_path: Path) -> None:
    import rows_world
    from distilrec.types_rows import Head

    split = rows_world.table(1200, heads=(Head("click"),))
    quick: dict[str, Any] = {"epochs": 4, "learning_rate": 0.02, "batch_size": 64}
    teacher = dr.teach("dcnv2", split, dim=8, **quick)
    knowledge = dr.extract(teacher, split, folder=tmp_path / "k")
    student = dr.distill("mlp", split, knowledge, dim=4, hidden=[8], **quick)
    bundle = dr.export(student, tmp_path / "b")
    report = dr.evaluate(split, teacher=teacher, student=bundle, control=student.control, baselines=["base_rate"])
    assert report["metric"] == "auc"
    assert report.verdict in ("distill", "do not distill", "undecided")
    assert str(report)


def test_a_bundle_decides_where_the_report_measured(finished: Path) -> None:
    report = json.loads((finished / "report.json").read_text())
    student = next(model for model in report["models"] if model["role"] == "student")
    configs = [json.loads((finished / "students" / f"seed-{seed}" / "student.bundle" / "config.json").read_text())
               for seed in (0, 1)]
    for head in ("click", "purchase"):  # the report gives the mean over the seeds
        served = np.mean([np.ravel(config["thresholds"][head])[0] for config in configs])
        assert served == pytest.approx(np.ravel(student["thresholds"][head])[0], abs=1e-4)
    assert all("dwell" not in config["thresholds"] for config in configs)


def test_a_store_of_another_teacher_is_not_distilled(finished: Path, tmp_path: Path) -> None:
    """Stage by stage, a student must not learn from one teacher and be reported beside another."""
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    split = pipeline.stage_prepare(recipe_of(), out, say=lambda _: None)
    for change in ("teacher.members=[{model: trees}, {model: mlp}]", "knowledge.extra=0.25"):
        with pytest.raises(KnowledgeError, match="another teacher or other knowledge settings"):
            pipeline.stage_distill(recipe_of(change), out, split, say=lambda _: None)
    (out / "knowledge" / "seed-0.json").unlink()
    with pytest.raises(KnowledgeError, match="distilrec extract"):
        pipeline.stage_distill(recipe_of(), out, split, say=lambda _: None)
