"""The ranking half of `distill`: generations, interpolation, audit; and what recipes are refused for, beforehand."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import distilrec as dr
from core_world import walk_split
from distilrec import api_control, api_rank
from distilrec.errors import KnowledgeError, RecipeError
from distilrec.knowledge.store import KnowledgeStore
from distilrec.models.trained import Trained
from distilrec.recipe_yaml import parse_recipe
from distilrec.training import train as train_module
from distilrec.training.audit import Audit, Group
from distilrec.types import Split

pytestmark = pytest.mark.req("C14")

SMALL: dict[str, Any] = {"dim": 4, "layers": 1, "max_length": 6, "dropout": 0.0, "epochs": 2, "batch_size": 16,
                         "learning_rate": 0.01, "negatives": "full", "metric": "ndcg@5"}


@pytest.fixture(scope="module")
def split() -> Split:
    return walk_split(users=30, items=20)


@pytest.fixture(scope="module")
def store(split: Split, tmp_path_factory: pytest.TempPathFactory) -> KnowledgeStore:
    teacher = dr.teach("sasrec", split, **{**SMALL, "dim": 8, "epochs": 6})
    return dr.extract(teacher, split, top_k=10, folder=tmp_path_factory.mktemp("store"))


def stamps(folder: Path) -> dict[str, int]:
    return {str(path.relative_to(folder)): path.stat().st_mtime_ns
            for name in ("model.json", "manifest.json") for path in folder.rglob(name)}


def valid(trained: Any) -> float:
    return float(trained.training["valid"]["ndcg@5"])


def test_the_generation_that_validates_best_stays_and_a_second_run_is_idle(
    split: Split, store: KnowledgeStore, tmp_path: Path
) -> None:
    made = dr.distill("sasrec", split, store, generations=3, folder=tmp_path, **SMALL)
    folders = [tmp_path / f"generation-{n}" for n in range(3)]
    generations = [Trained.load(folder, split) for folder in folders]
    values = [valid(one) for one in generations]
    assert valid(made.model) == max(values)
    assert made.model.digest == generations[int(np.argmax(values))].digest
    assert made.model.name == "student"
    assert Trained.load(tmp_path / "student", split).digest == made.model.digest
    # the first child learned from the first student, the second from the better of the two
    first = KnowledgeStore(tmp_path / "knowledge-1", split)
    assert first.manifest["identity"]["teacher_digest"] == generations[0].digest
    assert first.signals["response"].width == 10
    better = generations[int(values[1] > values[0])]
    assert KnowledgeStore(tmp_path / "knowledge-2", split).manifest["identity"]["teacher_digest"] == better.digest
    before = stamps(tmp_path)
    again = dr.distill("sasrec", split, store, generations=3, folder=tmp_path, **SMALL)
    assert again.model.digest == made.model.digest
    assert again.control.digest == made.control.digest  # type: ignore[union-attr]
    assert stamps(tmp_path) == before


def test_interpolation_is_chosen_by_validation_and_saved(split: Split, store: KnowledgeStore, tmp_path: Path) -> None:
    plain = dr.distill("sasrec", split, store, control=False, **SMALL)
    made = dr.distill("sasrec", split, store, interpolation=[0.5, 1.0], folder=tmp_path, **SMALL)
    facts = made.model.training["interpolation"]
    assert list(facts["valid"]) == ["0.0", "0.5", "1.0"]
    assert facts["valid"]["0.0"] == valid(plain.model)
    assert valid(made.model) == max(facts["valid"].values()) == facts["valid"][str(facts["share"])]
    own = plain.model.model.table.weight.detach()
    assert np.allclose(made.model.model.table.weight.detach(), own) == (facts["share"] == 0)
    found = Trained.load(tmp_path / "student", split)
    assert found.training["interpolation"] == facts
    assert Trained.load(tmp_path / "generation-0", split).digest == plain.model.digest, "what was trained stays"
    assert "interpolation" not in made.control.training  # type: ignore[union-attr]
    before = stamps(tmp_path)
    assert dr.distill("sasrec", split, store, interpolation=[0.5, 1.0], folder=tmp_path, **SMALL).model.digest == \
        found.digest
    assert stamps(tmp_path) == before


def test_a_control_has_all_the_steps_and_all_the_choices_of_a_student_of_generations(
    split: Split, store: KnowledgeStore, tmp_path: Path
) -> None:
    content = np.random.default_rng(0).normal(size=(split.n_items, 4)).astype(np.float32)
    early = {**SMALL, "epochs": 4, "patience": 1, "learning_rate": 0.05}
    made = dr.distill("sasrec", split, store, generations=2, content=content, scratch=True, folder=tmp_path, **early)
    taught = [Trained.load(tmp_path / f"generation-{n}", split) for n in range(2)]
    together = sum(one.training["steps"] for one in taught)
    assert [one["steps"] for one in made.model.training["tried"]] == [one.training["steps"] for one in taught]
    for role, control in (("control", made.control), ("control-scratch", made.scratch)):
        tried = [Trained.load(tmp_path / f"{role}-{n}", split) for n in range(2)]
        assert all(one.training["steps"] >= together for one in tried)
        assert len({one.digest for one in tried}) == 2, "each from a seed of its own"
        assert tried[0].training["settings"]["seed"] == made.model.training["settings"]["seed"]
        assert control is not None and control.name == role
        assert control.digest == max(tried, key=valid).digest == Trained.load(tmp_path / role, split).digest
        assert [one["valid"] for one in control.training["tried"]] == [valid(one) for one in tried]
    alone = dr.distill("sasrec", split, store, **early)
    assert alone.control is not None and "tried" not in alone.control.training


def test_a_run_that_was_killed_between_two_controls_trains_the_missing_one_only(
    split: Split, store: KnowledgeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = dr.distill("sasrec", split, store, generations=2, **SMALL)
    train, fit = api_control.train, train_module.fit

    def killed(*given: Any, **named: Any) -> Trained:
        if named["folder"].name == "control-1":
            raise KeyboardInterrupt
        return train(*given, **named)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(api_control, "train", killed)
        dr.distill("sasrec", split, store, generations=2, folder=tmp_path, **SMALL)
    before, calls = stamps(tmp_path), []

    def counted(*given: Any, **named: Any) -> Any:
        calls.append(named["folder"].name)
        return fit(*given, **named)

    monkeypatch.setattr(train_module, "fit", counted)
    made = dr.distill("sasrec", split, store, generations=2, folder=tmp_path, **SMALL)
    assert calls == ["control-1"]
    assert {name: stamp for name, stamp in stamps(tmp_path).items() if name in before} == before
    assert (made.model.digest, made.control.digest) == (  # type: ignore[union-attr]
        whole.model.digest, whole.control.digest)  # type: ignore[union-attr]


def test_without_a_folder_nothing_stays_behind_not_even_of_a_failure(
    split: Split, store: KnowledgeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = dr.distill("sasrec", split, store, generations=2, control=False, folder=tmp_path / "kept", **SMALL)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    (tmp_path / "temporary").mkdir()
    made = dr.distill("sasrec", split, store, generations=2, control=False, **SMALL)
    assert made.model.digest == kept.model.digest
    assert list((tmp_path / "temporary").iterdir()) == []
    real = api_rank.train

    def fails(*given: Any, **named: Any) -> Trained:
        if named["knowledge"] is not store:
            assert list((tmp_path / "temporary").iterdir()) == [named["knowledge"].folder]
            raise MemoryError
        return real(*given, **named)

    monkeypatch.setattr(api_rank, "train", fails)
    with pytest.raises(MemoryError):
        dr.distill("sasrec", split, store, generations=2, **SMALL)
    assert list((tmp_path / "temporary").iterdir()) == []


@pytest.mark.parametrize(("given", "told"), [
    ({"interpolation": [0.5], "start": "none"}, "start: teacher"),
    ({"interpolation": [1.5]}, r"shares in \(0, 1\]"),
    ({"generations": 0}, "0 generations"),
    ({"audit": True, "control": False}, "an audit without a control"),
    ({"trust": ["agrement"]}, "did you mean 'agreement'"),
    ({"generations": 2, "chosen": {"student": {"settings": {"epochs": 1}}}}, "refit: false"),
    ({"trust": ["agreement"], "teacher": "peer"}, "trust with the training setting teacher='peer'"),
    ({"own_temperature": True, "teacher": "average"}, "own_temperature with the training setting teacher='average'"),
    ({"audit": True, "student_settings": {"teacher": "peer"}}, "audit with the training setting teacher='peer'"),
    ({"generations": 2, "teacher": "average"}, "nothing of the store is read; leave one of them out"),
])
def test_what_cannot_be_is_refused_before_anything_is_trained(
    given: dict[str, Any], told: str, split: Split, store: KnowledgeStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train_module, "fit", None)
    with pytest.raises(RecipeError, match=told):
        dr.distill("sasrec", split, store, **{**SMALL, **given})


def test_the_control_of_a_student_that_teaches_itself_is_alone(split: Split, store: KnowledgeStore) -> None:
    made = dr.distill("sasrec", split, store, teacher="peer", start="none", **SMALL)
    assert made.model.training["settings"]["teacher"] == "peer"
    assert made.control.training["settings"]["teacher"] == "store"  # type: ignore[union-attr]
    alone = dr.distill("sasrec", split, store, start="none", **SMALL)
    assert made.control.digest == alone.control.digest  # type: ignore[union-attr]


@pytest.mark.req("C8")
def test_a_teacher_that_harms_all_is_left_out_and_a_part_where_it_harms_a_part(
    split: Split, store: KnowledgeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = np.arange(split.n_users) < 10
    found = Audit("ndcg@5", [Group("events 1 of 4", 10, -.2, (-.3, -.1), True)], some)
    monkeypatch.setattr(api_rank, "compare", lambda *given, **named: found)
    made = dr.distill("sasrec", split, store, audit=True, folder=tmp_path, **SMALL)
    tried = {"all of it": "student-all", "what harms nobody": "student-without-harm", "nothing": "control"}
    values = {name: valid(Trained.load(tmp_path / folder, split)) for name, folder in tried.items()}
    facts = made.model.training["audit"]
    assert values[facts["believed"]] == max(values.values()) == valid(made.model)
    assert facts["left_out_users"] == 10
    assert facts["groups"][0]["name"] == "events 1 of 4"
    without = Trained.load(tmp_path / "student-without-harm", split)
    assert without.training["trust"]["users_left_out"] == 10, "the report reads it there"
    assert Trained.load(tmp_path / "student", split).digest == made.model.digest
    before = stamps(tmp_path)
    dr.distill("sasrec", split, store, audit=True, folder=tmp_path, **SMALL)
    assert stamps(tmp_path) == before


@pytest.mark.req("C8")
def test_a_student_without_harm_is_made_as_the_one_with_it(
    split: Split, store: KnowledgeStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where harm lies with nobody, leaving it out is leaving nothing out, and the very same student comes of it."""
    groups = [Group("events 1 of 4", 10, -.2, (-.3, -.1), True)]
    how = {**SMALL, "epochs": 1, "audit": True, "generations": 2, "interpolation": [0.5]}
    for name, some in (("nobody", np.zeros(split.n_users, dtype=bool)), ("some", np.arange(split.n_users) < 10)):
        found = Audit("ndcg@5", groups, some)
        monkeypatch.setattr(api_rank, "compare", lambda *given, found=found, **named: found)
        folder = tmp_path / name
        dr.distill("sasrec", split, store, folder=folder, **how)
        whole, part = (Trained.load(folder / f"student-{one}", split) for one in ("all", "without-harm"))
        assert (whole.digest == part.digest) == (name == "nobody")
        assert part.training["interpolation"].keys() == whole.training["interpolation"].keys()
        assert [one["seed"] for one in part.training["tried"]] == [one["seed"] for one in whole.training["tried"]]
        for number in range(2):
            taught = Trained.load(folder / f"generation-{number}-without-harm", split)
            assert taught.training["trust"]["users_left_out"] == some.sum()
        before = stamps(folder)
        dr.distill("sasrec", split, store, folder=folder, **how)
        assert stamps(folder) == before


