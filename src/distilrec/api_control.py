"""The control of a student on events: the same model on the labels alone, with no less training. See decision 0002."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from distilrec.api_generations import best_of, keep
from distilrec.api_shared import at_least, divide
from distilrec.models import model_settings
from distilrec.models.trained import Trained
from distilrec.recipe_checks import MEMBER_STEP
from distilrec.recipe_rank import CONTENT_KEPT
from distilrec.training.settings import TrainSettings
from distilrec.training.train import train
from distilrec.types import Split

__all__ = ["control_settings_of", "train_control"]


def control_settings_of(
    name: str, split: Split, settings: Mapping[str, Any], student_settings: Mapping[str, Any],
    control_settings: Mapping[str, Any], *, steps: int, seed: int,
) -> tuple[dict[str, Any], TrainSettings]:
    """(of the model, of training): the student's shape and its common settings, with epochs for `steps` steps."""
    known = model_settings(name)
    shape = {k: v for k, v in student_settings.items() if k in known and k != "dropout"}
    own, training = divide(name, {**settings, **shape, **control_settings}, known, seed=seed)
    # no companion for who learns from nobody
    return own, at_least(training, steps, split, own, name).model_copy(update={"teacher": "store"})


def train_control(
    role: str, name: str, split: Split, model: Mapping[str, Any], training: TrainSettings, *, count: int, steps: int,
    vectors: np.ndarray | None, losses: Mapping[str, float], metric: str, seen: str, target: Path | None,
    chosen: Mapping[str, Any] | None,
) -> Trained:
    """The best on validation of `count` controls from as many seeds, each of at least `steps` steps.

    Args:
        role: its name and its folder in `target`; of several, each has a folder ROLE-NUMBER beside it.
        count: as many as there were generations of students: who may choose more often is better by chance alone.
        vectors: float32 [I, C] of item content, which the model keeps or starts from.
    """
    keeps = model.get("content_use") in CONTENT_KEPT
    made = []
    for number in range(count):
        place = role if count == 1 else f"{role}-{number}"
        made.append(train(
            name, split, model, training.model_copy(update={"seed": training.seed + MEMBER_STEP * number}), name=role,
            content=vectors if keeps else None, start=None if keeps else vectors, losses=losses, metric=metric,
            seen=seen, min_steps=steps, folder=target / place if target else None, chosen=chosen,
        ))
    control = best_of(made, metric)
    if count > 1:
        keep(control, split, target, role)
    return control
