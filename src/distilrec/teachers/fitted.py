"""Models that are fitted in one pass, as teachers."""

from __future__ import annotations

import inspect
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distilrec.errors import RecipeError, nearest, problem
from distilrec.files import digest_json
from distilrec.models import fitted_settings, model_class
from distilrec.models.fitted import Fitted
from distilrec.training.checkpoint import finished_as
from distilrec.training.validate import validate_ranker
from distilrec.types import Split

__all__ = ["fit_teacher"]


def fit_teacher(
    name: str, split: Split, settings: Mapping[str, Any], *, seed: int = 0, folder: Path | None = None,
    metric: str = "ndcg@10", seen: str = "drop", chosen: Mapping[str, Any] | None = None,
) -> Fitted:
    """Fit one of models.BASELINES to the train part and measure it on the validation part.

    Args:
        settings: of its `fit`, and `temperature`, what its scores are divided by (see models.fitted).
        folder: where to save it; one of the same data, settings and seed found there is loaded.
        chosen: `training` of the same model fitted to a part of this train part, whose validation is kept.
    Raises:
        RecipeError: a setting that it does not have; TrainingError: one of a value that it cannot have.
    """
    known = fitted_settings(name)
    for one in settings:
        if one not in known:
            raise RecipeError(problem(f"{name} has no setting {one!r}{nearest(one, known)}",
                                      f"{', '.join(known)}; it is fitted in one pass and has no training settings"))
    temperature = settings.get("temperature", 1.0)
    if not temperature > 0:
        raise RecipeError(problem(f"temperature {temperature}", "a number above 0"))
    cls = model_class(name)
    seeded = {"seed": seed} if "seed" in inspect.signature(cls.fit).parameters else {}
    identity = digest_json([name, dict(settings), seeded, split.digest, metric, seen,
                            None if chosen is None else chosen["identity"]])
    if folder is not None and finished_as(folder, identity):
        return cls.load(folder, split)
    begun, cpu = time.perf_counter(), time.process_time()
    model = cls.fit(split, **{key: value for key, value in settings.items() if key != "temperature"}, **seeded)
    model.settings["temperature"] = float(temperature)
    model.training = {"identity": identity, "seconds": time.perf_counter() - begun,
                      "cpu_seconds": time.process_time() - cpu, "settings": {"seed": seed}}
    value = validate_ranker(model, split, metric, seen=seen) if chosen is None else None
    if value is not None:
        model.training |= {"valid": {metric: value}, "curve": []}
    if chosen is not None:
        model.training |= {"valid": chosen["valid"], "curve": [], "refit": True}
    if folder is not None:
        model.save(folder)
    return model
