"""One call from settings to a trained pointwise model: build, start, fit, calibrate, save."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from distilrec.files import digest_json
from distilrec.models.predictor import TrainedRows, create_rows, features_read
from distilrec.training.checkpoint import finished_as
from distilrec.training.row_finish import calibration
from distilrec.training.row_fit import default_losses, fit_rows
from distilrec.training.settings import TrainSettings
from distilrec.types import Knowledge
from distilrec.types_rows import RowSplit

__all__ = ["train_rows"]


def train_rows(
    architecture: str, split: RowSplit, model: Mapping[str, Any], settings: TrainSettings, *, name: str = "",
    features: Sequence[str] | None = None, losses: Mapping[str, float] | None = None,
    knowledge: Knowledge | None = None, metric: str, auxiliary: bool = False,
    importance: Mapping[str, float] | None = None, folder: Path | None = None, min_steps: int = 0,
) -> TrainedRows:
    """Train one model and return it with its best weights, calibrated on validation.

    Args:
        architecture: a name of models.ROW_MODELS; `model` its constructor settings.
        features: names of the features it may read; all by default.
        auxiliary: the teacher speaks to an auxiliary head that is thrown away.
        importance: feature -> share; the first vectors of a feature are scaled with the root of its share, so that
            training starts from what a teacher found useful.
        folder: where to save it. A finished model of the same data, settings and knowledge found there is loaded,
            an unfinished one goes on from its checkpoint.
    """
    losses = dict(losses or default_losses(split.heads))
    identity = digest_json([
        architecture, dict(model), settings.model_dump(mode="json", exclude={"device"}), losses, metric, min_steps,
        split.digest, getattr(knowledge, "digest", None), None if features is None else list(features), auxiliary,
        None if importance is None else dict(importance),
    ])
    if folder is not None and finished_as(folder, identity):
        return TrainedRows.load(folder, split, device=settings.device)
    net, constructor = create_rows(architecture, split, dict(model), features=features, seed=settings.seed)
    read = features_read(split, features)
    _start(net, split)
    if importance is not None:
        net.table.scale_fields({one.name: importance.get(one.name, 0.0) for one in read})  # type: ignore[operator, union-attr]
    done = fit_rows(net, split, read, settings, losses=losses, knowledge=knowledge, metric=metric,
                    auxiliary=auxiliary, folder=folder, min_steps=min_steps, what=f"training {name or architecture}",
                    origin=identity)
    trained = TrainedRows(
        name or architecture, net, architecture, constructor, read, split.heads, split.digest,
        {"identity": identity, "seconds": done.seconds, "cpu_seconds": done.cpu_seconds, "steps": done.steps,
         "epochs": done.epochs, "best_epoch": done.best_epoch, "valid": {metric: done.best}, "curve": done.curve,
         "losses": losses, "auxiliary": auxiliary, "settings": settings.model_dump(mode="json")},
        settings.device,
    )
    valid = split.rows("valid")
    trained.scale, trained.shift = calibration(
        split.outputs, trained.predict(split, valid), split.label_matrix(valid), settings.calibrate,
        None if split.weights is None else split.weights[valid],
    )
    if folder is not None:
        trained.save(folder)
    return trained


@torch.no_grad()
def _start(net: nn.Module, split: RowSplit) -> None:
    """Begin at the base rates: from one half, the first steps would only learn how rare a click is."""
    rows = split.rows("train")
    labels = split.label_matrix(rows).astype(np.float64)
    share = (~np.isnan(labels)).astype(np.float64)
    if split.weights is not None:
        share *= split.weights[rows][:, None]
    means = (np.nan_to_num(labels) * share).sum(0) / np.maximum(share.sum(0), 1e-9)
    start = means.copy()
    for head in split.heads:
        where = split.outputs.slices[head.name]
        if head.kind == "number":
            continue
        rate = means[where]
        if head.after is not None:  # the head's own logit is that of happening once the other has
            rate = rate / np.maximum(means[split.outputs.slices[head.after]], 1e-6)
        rate = np.clip(rate, 1e-4, 1 - 1e-4)
        start[where] = np.log(rate / (1 - rate))
    net.output_bias.copy_(torch.as_tensor(start, dtype=torch.float32))  # type: ignore[operator, union-attr]