def test_a_loss_without_its_signal_names_the_command_that_makes_it(split: Split, store: KnowledgeStore) -> None:
    with pytest.raises(KnowledgeError, match="needs the teacher's 'query'(.|\n)*distilrec extract"):
        dr.distill("sasrec", split, store, losses={"cross_entropy": 1.0, "hint": 1.0}, **SMALL)


def faults(text: str) -> str:
    begin = "" if text.startswith(("teacher:", "task:")) else "teacher: {model: sasrec}\n"
    with pytest.raises(RecipeError) as caught:
        parse_recipe(f"name: x\n{begin}{text}")
    return str(caught.value)


ROWS = "task: predict\nfeatures: {item: category, user: category}\nlabels: {click: click}\n" \
       "teacher: {model: dcnv2}\n"
SEVERAL = "teacher: {members: [{model: als}, {model: sasrec}]}\n"


@pytest.mark.req("G1")
@pytest.mark.parametrize(("text", "told"), [
    ("student: {trust: [confidense]}", "student.trust.0: 'confidense', did you mean 'confidence'?"),
    ("student: {start: none, interpolation: [0.2]}", "student.interpolation: given with start: none"),
    ("student: {interpolation: [1.2]}", "student.interpolation.0: 1.2"),
    ("student: {generations: 0}", "student.generations: 0"),
    ("knowledge: {signals: [queries]}", "knowledge.signals.0: 'queries', did you mean 'query'?"),
    ("student: {train: {teacher: store, weighting: [consistent]}}", "did you mean 'consistency'"),
    ("knowledge: {weights: agreement}", "knowledge.weights: 'agreement' with one teacher"),
    ("knowledge: {weights: agree}", "did you mean 'agreement'"),
    (SEVERAL + "knowledge: {weights: equal, signals: [query]}", "knowledge.signals: 'query' with weights: equal"),
    (SEVERAL + "knowledge: {weights: equal}\nstudent: {losses: {kl: 1.0, hint: 1.0}}", "student.losses.hint: 'hint'"),
    (SEVERAL + "student: {layers: teacher}", "student.layers: 'teacher', of which there are several"),
    ("student: {trust: [agreement], train: {teacher: peer}}",
     "student.trust: given with student.train.teacher: peer"),
    ("student: {own_temperature: true, train: {teacher: average}}",
     "student.own_temperature: given with student.train.teacher: average"),
    ("student: {audit: true, train: {teacher: average}}", "student.audit: given with student.train.teacher: average"),
    ("student: {generations: 2, train: {teacher: peer}}",
     "student.generations: given with student.train.teacher: peer"),
    ("student: {audit: true}\ntune: {student: [{}, {teacher: peer}], control: [{}, {}]}",
     "student.audit: given with tune.student.1.teacher: peer"),
    ("student: {generations: 2}\nseeds: [0, 1000]", "seeds: [0, 1000]"),
    (ROWS + "student: {trust: [agreement]}", "student.trust: given in a recipe of the task predict"),
    (ROWS + "student: {generations: 2}", "student.generations: given in a recipe of the task predict"),
    (ROWS + "student: {audit: true}", "student.audit: given in a recipe of the task predict"),
    (ROWS + "student: {train: {teacher: peer}}", "student.train.teacher: given in a recipe of the task predict"),
    (ROWS + "knowledge: {weights: equal}", "knowledge.weights: 'equal' in a recipe of the task predict"),
])
def test_recipes_that_cannot_be_run(text: str, told: str) -> None:
    message = faults(text)
    assert told in message
    assert message.count("\n  expected: ") == 1, message


