"""The whole job on a small shop: what it leaves behind, what it repeats, what it survives."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from distilrec import pipeline
from distilrec.bundle.runtime import load
from distilrec.data import load_split
from distilrec.errors import DataError, KnowledgeError
from distilrec.evaluation.rank import recommend, recommend_bundle
from distilrec.evaluation.schema import read_report
from distilrec.knowledge.store import KnowledgeStore
from distilrec.models.trained import Trained
from distilrec.recipe import Recipe
from distilrec.recipe_yaml import dump_recipe, parse_recipe
from distilrec.stages_shared import told

RECIPE = """
name: small shop
data: {shop: {users: 300, items: 200, events_per_user: 12.0, seed: 3}}
teacher: {model: sasrec, settings: {dim: 16, layers: 1, dropout: 0.2, max_length: 20},
          train: {epochs: 3, batch_size: 64, learning_rate: 0.01, negatives: full}}
knowledge: {top_k: 20}
student: {model: sasrec, start: teacher, settings: {dim: 8, layers: 1, dropout: 0.1, max_length: 20},
          train: {epochs: 3, batch_size: 64, learning_rate: 0.01, negatives: full},
          losses: {cross_entropy: 0.5, kl: 0.5}}
control: {train: {label_smoothing: 0.1}}
seeds: [0, 1]
"""


def recipe_of(*overrides: str) -> Recipe:
    return parse_recipe(RECIPE, overrides)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run folder; tests that change it work on what they make themselves."""
    out = tmp_path_factory.mktemp("run")
    pipeline.run(recipe_of(), out, say=lambda line: None)
    return out


@pytest.mark.req("A5")
def test_a_run_leaves_a_report_with_every_role(finished: Path) -> None:
    report = read_report(finished / "report.json")
    assert [m["role"] for m in report["models"]] == ["teacher", "student", "control", "baseline", "baseline"]
    assert report["protocol"]["seeds"] == [0, 1]
    for model in report["models"]:
        assert len(model["metrics"]["test"]["ndcg@10"]["per_seed"]) == 2
    assert report["models"][1]["verdict"] in ("distill", "do not distill", "undecided")
    for place in (
        "recipe.yaml",
        "data/manifest.json",
        "bundle/config.json",
        "bundle/metrics.json",
        "report/report.html",
        "report/card.md",
    ):
        assert (finished / place).stat().st_size > 0


@pytest.mark.req("A7")
def test_onnx_and_torch_agree_for_every_test_user(finished: Path) -> None:
    split = load_split(finished / "data")
    for role in ("student", "control"):
        folder = finished / "students" / "seed-0"
        trained = recommend(Trained.load(folder / role, split), split, "test", 10)
        served = recommend_bundle(load(folder / f"{role}.bundle"), split, "test", 10)
        np.testing.assert_allclose(served.scores, trained.scores, rtol=0, atol=1e-4)
        differ = (served.items != trained.items).any(axis=1)
        for row in np.flatnonzero(differ):
            # only items whose scores are equal up to rounding may change places
            gap = np.abs(np.diff(trained.scores[row]))
            assert gap.min() < 1e-4, f"user {trained.users[row]} gets another list"
    assert len(trained) == split.n_events("test")


def test_the_control_gets_at_least_as_many_steps_and_no_teacher(finished: Path) -> None:
    for seed in (0, 1):
        student, control = (
            json.loads((finished / "students" / f"seed-{seed}" / role / "model.json").read_text())
            for role in ("student", "control")
        )
        assert control["training"]["steps"] >= student["training"]["steps"]
        assert control["training"]["losses"] == {"cross_entropy": 1.0}
        assert dict(control["settings"].items()) == student["settings"]
        assert control["training"]["settings"]["label_smoothing"] == 0.1
        assert student["training"]["settings"]["label_smoothing"] == 0.0


def test_a_second_run_has_nothing_to_do(finished: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in finished.rglob("*") if p.is_file() and "bundle" not in p.parts}
    said: list[str] = []
    pipeline.run(recipe_of(), finished, say=said.append)
    rewritten = ("recipe.yaml", ".lock")
    after = {p: p.stat().st_mtime_ns for p in before if p.name not in rewritten}
    assert after == {p: t for p, t in before.items() if p.name not in rewritten}
    for stage in ("prepare", "teach", "extract", "distill", "export", "evaluate"):
        assert any(line.startswith(f"{stage}: nothing to do") for line in said), stage


