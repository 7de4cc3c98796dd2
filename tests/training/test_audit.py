"""Knowledge that harms a group of users is found, and only that group; what harms everybody is not believed."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import distilrec as dr
from core_world import quick, split_of
from distilrec.errors import RecipeError
from distilrec.knowledge.extract import extract
from distilrec.knowledge.store import KnowledgeStore
from distilrec.models.trained import Trained, create
from distilrec.training import audit as audit_module
from distilrec.training.audit import audit, members, user_groups
from distilrec.training.finish import finish
from distilrec.training.train import train
from distilrec.training.validate import per_user, validate
from distilrec.types import Histories, Split

pytestmark = [pytest.mark.req("C8"), pytest.mark.req("C9")]

USERS, ITEMS = 160, 24


@pytest.fixture(scope="module")
def split() -> Split:
    """The items 0 to 11 are a ring that is walked by ones, 12 to 23 one that is walked by fives; odd users walk the
    second, and longer. A third of the steps lead anywhere, which a teacher sees through and few labels do not."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(USERS):
        odd = user % 2
        size = (12 if odd else 6) + int(rng.integers(2))
        walk = [12 * odd + int(rng.integers(12))]
        for _ in range(size + 1):
            jump = rng.random() < 0.35
            walk.append(12 * odd + (int(rng.integers(12)) if jump else (walk[-1] - 12 * odd + (5 if odd else 1)) % 12))
        rows.append((walk[:-2], walk[-2:-1], walk[-1:]))
    return split_of(rows, ITEMS)


class Ring:
    """A teacher that knows both rings; of `wrong` it thinks that they go backwards."""

    name, parameters, per_user = "ring", 0, False

    def __init__(self, wrong: str = "nobody") -> None:
        self.wrong, self.digest = wrong, f"ring {wrong}"

    def scores(self, histories: Histories) -> np.ndarray:
        out = np.zeros((len(histories), ITEMS), dtype=np.float32)
        for row, stop in enumerate(histories.offsets[1:]):
            last = int(histories.items[stop - 1])
            odd = last >= 12
            step = (5 if odd else 1) * (-1 if self.wrong == "all" or (self.wrong == "odd" and odd) else 1)
            out[row, 12 * odd + (last - 12 * odd + step) % 12] = 6.0
        return out


SHAPE: dict[str, Any] = {"dim": 12, "layers": 1, "max_length": 8, "dropout": 0.0}
TRAINING: dict[str, Any] = {"epochs": 16, "batch_size": 32, "learning_rate": 2e-2, "negatives": "full"}
HOW: dict[str, Any] = {"metric": "ndcg@5", "seen": "keep"}


@pytest.fixture(scope="module", autouse=True)
def one_thread_in_fixtures() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def stores(split: Split, tmp_path_factory: pytest.TempPathFactory) -> dict[str, KnowledgeStore]:
    return {wrong: extract(Ring(wrong), split, tmp_path_factory.mktemp(wrong), top_k=8)  # type: ignore[arg-type]
            for wrong in ("nobody", "odd", "all")}


@pytest.fixture(scope="module")
def models(split: Split, stores: dict[str, KnowledgeStore]) -> dict[str, Trained]:
    """Without a teacher, and taught by each alone."""
    settings = quick(**TRAINING)
    made = {wrong: train("sasrec", split, SHAPE, settings, losses={"kl": 1.0}, knowledge=store, **HOW)
            for wrong, store in stores.items()}
    return {"plain": train("sasrec", split, SHAPE, settings, **HOW), **made}


# --- groups


def test_groups_are_of_the_train_part_and_hold_everybody_once(split: Split) -> None:
    groups = user_groups(split)
    sizes = split.bounds[:, 1] - split.bounds[:, 0]
    assert list(groups) == ["all", *[f"events {n} of 4" for n in (1, 2, 3, 4)],
                            *[f"popularity {n} of 3" for n in (1, 2, 3)]]
    assert groups["all"].all()
    for label in ("events", "popularity"):
        assert (sum(inside.astype(int) for name, inside in groups.items() if name.startswith(label)) == 1).all()
    tops = [sizes[groups[f"events {n} of 4"]] for n in (1, 2, 3, 4)]
    seen = [part for part in tops if len(part)]
    assert all(one.max() < two.min() for one, two in itertools.pairwise(seen))