@pytest.mark.parametrize("text", [
    SEVERAL + "knowledge: {weights: equal}", "knowledge: {weights: agreement}\nteacher: {model: sasrec, copies: 2}",
    SEVERAL + "student: {interpolation: [0.1, 1.0], trust: [agreement, label_gate], generations: 2, audit: true}",
    "teacher: {model: sasrec}\nstudent: {interpolation: [0.1], train: {teacher: peer}}\nseeds: [0, 1000]",
])
def test_recipes_that_can(text: str) -> None:
    assert parse_recipe("name: x\n" + text).name == "x"


def test_a_store_of_other_data_is_refused_even_where_its_shape_fits(store: KnowledgeStore) -> None:
    other = walk_split(users=30, items=20, seed=1)
    with pytest.raises(KnowledgeError, match="was made from another data set"):
        dr.distill("sasrec", other, store, **SMALL)


@pytest.mark.parametrize(("given", "meant"), [("losess", "losses"), ("contol", "control"), ("drop_out", "dropout")])
def test_a_misspelled_argument_of_distill_is_named(split: Split, store: KnowledgeStore, given: str, meant: str) -> None:
    with pytest.raises(RecipeError) as caught:
        dr.distill("mf", split, store, start="none", **{given: 1})
    assert f"mf has no setting '{given}', did you mean '{meant}'?" in str(caught.value)
    assert "of the call: audit, chosen, content" in str(caught.value)


def test_what_a_notebook_shows_is_a_line(split: Split, store: KnowledgeStore, tmp_path: Path) -> None:
    made = dr.distill("mf", split, store, start="none", dim=2, epochs=1, metric="ndcg@5")
    bundle = dr.export(made, tmp_path / "bundle")
    report = dr.evaluate(split, student=bundle, baselines=["popularity"], k=[5], metric="ndcg@5")
    for shown, part in ((split, f"{split.n_items} items"), (split.dataset, "30 users"), (made, "control=Trained("),
                        (made.model, "mf"), (store, "of sasrec"), (bundle, "20 items"), (report, "student, control")):
        assert "\n" not in repr(shown)
        assert len(repr(shown)) < 300
        assert part in repr(shown)
