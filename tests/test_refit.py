"""Validation carved from train: it chooses, then everything is trained once more on all of train."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from core_world import quick, split_of, walk_split
from distilrec import pipeline
from distilrec.data import load_split
from distilrec.data.split import CARVED, REFIT, whole_train
from distilrec.evaluation.schema import read_report
from distilrec.knowledge.store import KnowledgeStore
from distilrec.models.trained import Trained
from distilrec.recipe import Recipe
from distilrec.recipe_yaml import parse_recipe
from distilrec.training.train import train
from distilrec.types import Split

RECIPE = """
name: given parts
split: {method: given}
teacher: {model: sasrec, copies: 2, settings: {dim: 8, layers: 1, max_length: 8},
          train: {epochs: 3, batch_size: 16, learning_rate: 0.01, negatives: full}}
knowledge: {top_k: 10}
student: {model: sasrec, settings: {dim: 4, layers: 1, max_length: 8},
          train: {epochs: 3, batch_size: 16, learning_rate: 0.01, negatives: full}}
tune: {student: [{dropout: 0.0}, {dropout: 0.5}], control: [{dropout: 0.0}, {dropout: 0.5}]}
"""


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def log(path: Path) -> Path:
    """Walks round a ring; the last event of each is test, the others train, and nothing is valid."""
    split = walk_split(users=60)
    rows: list[dict[str, Any]] = []
    for user, (start, _, _, stop) in enumerate(split.bounds):
        rows += [{"user_id": f"u{user}", "item_id": f"i{item}", "timestamp": 100 + place,
                  "split": "test" if start + place == stop - 1 else "train"}
                 for place, item in enumerate(split.items[start:stop])]
    pl.DataFrame(rows).write_parquet(path)
    return path


def recipe_of(path: Path, *overrides: str) -> Recipe:
    return parse_recipe(RECIPE, [f"data.path={path}", *overrides])


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("refit")
    path = log(folder / "log.parquet")
    pipeline.run(recipe_of(path), folder / "run", say=lambda line: None)
    return path, folder / "run"


def record(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "model.json").read_text())["training"])


def test_validation_is_given_back_in_the_order_of_time() -> None:
    split = split_of([((1, 4), (2, 3), (5,)), ((), (6,), ()), ((7,), (), (0,))], 8)
    times = np.array([10, 40, 20, 30, 5, 1, 1, 9], dtype=np.int64)  # the test event of the first user is the oldest
    carved = Split(split.dataset, CARVED, split.items, times, split.weights, split.bounds)
    whole = whole_train(carved)
    assert whole.items.tolist() == [1, 2, 3, 4, 5, 6, 7, 0]
    assert whole.timestamps.tolist() == [10, 20, 30, 40, 5, 1, 1, 9]
    assert whole.bounds.tolist() == [[0, 4, 4, 5], [5, 6, 6, 6], [6, 7, 7, 8]]
    assert whole.n_events("valid") == 0
    assert whole.n_events("test") == carved.n_events("test")
    assert whole.digest != carved.digest


def test_the_second_training_takes_the_best_number_of_epochs_and_never_validates(
    monkeypatch: pytest.MonkeyPatch
) -> None:
    from distilrec.training import fit as fit_module

    split, model = walk_split(users=30), {"dim": 8, "layers": 1, "max_length": 6}
    first = train("sasrec", split, model, quick(epochs=6, patience=2, schedule="cosine"))
    monkeypatch.setattr(fit_module, "validate", lambda *a, **k: pytest.fail("validation is part of train now"))
    again = train("sasrec", whole_train(split), model, quick(epochs=9, patience=2, schedule="cosine"),
                  chosen=first.training)
    assert again.training["epochs"] == first.training["best_epoch"]
    assert again.training["settings"]["epochs"] == 6, "the schedule is that of the choice"
    for key in ("valid", "curve", "best_epoch"):
        assert again.training[key] == first.training[key]
    assert again.training["seconds"] > first.training["seconds"]
    assert again.digest != first.digest


def test_training_of_a_fixed_number_of_epochs_is_that_of_the_validated_run() -> None:
    """On the same data, stopping at the best epoch gives the weights that validation had kept."""
    split, model = walk_split(users=30), {"dim": 8, "layers": 1, "max_length": 6}
    first = train("sasrec", split, model, quick(epochs=8, patience=2))
    again = train("sasrec", split, model, quick(epochs=8, patience=2), chosen=first.training)
    assert again.digest == first.digest


def test_every_role_is_trained_again_on_all_of_train(finished: tuple[Path, Path]) -> None:
    _, out = finished
    carved = load_split(out / "data")
    whole = whole_train(carved)
    assert carved.method == CARVED
    places = ["teachers/seed-0/member-0", "teachers/seed-0/member-1", "students/seed-0/student",
              "students/seed-0/control"]
    for place in places:
        chose, final = record(out / "choosing" / place), record(out / place)
        assert final["refit"] and final["epochs"] == chose["best_epoch"] and final["valid"] == chose["valid"]
        Trained.load(out / place, whole)
        Trained.load(out / "choosing" / place, carved)
    KnowledgeStore(out / "knowledge" / "seed-0", whole)
    assert not (out / "students" / "trials").exists(), "trials need validation"
    assert (out / "choosing" / "students" / "trials").exists()


def test_the_report_says_so(finished: tuple[Path, Path]) -> None:
    _, out = finished
    report = read_report(out / "report.json")
    assert report["protocol"]["split"] == REFIT
    assert "then trained on all of train" in (out / "report" / "card.md").read_text()
    student = next(m for m in report["models"] if m["role"] == "student")
    assert student["metrics"]["valid"]["ndcg@10"]["mean"] == pytest.approx(
        record(out / "choosing" / "students" / "seed-0" / "student")["valid"]["ndcg@10"])


def test_a_second_run_has_nothing_to_do(finished: tuple[Path, Path]) -> None:
    path, out = finished
    said: list[str] = []
    pipeline.run(recipe_of(path), out, say=said.append)
    for line in ("choosing: teach", "choosing: extract", "choosing: distill", "teach", "extract", "distill", "export",
                 "evaluate"):
        assert any(one.startswith(f"{line}: nothing to do") for one in said), line


def test_it_can_be_left_out(finished: tuple[Path, Path], tmp_path: Path) -> None:
    path, _ = finished
    pipeline.run(recipe_of(path, "refit=false", "tune={}", "teacher.copies=1"), tmp_path / "run", say=lambda line: None)
    assert not (tmp_path / "run" / "choosing").exists()
    assert read_report(tmp_path / "run" / "report.json")["protocol"]["split"] == CARVED
