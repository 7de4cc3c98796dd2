"""What the stages of the rank task hand on: layers of the teacher, and identities that know no machine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from distilrec import pipeline
from distilrec.recipe import Recipe
from distilrec.recipe_yaml import parse_recipe
from distilrec.stages_rank import load_model, teacher_of
from distilrec.training import train as train_module

RECIPE = """
name: small shop
data: {shop: {users: 120, items: 60, events_per_user: 6.0, seed: 3}}
teacher: {model: sasrec, settings: {dim: 16, hidden: 8, layers: 2, dropout: 0.0, max_length: 8},
          train: {epochs: 1, batch_size: 64, learning_rate: 0.01}}
knowledge: {top_k: 5}
student: {model: sasrec, settings: {dim: 4, hidden: 8, layers: 1, dropout: 0.0, max_length: 8},
          train: {epochs: 1, batch_size: 64, learning_rate: 1.0e-12}}
evaluate: {baselines: [popularity]}
"""


def recipe_of(*overrides: str) -> Recipe:
    return parse_recipe(RECIPE, overrides)


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was trained, in order."""
    done: list[str] = []
    original = train_module.fit

    def fit(*args: Any, **settings: Any) -> Any:
        done.append(settings["what"])
        return original(*args, **settings)

    monkeypatch.setattr(train_module, "fit", fit)
    return done


def test_layers_of_the_teacher_start_the_student_and_not_the_control(tmp_path: Path) -> None:
    recipe = recipe_of("student.layers=teacher")
    split = pipeline.stage_prepare(recipe, tmp_path, say=lambda line: None)
    for stage in ("teach", "extract", "distill"):
        pipeline.STAGES[stage](recipe, tmp_path, split, say=lambda line: None)
    teacher = teacher_of(recipe, tmp_path, split, 0).model
    student, control = (load_model(tmp_path / "students" / "seed-0" / role, split).model
                        for role in ("student", "control"))
    for name, tensor in student.blocks[0].state_dict().items():
        torch.testing.assert_close(tensor, teacher.blocks[1].state_dict()[name], atol=1e-6, rtol=0)
    assert not torch.allclose(control.blocks[0].out.weight, teacher.blocks[1].out.weight, atol=1e-3)


def test_another_number_of_threads_or_device_trains_and_measures_nothing_anew(
    tmp_path: Path, trainings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline.run(recipe_of(), tmp_path, say=lambda line: None)
    assert len(trainings) == 3
    said: list[str] = []
    pipeline.run(recipe_of("threads=2"), tmp_path, say=said.append)
    assert len(trainings) == 3
    assert any(line.startswith("evaluate: nothing to do") for line in said)
    loaded: list[str] = []
    monkeypatch.setattr(train_module.Trained, "load", lambda folder, split, device: loaded.append(device))
    with pytest.raises(AttributeError):  # nothing more than the device is loaded here
        pipeline.run(recipe_of("device=cuda"), tmp_path, say=lambda line: None)
    assert loaded == ["cuda"]
    assert len(trainings) == 3


@pytest.mark.parametrize(("of_control", "again"), [("[{}, {dropout: 0.5}]", 0), ("[{dropout: 0.5}, {}]", 1)])
def test_the_winners_of_tuning_are_not_trained_twice(
    of_control: str, again: int, tmp_path: Path, trainings: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Twice the same settings, of which the first wins, beside others that win for the control in the first or second
    trial: only a control beside another student than its own has to be trained once more."""
    recipe = recipe_of(f"tune={{student: [{{}}, {{}}], control: {of_control}}}",
                       "student.train.learning_rate=0.01", "seeds=[0, 1]")
    values = {0.0: 0.9, 0.5: 0.1}  # dropout -> what validation says

    original = train_module.Trained.__init__

    def judged(self: Any, *args: Any, **settings: Any) -> None:
        original(self, *args, **settings)
        self.training["valid"] = {"ndcg@10": values[self.settings["dropout"]]}

    monkeypatch.setattr(train_module.Trained, "__init__", judged)
    split = pipeline.stage_prepare(recipe, tmp_path, say=lambda line: None)
    for stage in ("teach", "extract", "distill"):
        pipeline.STAGES[stage](recipe, tmp_path, split, say=lambda line: None)
    students = trainings[2:]  # after the teachers of two seeds
    assert students.count("training student") == 2 + 1, "two trials, and the second seed"
    assert students.count("training control") == 2 + 1 + again
    first = load_model(tmp_path / "students" / "seed-0" / "student", split)
    assert first.digest == load_model(tmp_path / "students" / "trials" / "0" / "student", split).digest
    trainings.clear()
    pipeline.STAGES["distill"](recipe, tmp_path, split, say=lambda line: None)
    assert not trainings