def test_groups_do_not_follow_what_happened_after_training(split: Split) -> None:
    items = split.items.copy()
    for _, valid, _, stop in split.bounds:
        items[valid:stop] = 0
    other = Split(split.dataset, split.method, items, split.timestamps, split.weights, split.bounds)
    for name, inside in user_groups(split).items():
        assert np.array_equal(inside, user_groups(other)[name])


def test_popularity_of_a_user_is_the_mean_log_count_of_his_items() -> None:
    split = split_of([([0, 0, 0, 1], [2], [3])] * 3 + [([4, 5], [2], [3])] * 2 + [([], [1], [2])], 6)
    groups = user_groups(split)
    assert groups["all"].tolist() == [True] * 5 + [False]
    assert groups["popularity 1 of 3"].tolist() == [False] * 3 + [True] * 2 + [False]
    assert not any(inside[5] for inside in groups.values())
    assert members(split, ["popularity 1 of 3", "events 1 of 4"]).tolist() == (
        groups["popularity 1 of 3"] | groups["events 1 of 4"]).tolist()
    assert not members(split, []).any()
    assert members(split, ["all", "events 1 of 4"]).tolist() == groups["events 1 of 4"].tolist()
    assert members(split, ["all"]).tolist() == groups["all"].tolist()


# --- who was harmed


def test_equal_models_harm_nobody(split: Split, models: dict[str, Trained]) -> None:
    found = audit(models["plain"], models["plain"], split, "ndcg@5", seen="keep")
    assert found.harmed == []
    assert not found.left_out.any()
    assert all(group.difference == 0 and group.interval == (0, 0) for group in found.groups)


def test_a_good_teacher_harms_nobody(split: Split, models: dict[str, Trained]) -> None:
    found = audit(models["nobody"], models["plain"], split, "ndcg@5", seen="keep")
    assert found.harmed == []
    assert found.facts()["left_out_users"] == 0


def test_harm_to_one_group_is_found_and_to_no_other(split: Split, models: dict[str, Trained]) -> None:
    odd = np.arange(USERS) % 2 == 1
    students = models["odd"], models["plain"]
    users, ours = per_user(students[0].model, split, "ndcg@5", seen="keep")
    theirs = per_user(students[1].model, split, "ndcg@5", seen="keep")[1]
    difference = np.zeros(USERS)
    difference[users] = ours - theirs
    assert difference[odd].mean() < -0.2, "the world is as it was meant to be"
    assert difference[~odd].mean() > -0.05
    found = audit(*students, split, "ndcg@5", seen="keep")
    groups = user_groups(split)
    by_name = {group.name: group for group in found.groups}
    for name, inside in groups.items():
        if not name.startswith("events"):
            continue
        if inside.sum() < 30:
            assert name not in by_name, "too few to prove anything"
            continue
        assert by_name[name].users == inside.sum()
        assert by_name[name].difference == pytest.approx(difference[inside].mean())
        assert by_name[name].harmed == (odd[inside].mean() > 0.9), name
    assert found.left_out[odd].mean() > 0.9
    assert found.left_out[~odd].mean() < 0.5, "even where the mean over all users is low because of some"
    assert found.facts()["left_out_users"] == found.left_out.sum()
    low, high = by_name["all"].interval
    assert (low + high) / 2 == pytest.approx(by_name["all"].difference)


