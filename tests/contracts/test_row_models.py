"""What every pointwise model must do; a new row in the table is picked up."""

from __future__ import annotations

import logging
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.nn import functional as F

import rows_world
from distilrec.errors import KnowledgeError, RecipeError
from distilrec.features import encode
from distilrec.models import ROW_MODELS, row_model_class, row_model_settings
from distilrec.models.coupling import couple
from distilrec.models.fields import Inputs, inputs_of
from distilrec.models.predictor import TrainedRows, create_rows, features_read
from distilrec.types_rows import Head, Predictor, RowSplit

SMALL = {"dim": 4, "hidden": [16], "tower": [8], "attention": [8], "experts": 2, "gate": 4, "cross_layers": 2}
ONE = (Head("click"),)


@pytest.fixture(scope="module")
def split() -> RowSplit:
    return rows_world.table(1000)


def small(name: str) -> dict:
    return {key: value for key, value in SMALL.items() if key in row_model_settings(name)}


def made(name: str, split: RowSplit, features: list[str] | None = None, **settings) -> TrainedRows:
    model, full = create_rows(name, split, {**small(name), **settings}, features, seed=1)
    return TrainedRows(name, model, name, full, features_read(split, features), split.heads, split.digest)


def loss_of(model: nn.Module, inputs: Inputs, labels: Tensor, heads: tuple[Head, ...]) -> Tensor:
    scores = couple(model(inputs)["scores"], heads)
    number = torch.tensor([head.kind == "number" for head in heads for _ in head.columns])
    observed, known = ~labels.isnan(), labels.nan_to_num()
    each = torch.where(number, (scores - known).square(), F.binary_cross_entropy_with_logits(
        scores, torch.where(number, torch.zeros(()), known), reduction="none"))
    return each[observed].mean()


def train(trained: TrainedRows, split: RowSplit, steps: int = 60) -> TrainedRows:
    rows = split.rows("train")
    inputs, labels = inputs_of(trained.features, split.columns, rows), torch.tensor(split.label_matrix(rows))
    optimizer = torch.optim.Adam(trained.model.parameters(), lr=0.02)
    trained.model.train()
    for _ in range(steps):
        optimizer.zero_grad()
        loss_of(trained.model, inputs, labels, split.heads).backward()
        optimizer.step()
    return trained


@pytest.fixture(scope="module")
def world(split: RowSplit) -> dict[str, TrainedRows]:
    return {name: train(made(name, split), split) for name in ROW_MODELS}


each_model = pytest.mark.parametrize("name", ROW_MODELS)


@each_model
def test_it_learns_the_made_table(name: str, split: RowSplit, world: dict[str, TrainedRows]) -> None:
    rows = split.rows("test")
    predicted, labels = world[name].predict(split, rows), split.label_matrix(rows)
    assert isinstance(world[name], Predictor)
    assert predicted.dtype == np.float32 and predicted.shape == (len(rows), 5)
    assert np.isfinite(predicted).all()
    assert roc_auc_score(labels[:, 0], predicted[:, 0]) > 0.65
    assert roc_auc_score(labels[:, 3], predicted[:, 3]) > 0.9
    assert (predicted[:, 1] <= predicted[:, 0]).all()  # a purchase is never likelier than the click before it
    rated = ~np.isnan(labels[:, 2])
    assert np.sqrt(np.mean((predicted[rated, 2] - labels[rated, 2]) ** 2)) < 0.8


@each_model
def test_batch_single_row_and_order_agree(name: str, split: RowSplit, world: dict[str, TrainedRows]) -> None:
    rows = np.arange(30)
    together = world[name].predict(split, rows)
    single = np.concatenate([world[name].predict(split, rows[i : i + 1]) for i in rows])
    np.testing.assert_allclose(together, single, atol=1e-5)
    np.testing.assert_allclose(world[name].predict(split, rows[::-1])[::-1], together, atol=1e-5)
    assert world[name].predict(split, rows[:0]).shape == (0, 5)


