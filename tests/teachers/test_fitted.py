"""Models fitted in one pass as teachers: kept and found again, validated, in recipes alone and beside others."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from core_world import quick, split_of, walk_split
from distilrec import api
from distilrec.data.split import REFIT
from distilrec.errors import RecipeError
from distilrec.models import BASELINES
from distilrec.recipe_yaml import parse_recipe
from distilrec.stages_rank import teacher_of
from distilrec.teachers.ensemble import Ensemble
from distilrec.training.train import train
from distilrec.training.validate import validate, validate_ranker
from distilrec.types import Split


@pytest.fixture(scope="module")
def world() -> Split:
    return walk_split(users=25, items=14, length=7)


@pytest.mark.parametrize("name", list(BASELINES))
def test_it_is_fitted_once_and_again_for_other_settings(name: str, world: Split, tmp_path: Path) -> None:
    how = {"folder": tmp_path / "t", "metric": "recall@5"}
    first = api.teach(name, world, **how, temperature=0.5)
    written = (tmp_path / "t" / "model.json").stat().st_mtime_ns
    found = api.teach(name, world, **how, temperature=0.5)
    assert (tmp_path / "t" / "model.json").stat().st_mtime_ns == written
    assert (found.digest, found.training, found.name) == (first.digest, first.training, name)
    assert found.training["valid"] == {"recall@5": validate_ranker(first, world, "recall@5")}
    other = api.teach(name, world, **how, temperature=0.25)
    assert (tmp_path / "t" / "model.json").stat().st_mtime_ns != written
    assert other.digest != first.digest


def test_validation_of_a_ranker_is_that_of_the_model() -> None:
    world = split_of([([0, 1], [2, 5], [3]), ([2], [], [3]), ([3, 4, 1], [2], [0]), ([5], [0, 1, 5], [])], 6)
    model = train("mf", world, {"dim": 3}, quick(epochs=2))
    for metric in ("ndcg@3", "recall@2", "hit_rate@2", "mrr@4"):
        for seen in ("drop", "keep"):
            expected = validate(model.model, world, metric, seen=seen)
            for block in (1, 2, 256):
                assert validate_ranker(model, world, metric, seen=seen, block=block) == pytest.approx(expected)
    nobody = split_of([([0, 1], [], [2])], 3)
    assert validate_ranker(model_of(nobody), nobody, "ndcg@3") is None


def model_of(split: Split) -> object:
    return api.fit_baseline("popularity", split)


def test_on_all_of_train_it_keeps_the_validation_of_before(world: Split) -> None:
    before = api.teach("als", world, metric="recall@5", dim=4)
    whole = Split(world.dataset, REFIT, world.items, world.timestamps, world.weights, world.bounds[:, [0, 2, 2, 3]])
    after = api.teach("als", whole, metric="recall@5", dim=4, chosen=before.training)
    assert after.training["valid"] == before.training["valid"]
    assert after.training["refit"] is True
    assert not np.array_equal(after.item_vectors(), before.item_vectors())


@pytest.mark.parametrize(("settings", "message"), [
    ({"alhpa": 3.0}, "als has no setting 'alhpa', did you mean 'alpha'"),
    ({"epochs": 3}, "has no training settings"),
    ({"temperature": 0.0}, "above 0"),
])
def test_what_it_does_not_have_is_refused(settings: dict[str, float], message: str, world: Split) -> None:
    with pytest.raises(RecipeError, match=message):
        api.teach("als", world, **settings)


PLAIN = "name: x\nstudent: {start: none}\n"


@pytest.mark.parametrize(("text", "expected"), [
    ("teacher: {model: als, settings: {alhpa: 1.0}}\n", "teacher.settings.alhpa: 'alhpa', did you mean 'alpha'?"),
    ("teacher: {model: als, settings: {dim: 2.5}}\n", "teacher.settings.dim: 2.5"),
    ("teacher: {model: als, settings: {dim: 0}}\n", "teacher.settings.dim: 0\n  expected: at least 1"),
    ("teacher: {model: als, settings: {fold_in: never}}\n", "teacher.settings.fold_in: 'never'"),
    ("teacher: {model: ease, settings: {temperature: 0.0}}\n", "teacher.settings.temperature: 0.0"),
    ("teacher: {model: ease, train: {epochs: 3}}\n", "ease is fitted in one pass and not trained"),
    ("teacher: {members: [{model: als}, {model: eese}]}\n", "teacher.members.1.model: 'eese', did you mean 'ease'?"),
    ("teacher: {members: [{model: als}, {model: mf, settings: {dmi: 3}}]}\n", "teacher.members.1.settings.dmi: 'dmi'"),
    ("teacher: {members: [{model: als}, {model: ease}], copies: 2}\n", "members or copies, not both"),
    ("teacher: {members: [{model: als}, {model: text_sasrec}]}\n", "'text_sasrec' in a recipe without"),
])
def test_faults_in_recipes_are_told(text: str, expected: str) -> None:
    with pytest.raises(RecipeError) as caught:
        parse_recipe(PLAIN + text)
    assert expected in str(caught.value)


def test_a_start_from_vectors_that_the_teacher_does_not_have_is_a_fault() -> None:
    with pytest.raises(RecipeError, match="ease: no item vectors"):
        parse_recipe("name: x\nteacher: {model: ease}\n")
    parse_recipe("name: x\nteacher: {model: als}\n")
    parse_recipe("name: x\nteacher: {members: [{model: ease}, {model: mf}]}\n")


def test_unlike_members_make_an_ensemble_each_in_its_own_folder(world: Split, tmp_path: Path) -> None:
    recipe = parse_recipe(
        "name: x\nstudent: {start: none}\nevaluate: {metric: recall@5, k: [5]}\n"
        "teacher:\n  members:\n  - {model: als, settings: {dim: 4, temperature: 0.2}}\n  - {model: ease}\n"
        "  - {model: mf, settings: {dim: 4}, train: {epochs: 2}}\n")
    teacher = teacher_of(recipe, tmp_path, world, 3)
    assert isinstance(teacher, Ensemble)
    assert [member.name for member in teacher.members] == ["als", "ease", "mf"]
    assert [(tmp_path / "teachers" / "seed-3" / f"member-{i}" / "model.json").exists() for i in range(3)] == [True] * 3
    assert teacher_of(recipe, tmp_path, world, 3).digest == teacher.digest  # type: ignore[attr-defined]
    assert teacher.members[2].training["settings"]["seed"] == 2003  # type: ignore[attr-defined]
    assert teacher.members[0].settings["seed"] == 3  # type: ignore[attr-defined]
