"""One call from settings to a trained model: build, start, fit, finish, save. Teachers, students and controls alike."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from distilrec.files import digest_arrays, digest_json
from distilrec.losses import SOFT
from distilrec.models import model_class
from distilrec.models.trained import Trained, create
from distilrec.training.checkpoint import finished_as
from distilrec.training.finish import finish
from distilrec.training.fit import fit, read_by
from distilrec.training.settings import TrainSettings
from distilrec.training.transfer import copy_layers
from distilrec.types import Knowledge, Split

__all__ = ["train"]


def train(
    architecture: str, split: Split, model: Mapping[str, Any], settings: TrainSettings, *, name: str = "",
    content: np.ndarray | None = None, start: np.ndarray | None = None, layers_from: Trained | None = None,
    losses: Mapping[str, float] | None = None, knowledge: Knowledge | None = None, metric: str = "ndcg@10",
    seen: str = "drop", folder: Path | None = None, min_steps: int = 0, chosen: Mapping[str, Any] | None = None,
) -> Trained:
    """Train one model and return it with its best weights.

    Args:
        architecture: a name of models.MODELS; `model` its constructor settings.
        content: float32 [I, C] item content; what the model does with it is its setting `content_use`.
        start: float32 [I, C] vectors whose principal components start the item table (parameter transfer).
        layers_from: a trained model of equal inner width whose blocks start this one's.
        folder: where to save it. A finished model of the same data, settings and knowledge found there is loaded,
            an unfinished one goes on from its checkpoint.
        chosen: what training recorded (`Trained.training`) of the same model on a part of this train part: train as
            many epochs of the same schedule as validated best there, and look at no validation part.
    """
    read_by(model_class(architecture), knowledge, split)  # before anybody asks for digest or facts
    if chosen is not None:  # the schedule of then, whose length a control may have raised
        settings = settings.model_copy(update={"epochs": int(chosen["settings"]["epochs"])})
    if not any(name in SOFT for name in losses or ()):
        knowledge = None  # nobody would read it, and what learns from labels alone is the same beside any teacher
    identity = digest_json([
        architecture, dict(model), settings.model_dump(mode="json", exclude={"device"}), dict(losses or {}),
        metric, seen, min_steps, None if chosen is None else [chosen["identity"], chosen["best_epoch"]],
        split.digest, getattr(knowledge, "digest", None),
        [None if array is None else digest_arrays(np.ascontiguousarray(array)) for array in (content, start)],
        None if layers_from is None else layers_from.training.get("identity"),
    ])
    if folder is not None and finished_as(folder, identity):
        found = Trained.load(folder, split, device=settings.device)
        found.content = content
        return found
    net, constructor = create(architecture, split, dict(model), content=content, seed=settings.seed)
    if start is not None:
        net.table.set_vectors(start)  # type: ignore[operator, union-attr]
    if layers_from is not None:
        copy_layers(layers_from.model, net)
    peer = None
    if settings.teacher == "peer":  # the same model, from another draw
        peer, _ = create(architecture, split, dict(model), content=content, seed=settings.seed + 1000)
        if start is not None:
            peer.table.set_vectors(start)  # type: ignore[operator, union-attr]
    done = fit(net, split, settings, peer=peer, losses=losses, knowledge=knowledge, metric=metric, seen=seen,
               folder=folder, min_steps=min_steps, what=f"training {name or architecture}", origin=identity,
               stop_at=None if chosen is None else int(chosen["best_epoch"]))
    finish(net, split)
    record = {
        "identity": identity, "seconds": done.seconds, "cpu_seconds": done.cpu_seconds, "steps": done.steps,
        "epochs": done.epochs, "best_epoch": done.best_epoch, "valid": {metric: done.best}, "curve": done.curve,
        "losses": dict(losses or {"cross_entropy": 1.0}), "settings": settings.model_dump(mode="json"),
    }
    if chosen is not None:
        record |= {key: chosen[key] for key in ("valid", "curve", "best_epoch")}
        record |= {key: chosen[key] + record[key] for key in ("seconds", "cpu_seconds")}
        record["refit"] = True
    trained = Trained(name or architecture, net, architecture, constructor, split.digest, record, settings.device,
                      content)
    if folder is not None:
        trained.save(folder)
    return trained