@each_model
def test_unknown_and_missing_values_give_finite_scores(
    name: str, split: RowSplit, world: dict[str, TrainedRows],
) -> None:
    raw = {"user": [None, "stranger"], "item": ["odd", None], "price": [None, 1e9], "colors": [[], ["mauve"]],
           "past": [None, []], "title": ["", "never seen"], "picture": [None, [0.0, 0.0, 0.0]]}
    columns = {one: encode(feature, [raw[one]]) for one, feature in split.features.items()}
    model = world[name].model.eval()
    answers = model(inputs_of(world[name].features, columns))
    assert all(torch.isfinite(one).all() for one in answers.values())


@each_model
def test_save_and_load_are_exact(
    name: str, split: RowSplit, world: dict[str, TrainedRows], tmp_path: Path,
) -> None:
    trained = replace(world[name], shift=np.array([0.1, 0, -0.2, 0, 1], np.float32), training={"steps": 60})
    trained.save(tmp_path / "model")
    back = TrainedRows.load(tmp_path / "model", split)
    assert np.array_equal(back.predict(split, np.arange(50)), trained.predict(split, np.arange(50)))
    np.testing.assert_allclose(
        trained.predict(split, np.arange(5)) - world[name].predict(split, np.arange(5)), [trained.shift] * 5, atol=1e-6)
    assert (back.digest, back.settings, back.features, back.heads) == (
        trained.digest, trained.settings, trained.features, trained.heads)
    assert trained.digest != world[name].digest
    with pytest.raises(KnowledgeError, match="another table"):
        TrainedRows.load(tmp_path / "model", rows_world.table(100))


@each_model
def test_parameters_hidden_and_gradients(name: str, split: RowSplit) -> None:
    trained = made(name, split)
    unread = sum(getattr(part, "unread", 0) for part in trained.model.modules())
    assert trained.parameters == sum(one.numel() for one in trained.model.parameters()) - unread
    assert (unread > 0) == (name == "finalmlp")
    assert trained.model.output_bias.shape == (5,)
    inputs = inputs_of(trained.features, split.columns, np.arange(64))
    loss_of(trained.model, inputs, torch.tensor(split.label_matrix(np.arange(64))), split.heads).backward()
    for which, one in trained.model.named_parameters():
        assert one.grad is not None and torch.isfinite(one.grad).all(), which
    if name == "logistic":
        with pytest.raises(RecipeError, match="no hidden layer"):
            trained.hidden(split, np.arange(3))
    else:
        hidden = trained.hidden(split, np.arange(7))
        assert hidden.ndim == 2 and len(hidden) == 7 and hidden.dtype == np.float32


@each_model
def test_one_head_some_features_every_regularizer(name: str) -> None:
    split = rows_world.table(300, heads=ONE)
    regular = {"dropout": 0.3, "embedding_dropout": 0.2, "batch_norm": True}
    settings = {key: value for key, value in regular.items() if key in row_model_settings(name)}
    trained = train(made(name, split, ["past", "item", "user"], **settings), split, steps=3)
    assert [one.name for one in trained.features] == ["user", "item", "past"]
    first = trained.predict(split, np.arange(40))
    assert first.shape == (40, 1) and np.isfinite(first).all()
    assert np.array_equal(first, trained.predict(split, np.arange(40)))  # dropout is off


@each_model
def test_a_start_is_drawn_from_its_seed(name: str, split: RowSplit) -> None:
    assert made(name, split).digest == made(name, split).digest
    other, _ = create_rows(name, split, small(name), seed=2)
    first = made(name, split).model.state_dict()
    assert name == "logistic" or not all(torch.equal(one, first[key]) for key, one in other.state_dict().items())


class Flat(nn.Module):
    """The model as a function of plain tensors."""

    def __init__(self, trained: TrainedRows) -> None:
        super().__init__()
        self.model, self.features, self.heads = trained.model.eval(), trained.features, trained.heads

    def forward(self, *tensors: Tensor) -> Tensor:
        return couple(self.model(Inputs.of_flat(self.features, tensors))["scores"], self.heads)