def test_chance_is_not_called_harm(split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    """Differences without a mean, in 300 worlds: a group is called harmed in at most a few of a hundred."""
    rng, model = np.random.default_rng(0), Trained("m", None, "sasrec", {}, "")
    monkeypatch.setattr(audit_module, "per_user",
                        lambda *_, **__: (np.arange(USERS, dtype=np.int32), rng.normal(size=USERS)))
    groups = user_groups(split)
    monkeypatch.setattr(audit_module, "user_groups", lambda split: groups)
    harmed = sum(bool(audit(model, model, split, "ndcg@5").harmed) for _ in range(300))
    assert harmed <= 0.05 * 300


# --- the whole way


def distilled(split: Split, store: KnowledgeStore, folder: Path | None = None, **more: Any) -> Any:
    how = {**SHAPE, **TRAINING, **HOW, "start": "none", "audit": True, "losses": {"cross_entropy": 0.1, "kl": 0.9}}
    return dr.distill("sasrec", split, store, folder=folder, **{**how, **more})


def same(one: Trained, two: Trained) -> bool:
    return one.digest == two.digest


def test_a_nonsense_teacher_is_not_believed_and_the_student_is_its_control(
    split: Split, stores: dict[str, KnowledgeStore], tmp_path: Path
) -> None:
    made = distilled(split, stores["all"], tmp_path)
    said = made.model.training["audit"]
    assert said["believed"] == "nothing"
    assert {group["name"] for group in said["groups"] if group["harmed"]} >= {"all"}
    assert said["left_out_users"] == USERS
    assert same(made.model, made.control)
    assert made.model.name == "student"
    saved = Trained.load(tmp_path / "student", split)
    assert same(saved, made.control)
    assert saved.training["audit"]["believed"] == "nothing"
    again = distilled(split, stores["all"], tmp_path)
    assert same(again.model, made.model)
    assert not (tmp_path / "student-without-harm").exists(), "nobody would be left to be taught"


def test_a_good_teacher_keeps_all_of_its_say(split: Split, stores: dict[str, KnowledgeStore]) -> None:
    made = distilled(split, stores["nobody"])
    assert made.model.training["audit"]["believed"] == "all of it"
    assert made.model.training["audit"]["left_out_users"] == 0
    assert not same(made.model, made.control)
    assert validate(made.model.model, split, "ndcg@5", seen="keep") > validate(
        made.control.model, split, "ndcg@5", seen="keep")


def test_what_harms_some_is_left_out_for_these(
    split: Split, stores: dict[str, KnowledgeStore], tmp_path: Path
) -> None:
    made = distilled(split, stores["odd"], tmp_path)
    said = made.model.training["audit"]
    assert 0 < said["left_out_users"] < USERS
    partly = Trained.load(tmp_path / "student-without-harm", split)
    assert partly.training["trust"]["users_left_out"] == said["left_out_users"]
    values = {"all of it": Trained.load(tmp_path / "student-all", split), "what harms nobody": partly,
              "nothing": made.control}
    assert said["believed"] == max(values, key=lambda name: values[name].training["valid"]["ndcg@5"])
    assert said["believed"] != "all of it"
    assert same(made.model, values[said["believed"]])
    odd = np.arange(USERS) % 2 == 1
    users, ours = per_user(made.model.model, split, "ndcg@5", seen="keep")
    assert ours[odd[users]].mean() > per_user(values["all of it"].model, split, "ndcg@5", seen="keep")[1][
        odd[users]].mean() + 0.1


@pytest.mark.parametrize("believed", ["nothing", "what harms nobody", "all of it"])
def test_trained_once_more_without_validation_what_was_found_on_it_holds(
    believed: str, split: Split, stores: dict[str, KnowledgeStore]
) -> None:
    """Validation was carved from train and is trained on now: there is nobody left to be asked again."""
    first = distilled(split, stores["odd"], epochs=2)
    found = {**first.model.training["audit"], "believed": believed,
             "groups": [{"name": "events 4 of 4", "harmed": True}, {"name": "all", "harmed": False}]}
    chosen = {"student": {**first.model.training, "audit": found}, "control": first.control.training}
    made = distilled(split, stores["odd"], epochs=2, chosen=chosen)
    assert made.model.training["audit"] == found
    assert same(made.model, made.control) == (believed == "nothing")
    if believed == "what harms nobody":
        assert made.model.training["trust"]["users_left_out"] == user_groups(split)["events 4 of 4"].sum()


def test_what_trust_left_out_is_saved_with_the_student(
    split: Split, stores: dict[str, KnowledgeStore], tmp_path: Path
) -> None:
    made = distilled(split, stores["odd"], tmp_path, epochs=1, audit=False, control=False, trust=["agreement"])
    saved = Trained.load(tmp_path / "student", split)
    assert saved.training["trust"] == made.model.training["trust"]
    assert saved.training["trust"]["rules"] == ["agreement"]


def test_an_audit_needs_a_control(split: Split, stores: dict[str, KnowledgeStore]) -> None:
    with pytest.raises(RecipeError, match="without a control"):
        distilled(split, stores["nobody"], control=False)


def test_a_fresh_model_against_itself_trained_is_harm_to_all(split: Split, models: dict[str, Trained]) -> None:
    net = create("sasrec", split, SHAPE, seed=9)[0]
    finish(net, split)
    found = audit(Trained("raw", net, "sasrec", {}, split.digest), models["plain"], split, "ndcg@5", seen="keep")
    assert "all" in found.harmed
    assert found.left_out.all()