def test_a_damaged_bundle_is_exported_again(finished: Path) -> None:
    split, said = load_split(finished / "data"), []
    (finished / "bundle" / "config.json").write_text("{}")
    pipeline.stage_export(recipe_of(), finished, split, say=said.append)
    assert not any("nothing to do" in line for line in said)
    pipeline.stage_evaluate(recipe_of(), finished, split, say=said.append)
    assert load(finished / "bundle").config["seen"] == "drop"
    assert (finished / "bundle" / "metrics.json").exists()


def test_export_before_distill_says_so(finished: Path, tmp_path: Path) -> None:
    with pytest.raises(KnowledgeError, match="run `distilrec distill` first"):
        pipeline.stage_export(recipe_of(), tmp_path, load_split(finished / "data"), say=lambda line: None)


def test_another_metric_after_the_run_does_not_stop_the_export(finished: Path) -> None:
    other = recipe_of("evaluate.metric=recall@10")
    pipeline.stage_export(other, finished, load_split(finished / "data"), say=lambda line: None)


def test_the_seal_survives_a_second_run_and_is_mended_when_it_was_lost(finished: Path) -> None:
    card = (finished / "bundle" / "card.md").read_text()
    assert "control" in card
    assert json.loads((finished / "bundle" / "metrics.json").read_text())[1]["name"] == "student"
    pipeline.run(recipe_of(), finished, say=lambda line: None)
    assert (finished / "bundle" / "card.md").read_text() == card
    shutil.rmtree(finished / "bundle")  # as if a kill had struck between export and seal
    pipeline.run(recipe_of(), finished, say=lambda line: None)
    assert (finished / "bundle" / "card.md").read_text() == card
    load(finished / "bundle")


def test_a_bundle_keeps_seen_items_where_the_recipe_says_so(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "run")
    split = load_split(tmp_path / "run" / "data")
    assert json.loads((finished / "bundle" / "config.json").read_text())["seen"] == "drop"
    pipeline.stage_export(recipe_of("evaluate.seen=keep"), tmp_path / "run", split, say=lambda line: None)
    assert json.loads((tmp_path / "run" / "bundle" / "config.json").read_text())["seen"] == "keep"


def test_a_report_says_what_was_trained_and_names_no_folder(finished: Path, tmp_path: Path) -> None:
    recipe = told(recipe_of("data.shop=null", f"data.path={tmp_path / 'logs' / 'clicks.csv'}"))
    assert recipe["data"]["path"] == "clicks.csv"
    joined = parse_recipe("name: x\ntask: predict\nteacher: {model: mlp}\nfeatures: {a: category}\n"
                          "labels: {y: binary}\n"
                          f"data: {{path: {tmp_path / 'a.csv'}, joins: [{{path: {tmp_path / 'b.csv'}, on: a}}]}}\n")
    assert str(tmp_path) not in json.dumps(told(joined))
    report = json.loads((finished / "report.json").read_text())
    assert report["recipe"]["student"]["losses"] == recipe_of().student.losses
    assert report["recipe"]["name"] == recipe_of().name
    assert "device" not in report["recipe"]


def test_a_changed_setting_is_trained_anew(finished: Path) -> None:
    folder = finished / "students" / "seed-0"
    weights = (folder / "student" / "model.safetensors").read_bytes()
    split = load_split(finished / "data")
    pipeline.stage_distill(recipe_of("student.settings.dropout=0.3"), finished, split, say=lambda line: None)
    assert (folder / "student" / "model.safetensors").read_bytes() != weights
    pipeline.run(recipe_of(), finished, say=lambda line: None)
    assert (folder / "student" / "model.safetensors").read_bytes() == weights, "the same recipe gives the same weights"


def test_knowledge_of_other_data_is_refused(finished: Path, tmp_path: Path) -> None:
    other = pipeline.stage_prepare(recipe_of("data.shop.seed=4"), tmp_path, say=lambda line: None)
    with pytest.raises(KnowledgeError, match="another data set"):
        KnowledgeStore(finished / "knowledge" / "seed-0", other)
    with pytest.raises(KnowledgeError, match="another data set or split"):
        Trained.load(finished / "teachers" / "seed-0", other)


def test_a_recipe_without_data_says_so(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="names no data"):
        pipeline.run(parse_recipe("name: nothing\nteacher: {model: sasrec}"), tmp_path, say=lambda line: None)


