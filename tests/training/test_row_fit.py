"""Rows through the one loop: every loss learns, gaps cost nothing, a kill changes nothing, refusals come first."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import rows_world
from distilrec.errors import KnowledgeError, RecipeError, TrainingError
from distilrec.knowledge.extract_rows import extract_rows
from distilrec.knowledge.store import KnowledgeStore
from distilrec.models.predictor import TrainedRows
from distilrec.training import loop
from distilrec.training.row_objective import variances_of
from distilrec.training.row_train import train_rows
from distilrec.training.row_validate import row_metric
from distilrec.training.settings import TrainSettings
from distilrec.types_rows import Head, RowSplit

pytestmark = pytest.mark.req("A4")

CLICK = (Head("click"),)
MODEL = {"dim": 4, "hidden": [16]}


def quick(**changes: Any) -> TrainSettings:
    return TrainSettings(**{"epochs": 6, "batch_size": 64, "learning_rate": 0.02, "patience": 6, **changes})


@pytest.fixture(scope="module")
def split() -> RowSplit:
    return rows_world.table(1500)


@pytest.fixture(scope="module")
def clicks() -> RowSplit:
    return rows_world.table(1500, heads=CLICK)


@pytest.fixture(scope="module")
def teacher(clicks: RowSplit) -> TrainedRows:
    return train_rows("mlp", clicks, {"dim": 8, "hidden": [32, 24]}, quick(epochs=15), metric="auc")


@pytest.fixture(scope="module")
def store(clicks: RowSplit, teacher: TrainedRows, tmp_path_factory: pytest.TempPathFactory) -> KnowledgeStore:
    return extract_rows(teacher, clicks, tmp_path_factory.mktemp("store") / "s", hidden=True)


def auc(model: TrainedRows, split: RowSplit) -> float:
    rows = split.rows("test")
    return row_metric("auc", split.outputs, model.predict(split, rows), split.label_matrix(rows))


def test_every_head_is_learned_at_once(split: RowSplit) -> None:
    model = train_rows("shared_bottom", split, {"dim": 8}, quick(epochs=20), metric="click.auc")
    rows = split.rows("test")
    predictions, labels = model.predict(split, rows), split.label_matrix(rows)
    for metric, least in (("click.auc", 0.66), ("buy.auc", 0.56), ("tags.auc", 0.95)):
        assert row_metric(metric, split.outputs, predictions, labels) > least
    assert row_metric("rating.rmse", split.outputs, predictions, labels) < 0.7 * float(np.nanstd(labels[:, 2]))


@pytest.mark.req("C10")
@pytest.mark.parametrize("how", ["uncertainty", "gradient"])
def test_heads_can_be_balanced(split: RowSplit, how: str) -> None:
    model = train_rows("mmoe", split, {"dim": 4}, quick(epochs=10, task_weights=how), metric="click.auc")
    assert model.training["valid"]["click.auc"] > 0.65
    assert model.training["curve"][-1]["loss"] < model.training["curve"][0]["loss"]


@pytest.mark.req("C1")
@pytest.mark.parametrize("losses", [
    {"bernoulli_kl": 1.0}, {"output_squared_error": 1.0}, {"binary_cross_entropy": 0.5, "bernoulli_kl": 0.5},
    {"binary_cross_entropy": 0.5, "hint": 0.1},
])
def test_a_student_learns_from_its_teacher(
    clicks: RowSplit, teacher: TrainedRows, store: KnowledgeStore, losses: dict[str, float]
) -> None:
    student = train_rows("mlp", clicks, MODEL, quick(epochs=12), losses=losses, knowledge=store, metric="auc")
    assert auc(student, clicks) > 0.7
    if "binary_cross_entropy" not in losses:  # without labels it can only have it from the teacher
        rows = clicks.rows("test")
        told = np.corrcoef(student.predict(clicks, rows)[:, 0], teacher.predict(clicks, rows)[:, 0])[0, 1]
        assert told > 0.9


def test_soft_labels_alone_never_read_a_label(clicks: RowSplit, store: KnowledgeStore) -> None:
    blind = replace(clicks, labels={"click": np.where(clicks.parts[:, None] == 0, 1 - clicks.labels["click"],
                                                      clicks.labels["click"])})
    seen = train_rows("mlp", clicks, MODEL, quick(), losses={"bernoulli_kl": 1.0}, knowledge=store, metric="auc")
    net = train_rows("mlp", replace(blind, features=clicks.features), MODEL, quick(), losses={"bernoulli_kl": 1.0},
                     knowledge=store, metric="auc")
    # the start is at the base rate of the labels, and that is all they may change
    rows = clicks.rows("test")
    assert np.corrcoef(seen.predict(clicks, rows)[:, 0], net.predict(blind, rows)[:, 0])[0, 1] > 0.97


def test_an_auxiliary_head_is_taught_and_thrown_away(clicks: RowSplit, store: KnowledgeStore) -> None:
    student = train_rows("mlp", clicks, MODEL, quick(epochs=12), knowledge=store, metric="auc", auxiliary=True,
                         losses={"binary_cross_entropy": 1.0, "bernoulli_kl": 1.0})
    plain = train_rows("mlp", clicks, MODEL, quick(epochs=12), metric="auc")
    assert student.parameters == plain.parameters
    assert auc(student, clicks) > 0.7


def test_rows_without_a_label_cost_nothing(clicks: RowSplit) -> None:
    labels = clicks.labels["click"].copy()
    hidden = clicks.rows("train")[::2]
    labels[hidden] = np.nan
    gaps = replace(clicks, labels={"click": labels})
    parts = clicks.parts.copy()
    parts[hidden] = -1
    fewer = replace(clicks, parts=parts)
    one = train_rows("logistic", gaps, {}, quick(batch_size=5000, optimizer="sgd"), metric="auc")
    two = train_rows("logistic", fewer, {}, quick(batch_size=5000, optimizer="sgd"), metric="auc")
    rows = clicks.rows("test")
    np.testing.assert_allclose(one.predict(gaps, rows), two.predict(fewer, rows), atol=1e-5)


def test_weights_count_rows(clicks: RowSplit) -> None:
    train = clicks.rows("train")
    weights = np.ones(len(clicks), np.float32)
    weights[train[::2]] = 0.0
    parts = clicks.parts.copy()
    parts[train[::2]] = -1
    settings = quick(batch_size=5000, optimizer="sgd", calibrate="none")
    one = train_rows("logistic", replace(clicks, weights=weights), {}, settings, metric="auc")
    two = train_rows("logistic", replace(clicks, parts=parts), {}, settings, metric="auc")
    rows = clicks.rows("test")
    np.testing.assert_allclose(one.predict(clicks, rows), two.predict(clicks, rows), atol=1e-5)


def test_ratings_in_seconds_do_not_drown_clicks(split: RowSplit) -> None:
    labels = {**split.labels, "rating": split.labels["rating"] * 1000}
    large = replace(split, labels=labels)
    assert variances_of(large)[2] == pytest.approx(variances_of(split)[2] * 1e6, rel=1e-4)
    model = train_rows("shared_bottom", large, {"dim": 8}, quick(epochs=15), metric="click.auc")
    rows = split.rows("test")
    assert row_metric("click.auc", split.outputs, model.predict(large, rows), split.label_matrix(rows)) > 0.66


def test_training_starts_at_the_base_rates(split: RowSplit) -> None:
    model = train_rows("mlp", split, MODEL, quick(epochs=1, learning_rate=1e-9, calibrate="none"), metric="click.auc")
    rows = split.rows("train")
    mean = 1 / (1 + np.exp(-model.predict(split, rows)[:, :2]))
    np.testing.assert_allclose(mean.mean(0), split.label_matrix(rows)[:, :2].mean(0), atol=0.03)


def test_a_stopped_run_goes_on_to_the_same_weights(split: RowSplit, tmp_path: Path) -> None:
    settings = quick(epochs=5, task_weights="gradient")
    whole = train_rows("mmoe", split, {"dim": 4, "dropout": 0.2}, settings, metric="click.auc")
    original, calls = loop.epoch, []

    def stops(*args: Any) -> float:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return original(*args)

    loop.epoch = stops
    try:
        with pytest.raises(KeyboardInterrupt):
            train_rows("mmoe", split, {"dim": 4, "dropout": 0.2}, settings, metric="click.auc", folder=tmp_path / "m")
    finally:
        loop.epoch = original
    resumed = train_rows("mmoe", split, {"dim": 4, "dropout": 0.2}, settings, metric="click.auc", folder=tmp_path / "m")
    assert resumed.digest == whole.digest
    again = train_rows("mmoe", split, {"dim": 4, "dropout": 0.2}, settings, metric="click.auc", folder=tmp_path / "m")
    assert again.digest == whole.digest
    assert again.training["seconds"] == resumed.training["seconds"]  # it was read, not trained again


def test_what_cannot_be_trained_is_refused_first(clicks: RowSplit, split: RowSplit, store: KnowledgeStore) -> None:
    with pytest.raises(RecipeError, match="did you mean 'bernoulli_kl'"):
        train_rows("mlp", clicks, MODEL, quick(), losses={"bernouli_kl": 1.0}, knowledge=store, metric="auc")
    with pytest.raises(KnowledgeError, match="needs the teacher's 'response'"):
        train_rows("mlp", clicks, MODEL, quick(), losses={"bernoulli_kl": 1.0}, metric="auc")
    with pytest.raises(RecipeError, match="no loss teaches the head 'rating'"):
        train_rows("mlp", split, MODEL, quick(), losses={"binary_cross_entropy": 1.0}, metric="click.auc")
    with pytest.raises(RecipeError, match="no head to teach"):
        train_rows("mlp", clicks, MODEL, quick(), losses={"squared_error": 1.0}, metric="auc")
    with pytest.raises(RecipeError, match="no hidden layer"):
        train_rows("logistic", clicks, {}, quick(), losses={"binary_cross_entropy": 1.0, "hint": 1.0}, knowledge=store,
                   metric="auc")
    with pytest.raises(KnowledgeError, match="another"):
        KnowledgeStore(store.folder, rows_world.table(1500, seed=5, heads=CLICK))


def test_nan_stops_with_a_message(clicks: RowSplit) -> None:
    with pytest.raises(TrainingError, match="lower learning_rate"):
        train_rows("mlp", clicks, MODEL, quick(optimizer="sgd", learning_rate=1e30, epochs=20), metric="log_loss")


def test_importance_scales_the_first_vectors(clicks: RowSplit) -> None:
    torch.manual_seed(0)
    plain = train_rows("mlp", clicks, MODEL, quick(epochs=1, learning_rate=1e-12), metric="auc")
    scaled = train_rows("mlp", clicks, MODEL, quick(epochs=1, learning_rate=1e-12), metric="auc",
                        importance={"item": 0.9, "price": 0.1})
    ratio = [scaled.model.table.number_weight[0].norm() / plain.model.table.number_weight[0].norm()]
    start = plain.model.table.starts["item"]
    ratio.append(scaled.model.table.weight[start + 1].norm() / plain.model.table.weight[start + 1].norm())
    assert [float(one.detach()) for one in ratio] == pytest.approx([(0.1 * 7) ** 0.5, (0.9 * 7) ** 0.5], rel=1e-4)


def test_no_batch_is_of_one_row(clicks: RowSplit) -> None:
    size = clicks.n_rows("train") - 1
    trained = train_rows("mlp", clicks, {**MODEL, "batch_norm": True}, quick(epochs=1, batch_size=size), metric="auc")
    assert trained.training["steps"] == 2


def test_a_store_is_of_all_that_were_asked(clicks: RowSplit, teacher: TrainedRows, tmp_path: Path) -> None:
    other = train_rows("mlp", clicks, MODEL, quick(epochs=1), metric="auc")
    digests = set()
    for one in (teacher, other):  # the extra rows are answered by the teacher itself
        store = extract_rows(one, clicks, tmp_path / "s", held_out=other, extra=0.1, swap=["item"])
        digests.add(store.manifest["identity"]["teacher_digest"])
    assert len(digests) == 2


@pytest.mark.parametrize("given", [{"balance": "soft-then-hard"}, {"negatives": 5}, {"weighting": ["consistency"]}])
def test_settings_of_ranking_are_refused(clicks: RowSplit, given: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match="for a model of rows"):
        train_rows("mlp", clicks, MODEL, quick(**given), metric="auc")


@pytest.mark.parametrize("how", ["none", "shift", "affine"])
def test_a_sample_with_weights_is_answered_as_the_whole_that_it_stands_for(how: str, clicks: RowSplit) -> None:
    """Negatives count nine times: a base rate of one half becomes one of one tenth, calibrated or not."""
    labels = clicks.labels["click"][:, 0]
    weighted = replace(clicks, weights=np.where(labels == 1, 1, 9).astype(np.float32))
    model = train_rows("logistic", weighted, {}, quick(calibrate=how), metric="log_loss")
    for part in ("valid", "test"):
        rows = weighted.rows(part)
        p = 1 / (1 + np.exp(-model.predict(weighted, rows)[:, 0].astype(np.float64)))
        rate = np.average(labels[rows], weights=weighted.weights[rows])
        assert rate < 0.15 and labels[rows].mean() > 0.4
        exact = part == "valid" and how == "shift"
        assert np.average(p, weights=weighted.weights[rows]) == pytest.approx(rate, abs=1e-5 if exact else 0.05)
