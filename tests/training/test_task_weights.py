"""Heads that are balanced by their gradients: really so, for every model that can be."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import rows_world
from distilrec.errors import RecipeError
from distilrec.models import ROW_MODELS
from distilrec.models.fields import inputs_of
from distilrec.models.predictor import create_rows
from distilrec.training.row_objective import Learner, row_objective, variances_of
from distilrec.training.settings import TrainSettings
from distilrec.types_rows import Head

HEADS = (Head("click"), Head("buy", after="click"), Head("rating", "number"))
LOSSES = {"binary_cross_entropy": 1.0, "squared_error": 1.0}
SMALL = {"dim": 4, "hidden": [8], "tower": [4], "experts": 2, "attention": [4], "cross_layers": 1, "fusion": 2}
FLAT = ("logistic",)  # no layer that heads share


def step(name: str, how: str, labels_of: tuple[str, ...] = ("click", "buy", "rating")) -> tuple[Learner, torch.Tensor]:
    split = rows_world.table(200, heads=HEADS)
    known = create_rows(name, split, {})[1]
    net, _ = create_rows(name, split, {key: value for key, value in SMALL.items() if key in known}, seed=3)
    learner = Learner(net, split.outputs, variances_of(split))
    rows = split.rows("train")
    labels = split.label_matrix(rows).copy()
    for head, place in split.outputs.slices.items():
        if head not in labels_of:
            labels[:, place] = np.nan
    inputs = inputs_of(tuple(split.features.values()), split.columns, rows)
    loss = row_objective(learner, inputs, torch.as_tensor(labels), None, LOSSES, TrainSettings(task_weights=how), {})
    return learner, loss


@pytest.mark.parametrize("name", [one for one in ROW_MODELS if one not in FLAT])
def test_every_head_has_a_gradient_at_the_shared_layer(name: str) -> None:
    learner, loss = step(name, "gradient")
    assert (learner.norms > 0).all()
    assert len(set(learner.norms.tolist())) == 3
    assert loss.item() != pytest.approx(step(name, "equal")[1].item())
    loss.backward()


@pytest.mark.parametrize("name", FLAT)
def test_a_model_without_one_is_refused_not_trained_otherwise(name: str) -> None:
    with pytest.raises(RecipeError, match="uncertainty"):
        step(name, "gradient")


def test_a_head_without_labels_does_not_take_the_step_from_the_others() -> None:
    _, loss = step("shared_bottom", "gradient", ("click", "buy"))
    _, alone = step("shared_bottom", "equal", ("click", "buy"))
    assert 0.5 * alone.item() < loss.item() < 2 * alone.item()