def test_students_of_other_settings_are_neither_exported_nor_reported(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    split, changed = load_split(out / "data"), recipe_of("student.settings.dropout=0.3")
    for stage in (pipeline.stage_export, pipeline.stage_evaluate):
        with pytest.raises(KnowledgeError, match="trained by other settings"):
            stage(changed, out, split, say=lambda line: None)
        stage(recipe_of(), out, split, say=lambda line: None)  # those that made them
    (out / "students" / "seed-0.json").unlink()  # as where a training was cut off
    with pytest.raises(KnowledgeError, match="distilrec distill"):
        pipeline.stage_export(recipe_of(), out, split, say=lambda line: None)
    said: list[str] = []
    pipeline.stage_distill(recipe_of(), out, split, say=said.append)
    assert "distill: nothing to do" in said
    pipeline.stage_export(recipe_of(), out, split, say=lambda line: None)


def test_new_weights_are_not_reported_with_old_bundles(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "run")
    changed, split = recipe_of("student.settings.dropout=0.3"), load_split(tmp_path / "run" / "data")
    pipeline.stage_distill(changed, tmp_path / "run", split, say=lambda line: None)
    with pytest.raises(KnowledgeError, match="run `distilrec export` first"):
        pipeline.stage_evaluate(changed, tmp_path / "run", split, say=lambda line: None)


def test_changed_data_in_the_same_folder_are_made_anew(finished: Path, tmp_path: Path) -> None:
    shutil.copytree(finished, tmp_path / "run")
    other = recipe_of("data.shop.seed=4", "seeds=[0]", "teacher.train.epochs=1", "student.train.epochs=1")
    report = pipeline.run(other, tmp_path / "run", say=lambda line: None)
    assert report["dataset"]["digest"] != read_report(finished / "report.json")["dataset"]["digest"]


def test_tuning_gives_both_the_same_number_of_trials(tmp_path: Path) -> None:
    tuned = recipe_of(
        "tune={student: [{dropout: 0.1}, {dropout: 0.4}], control: [{dropout: 0.1}, {weight_decay: 0.1}]}",
        "seeds=[0]",
        "student.train.epochs=2",
    )
    pipeline.run(tuned, tmp_path, say=lambda line: None)
    chosen = json.loads((tmp_path / "students" / "tuned.json").read_text())
    trials = [
        json.loads((tmp_path / "students" / "trials" / str(i) / role / "model.json").read_text())["training"]["valid"]
        for i in (0, 1)
        for role in ("student", "control")
    ]
    assert chosen["student"]["valid"] == max(trials[0]["ndcg@10"], trials[2]["ndcg@10"])
    assert chosen["control"]["valid"] == max(trials[1]["ndcg@10"], trials[3]["ndcg@10"])
    final = json.loads((tmp_path / "students" / "seed-0" / "control" / "model.json").read_text())["training"]
    assert final["valid"]["ndcg@10"] == chosen["control"]["valid"], "the control that won is the one that is trained"


@pytest.mark.req("A4")
def test_a_killed_run_ends_with_the_same_weights(finished: Path, tmp_path: Path) -> None:
    dump_recipe(recipe_of("seeds=[0]"), tmp_path / "recipe.yaml")
    code = (
        "import sys, torch; torch.set_num_threads(1)\n"
        "from pathlib import Path; from distilrec import pipeline; from distilrec.recipe_yaml import load_recipe\n"
        f"pipeline.run(load_recipe({str(tmp_path / 'recipe.yaml')!r}), Path({str(tmp_path / 'out')!r}))"
    )
    source = str(Path(pipeline.__file__).parents[1])
    environment = {**os.environ, "PYTHONPATH": source, "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    checkpoint = tmp_path / "out" / "students" / "seed-0" / "student" / "checkpoint.safetensors"
    deadline = time.monotonic() + 120
    while not checkpoint.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "out" / "report.json").exists(), "the run was to be killed before its end"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    for role in ("student", "control"):
        place = Path("students") / "seed-0" / role / "model.safetensors"
        assert (tmp_path / "out" / place).read_bytes() == (finished / place).read_bytes()


def test_a_refused_stage_leaves_the_recipe_of_what_lies_there(finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    shutil.copytree(finished, out)
    before = (out / "recipe.yaml").read_text(encoding="utf-8")
    with pytest.raises(KnowledgeError, match="attention"):
        pipeline.run_stage("distill", recipe_of("student.losses={attention_transfer: 1.0}"), out, say=lambda line: None)
    assert (out / "recipe.yaml").read_text(encoding="utf-8") == before
