"""The tables of methods: every loss has its row, all rows as many trials, and a killed run trains nothing twice."""

from __future__ import annotations

import importlib
import json
import sys
from argparse import Namespace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch

import distilrec as dr
from core_world import checkerboard
from distilrec.api_shared import divide
from distilrec.files import read_json
from distilrec.losses import HARD, SOFT
from distilrec.models import model_settings
from distilrec.models.trained import create
from distilrec.training.transfer import copy_layers

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "benchmarks" / "methods"
ELSEWHERE = {"layers_from", "start", "interpolation", "trust", "own_temperature", "losses"}


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Imports a file of the benchmark; they find each other as scripts do."""
    before = set(sys.modules)
    for folder in (FOLDER, ROOT / "benchmarks"):
        monkeypatch.syspath_prepend(str(folder))
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if name in {"run", "table", "methods", "factorizations", "sequences", "noisy", "costs", "fusions", "kept",
                    "rivals"}:
            del sys.modules[name]


def test_every_loss_of_rankings_has_a_row(scripts: Any) -> None:
    rows = [*scripts("factorizations").METHODS.values(), *scripts("sequences").METHODS.values()]
    assert {loss for row in rows for trial in row.trials for loss in trial["losses"]} == {*HARD, *SOFT}


@pytest.mark.parametrize(("table", "student"), [("factorizations", "mf"), ("sequences", "sasrec")])
def test_all_methods_have_eight_trials_of_known_settings(scripts: Any, table: str, student: str) -> None:
    module = scripts(table)
    for name, row in module.METHODS.items():
        assert len(row.trials) == 8, name
        assert len({repr(trial) for trial in row.trials}) == 8, name
        for trial in row.trials:
            given = {**getattr(module, "STUDENT", {}), **module.COMMON, **row.of, **trial}
            divide(student, {key: value for key, value in given.items() if key not in ELSEWHERE},
                   model_settings(student), seed=0)


def test_the_layers_of_the_teacher_fit_the_student(scripts: Any) -> None:
    sequences, split = scripts("sequences"), checkerboard()
    shape = {key: value for key, value in sequences.TEACHER.items() if key in model_settings("sasrec")}
    teacher = create("sasrec", split, shape)[0]
    student = create("sasrec", split, {**sequences.STUDENT, "dim": 16})[0]
    copy_layers(teacher, student)
    last = [weight for name, weight in teacher.named_parameters() if name.startswith("blocks.2.")]
    assert last and all(torch.equal(a, b) for a, b in zip(last, student.blocks[0].parameters(), strict=True))


def test_another_teacher_asks_for_another_choice(
    scripts: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = scripts("run")
    small = ModuleType("small")
    small.COMMON = {"epochs": 1, "negatives": "full", "start": "none"}
    small.METHODS = {"kl": scripts("methods").Method("soft labels", [{"losses": {"kl": 1.0}}, {"losses": {"kl": 0.5}}])}
    monkeypatch.setenv("DISTILREC_DATA", str(tmp_path))
    monkeypatch.setattr(dr, "prepare", lambda *_, **__: checkerboard())
    chosen = []
    for ridge in (1.0, 50.0):
        monkeypatch.setattr(run, "SETS", {"small": {
            "data": "small", "split": "given", "metric": "recall@5", "k": 5, "methods": small, "student": "mf",
            "teachers": {"ease": {"regularization": ridge}}, "signals": []}})
        chosen.append(run.Bench("small", "ease", 4, tmp_path / "out").choose("kl")["identity"])
    assert chosen[0] != chosen[1]


def test_a_run_is_kept_and_goes_on(
    scripts: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = scripts("run")
    small = ModuleType("small")
    method = scripts("methods").Method
    small.COMMON = {"epochs": 2, "negatives": "full", "start": "none"}
    small.METHODS = {
        "alone": method("no teacher", [{"losses": {"cross_entropy": 1.0}, "weight_decay": d} for d in (0.0, 0.1)],
                        "none"),
        "kl": method("soft labels", [{"losses": {"kl": 1.0}, "temperature": t} for t in (0.5, 1.0)]),
        "all teachers": method("mixed", [{"losses": {"kl": 1.0}, "temperature": 1.0}], "agreement"),
        "born again": method("of itself", [{"losses": {"kl": 1.0}, "temperature": 1.0}], "self"),
    }
    monkeypatch.setattr(run, "ROOT", tmp_path)
    monkeypatch.setattr(run, "SETS", {"small": {
        "data": "small", "split": "given", "metric": "recall@5", "k": 5, "methods": small, "student": "mf",
        "teachers": {"ease": {}, "user_knn": {}}, "signals": []}})
    monkeypatch.setenv("DISTILREC_DATA", str(tmp_path))
    monkeypatch.setattr(dr, "prepare", lambda *_, **__: checkerboard())
    monkeypatch.setattr(sys, "argv", ["run.py", "small", "--width", "8", "--out", str(tmp_path / "out")])
    run.main()
    assert (tmp_path / "out" / "small-agreement-knowledge" / "manifest.json").exists()
    kept = read_json(tmp_path / "benchmarks" / "results" / "methods" / "small-ease-8.json")
    assert [row["method"] for row in kept["rows"]] == list(small.METHODS)
    assert [row["trials"] for row in kept["rows"]] == [2, 2, 1, 1]
    assert all(len(row["test"]) == 3 for row in kept["rows"])
    assert "beside_control_tail" in kept["rows"][1]
    capsys.readouterr()

    def no_training(*_: object, **__: object) -> None:
        raise AssertionError("a finished trial was trained again")

    with monkeypatch.context() as without:
        without.setattr("distilrec.training.train.fit", no_training)
        run.main()
    assert "trial" not in capsys.readouterr().out
    again = read_json(tmp_path / "benchmarks" / "results" / "methods" / "small-ease-8.json")
    assert [row["test"] for row in again["rows"]] == [row["test"] for row in kept["rows"]]

    # teacher and the students of the row kl together
    fusions, table = scripts("fusions"), scripts("table")
    monkeypatch.setattr(fusions, "ROOT", tmp_path)
    monkeypatch.setattr(fusions, "SETS", run.SETS)
    monkeypatch.setattr(fusions, "DEPTHS", (2, 6))
    monkeypatch.setattr(sys, "argv", ["fusions.py", "small", "--width", "8", "--out", str(tmp_path / "out")])
    fusions.main()
    together = read_json(tmp_path / "benchmarks" / "results" / "methods" / "fusions-small-8.json")
    names = ["teacher", "student", "fusion-weighted", "fusion-rrf", "fusion-learned", "cascade-2", "cascade-6"]
    assert [row["model"] for row in together["fusions"]] == names
    assert all(row["ms"] > 0 for row in together["fusions"])
    monkeypatch.setitem(table.NAMES, "small", "Small")
    assert "| cascade-6 |" in table.page([together])

    # what a step of it costs, on any set
    costs = scripts("costs")
    monkeypatch.setattr(costs, "EPOCHS", (1, 2))
    capsys.readouterr()
    costs.child(Namespace(set="small", teacher="ease", width=8, out=tmp_path / "out", method="kl"))
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {"step_ms", "peak_mb", "base_mb"}
    assert found["peak_mb"] >= found["base_mb"] > 0


def test_costs_are_divided_by_the_plain_loss_of_their_round(
    scripts: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    costs, took = scripts("costs"), iter((2.0, 3.0, 4.0, 4.0, 1.0, 9.0))
    asked: list[list[str]] = []

    def child(command: list[str], **_: object) -> Namespace:
        asked.append(command)
        return Namespace(stdout=json.dumps({"step_ms": next(took), "peak_mb": 3.0, "base_mb": 1.0}))

    monkeypatch.setattr(costs, "ROOT", tmp_path)
    monkeypatch.setattr(costs, "commit", lambda: "abc")
    monkeypatch.setattr(costs.subprocess, "run", child)
    monkeypatch.setattr(sys, "argv", ["costs.py", "scientific", "--width", "16", "--methods", "kl", "--rounds", "3"])
    costs.main()
    assert [command[command.index("--method") + 1] for command in asked] == ["alone", "kl"] * 3
    kept = read_json(tmp_path / "benchmarks" / "results" / "methods" / "costs-scientific-text_sasrec-16.json")
    assert [(row["method"], row["step_ms"], row["times_plain"]) for row in kept["costs"]] == \
        [("alone", 2.0, 1.0), ("kl", 4.0, 1.5)]
    page = scripts("table").page([kept])
    assert "## What a step costs: Amazon Scientific, SASRec of one layer, width 16" in page
    assert "| kl | 4.0 | 1.50 | 3 |" in page


def test_an_unknown_method_is_told(scripts: Any, monkeypatch: pytest.MonkeyPatch,
                                   capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["run.py", "citeulike", "--methods", "kll"])
    with pytest.raises(SystemExit):
        scripts("run").main()
    assert "kll: the methods of citeulike are alone" in capsys.readouterr().err


def test_the_page_is_that_of_the_committed_results(scripts: Any) -> None:
    table = scripts("table")
    found = [read_json(path) for path in sorted((ROOT / "benchmarks" / "results" / "methods").glob("*.json"))]
    assert (ROOT / "docs" / "methods.md").read_text(encoding="utf-8") == table.page(found)