def same_graph(trained: TrainedRows, split: RowSplit) -> None:
    """Every number is moved off its start, then the graph must answer as torch does."""
    with torch.no_grad():
        for one in trained.model.parameters():
            one.add_(0.1 * torch.randn_like(one))
    example = inputs_of(trained.features, split.columns, np.arange(3)).flat()
    kinds = [one.dtype == torch.int64 and place > 0 for place, one in enumerate(example)]  # the lists
    batch = torch.export.Dim("B")
    shapes = [{0: batch, 1: torch.export.Dim(f"L{i}")} if ragged else {0: batch} for i, ragged in enumerate(kinds)]
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        program = torch.onnx.export(Flat(trained), example, dynamo=True, dynamic_shapes=(tuple(shapes),), verbose=False)
    session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
    names = [one.name for one in session.get_inputs()]
    for rows in (np.arange(1), np.arange(200), np.flatnonzero((split.columns["past"] >= 0).sum(1) == 0)[:2]):
        tensors = inputs_of(trained.features, split.columns, rows).flat()
        answer = session.run(None, {key: one.numpy() for key, one in zip(names, tensors, strict=True)})[0]
        np.testing.assert_allclose(answer, trained.predict(split, rows), atol=1e-5, rtol=1e-5)


@each_model
def test_its_graph_answers_any_batch_and_length(name: str) -> None:
    split = rows_world.table(200, heads=rows_world.HEADS[::3])
    same_graph(made(name, split, ["user", "item", "price", "past"]), split)


def test_a_graph_of_every_kind_of_feature_and_coupled_heads(split: RowSplit) -> None:
    same_graph(made("deepfm", split), split)


def test_names_and_settings_that_do_not_exist(split: RowSplit) -> None:
    with pytest.raises(RecipeError, match="did you mean 'deepfm'"):
        row_model_class("deepfn")
    with pytest.raises(RecipeError, match="no setting 'hiden', did you mean 'hidden'"):
        create_rows("mlp", split, {"hiden": [3]})
    with pytest.raises(RecipeError, match="hidden = '128'"):
        create_rows("mlp", split, {"hidden": "128"})
    with pytest.raises(RecipeError, match="dim = True"):
        create_rows("fm", split, {"dim": True})
    with pytest.raises(RecipeError, match="did you mean 'colors'"):
        create_rows("fm", split, {}, features=["color"])


@pytest.mark.parametrize(("name", "settings", "features", "message"), [
    ("din", {}, ["item", "price"], "without a history"),
    ("din", {"attention": []}, None, "without hidden layer"),
    ("biased_mf", {}, ["user", "price"], "to be the item"),
    ("biased_mf", {"user": "usr"}, None, "did you mean 'user'"),
    ("biased_mf", {"user": "item", "item": "item"}, None, "both user and item"),
    ("biased_mf", {"history": "user"}, None, "history 'user'"),
    ("finalmlp", {"hidden": [10], "fusion": 3}, None, "divides both"),
    ("finalmlp", {"context": ["itm"]}, None, "did you mean 'item'"),
    ("dcnv2", {"rank": 0}, None, "rank 0"),
    ("dcnv2", {"hidden": []}, None, "stacked"),
    ("mmoe", {"experts": 0}, None, "0 experts"),
    ("ple", {"shared": 0}, None, "0 shared experts"),
    ("mlp", {"dropout": 1.0}, None, "dropout 1.0"),
    ("mlp", {"hidden": [0]}, None, "widths"),
    ("fm", {"dim": 0}, None, "dim"),
    ("mlp", {"dim": 0}, None, "width 0"),
])
def test_wrong_combinations_are_refused(
    split: RowSplit, name: str, settings: dict, features: list[str] | None, message: str,
) -> None:
    with pytest.raises(RecipeError, match=message):
        create_rows(name, split, settings, features)
