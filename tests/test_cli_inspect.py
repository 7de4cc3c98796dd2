"""What `inspect` says of a run, and two runs side by side in a narrow terminal."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from distilrec.cli_inspect import print_anything, print_comparison
from distilrec.cli_views import print_plan
from distilrec.evaluation.report import ModelResult, build_report, write_report
from distilrec.files import read_json, write_json
from distilrec.recipe_yaml import dump_recipe, parse_recipe

RECIPE = """
name: tiny
data: {shop: {users: 60, items: 50}}
teacher: {model: mf, copies: 2}
student: {model: mf}
seeds: [0, 1]
"""


def report_at(path: Path, lead: float, metric: str = "ndcg@10") -> Path:
    rng = np.random.default_rng(0)
    luck = rng.random((1, 50))

    def model(name: str, role: str, rate: float, parameters: int) -> ModelResult:
        return ModelResult(name, role, {metric: (luck < rate) * 1.0}, parameters, valid={metric: [rate]})

    report = build_report(
        task="rank", recipe="tiny", metric=metric, lineage={}, resamples=200,
        dataset={"name": "tiny", "digest": "ab", "users": 50, "items": 9, "interactions": 99},
        protocol={"split": "given", "candidates": "full", "selection": "validation", "seeds": [0], "k": [10],
                  "seen": "drop"},
        models=[model("teacher", "teacher", 0.9, 123_456_789), model("student", "student", 0.4 + lead, 1_234_567),
                model("control", "control", 0.4, 1_234_567), model("control-scratch", "control", 0.3, 1_234_567),
                model("popularity", "baseline", 0.1, 9)],
    )
    path.parent.mkdir(parents=True)
    write_report(report, path)
    return path


def shown(show: object, *arguments: object, width: int = 80) -> str:
    stream = io.StringIO()
    show(*arguments, Console(file=stream, width=width))  # type: ignore[operator]
    return stream.getvalue()


def test_two_runs_side_by_side_break_no_word_at_80_columns(tmp_path: Path) -> None:
    a, b = report_at(tmp_path / "first" / "report.json", 0.3), report_at(tmp_path / "second" / "report.json", -0.3)
    text = shown(print_comparison, a, b)
    for whole in ("control-scratch", "popularity", "params A", "params B", "B - A", "123.46 M", "Do not distill",
                  str(a), str(b)):
        assert whole in text, whole
    assert all(len(line) <= 80 for line in text.splitlines() if str(tmp_path) not in line)


@pytest.mark.parametrize(("metric", "lower"), [("log_loss", True), ("auc", False)])
def test_a_comparison_says_which_direction_is_better(tmp_path: Path, metric: str, lower: bool) -> None:
    a, b = (report_at(tmp_path / name / "report.json", lead, metric) for name, lead in (("one", 0.3), ("two", 0.1)))
    text = shown(print_comparison, a, b)
    assert ("log loss ↓, test" in text) == lower
    assert ("↓ lower is better: B - A below 0 is a gain of B" in " ".join(text.split())) == lower


def test_the_narrowest_terminal_names_what_it_leaves_out(tmp_path: Path) -> None:
    text = shown(print_anything, report_at(tmp_path / "run" / "report.json", 0.3), width=50)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= 50
    assert "A wider terminal shows size, p50, gap closed too." in " ".join(text.split())


def touch(*files: Path) -> None:
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("{}")


@pytest.fixture
def out(tmp_path: Path) -> Path:
    dump_recipe(parse_recipe(RECIPE), tmp_path / "recipe.yaml")
    return tmp_path


def stages(out: Path) -> dict[str, str]:
    body = shown(print_anything, out, width=100).split("Stages ")[1]
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in body.splitlines() if line.startswith("│")]
    return {row[0]: row[1] for row in rows}


def test_a_run_says_of_every_stage_how_far_it_is(out: Path) -> None:
    assert set(stages(out).values()) == {"not yet"}
    touch(out / "data" / "manifest.json", out / "data.json")
    # a checkpoint is not a teacher
    touch(*(out / "teachers" / f"seed-0/member-{i}/model.json" for i in (0, 1)),
          out / "teachers/seed-1/member-0/checkpoint.safetensors")
    found = stages(out)
    assert found["prepare"] == "done"
    assert found["teach"] == "begun, 2 of 4 parts are there"
    assert found["extract"] == "not yet"
    touch(*(out / f"teachers/seed-1/member-{i}/model.json" for i in (0, 1)))
    touch(*(out / f"knowledge/seed-{s}/manifest.json" for s in (0, 1)))
    for role in ("student", "control"):
        touch(*(out / f"students/seed-{s}/{role}/model.json" for s in (0, 1)))
        touch(*(out / f"students/seed-{s}/{role}.json" for s in (0, 1)))
    found = stages(out)
    assert [found[stage] for stage in ("teach", "extract", "distill")] == ["done"] * 3
    assert found["export"] == "begun, 4 of 5 parts are there"
    assert found["evaluate"] == "not yet"


def test_a_model_that_was_trained_again_leaves_export_and_report_out_of_date(out: Path) -> None:
    touch(out / "bundle" / "digests.json", out / "bundle" / "metrics.json")
    models = [out / f"students/seed-{s}/{role}" for s in (0, 1) for role in ("student", "control")]
    touch(*(model / "model.json" for model in models), *(model.with_name(f"{model.name}.json") for model in models))
    weights = {str(model.relative_to(out)): "a" for model in models}
    for model in models:
        write_json(model / "model.json", {"digest": "a"})
    touch(*(model.with_name(f"{model.name}.json") for model in models))
    report = read_json(report_at(out / "made" / "report.json", 0.3))
    write_json(out / "report.json", {**report, "lineage": {"weights": weights}})
    found = stages(out)
    assert (found["export"], found["evaluate"]) == ("done", "done")
    assert "other models" not in shown(print_anything, out, width=140)
    write_json(models[0] / "model.json", {"digest": "b"})
    found = stages(out)
    assert found["export"].startswith("out of date")
    assert found["evaluate"].startswith("out of date")
    assert "report that follows is of other models" in shown(print_anything, out, width=140)


def test_a_teacher_that_is_a_file_is_never_missing(out: Path) -> None:
    text = RECIPE.replace("{model: mf, copies: 2}", "{model: file, path: scores.parquet}")
    dump_recipe(parse_recipe(text), out / "recipe.yaml")
    assert stages(out)["teach"] == "nothing to do, the teacher is a file"


@pytest.mark.parametrize(("teacher", "asked"), [
    ("{model: als}", "for every user"), ("{model: als, settings: {fold_in: always}}", "at every train decision"),
    ("{model: bpr}", "for every user"), ("{model: mf, copies: 2}", "for every user"),
    ("{model: ease}", "at every train decision"), ("{members: [{model: als}, {model: sasrec}]}",
                                                   "at every train decision"),
    ("{model: file, path: t.parquet}", "for every user, or at every train decision where its file holds vectors"),
])
def test_the_plan_says_how_often_the_teacher_answers(tmp_path: Path, teacher: str, asked: str) -> None:
    recipe = parse_recipe(f"name: x\nteacher: {teacher}\nstudent: {{start: none}}\n")
    assert f"the teacher's top 100 {asked} │" in " ".join(shown(print_plan, recipe, tmp_path, width=200).split())


def test_the_plan_names_what_is_measured_together(tmp_path: Path) -> None:
    text = "name: x\nteacher: {model: sasrec}\nevaluate: {fusion: [rrf], cascade: [50]}\n"
    plan = shown(print_plan, parse_recipe(text), tmp_path, width=200)
    assert "item_knn; teacher and student together: fusion-rrf, cascade-50" in plan
