"""The models that a rank recipe names, built small to be asked now what hours later the large ones would be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_type_hints

import numpy as np

from distilrec.recipe import ModelSection

__all__ = ["answers_by_user", "architecture_of", "small"]


def answers_by_user(one: ModelSection) -> bool:
    """Whether a teacher is sure to answer once for each user and not at every decision (see knowledge.extract); of a
    file only its content tells. By name, for the plan of a run says it without loading torch."""
    return one.model in ("bpr", "mf", "lightgcn") or \
        (one.model == "als" and one.settings.get("fold_in", "unknown") == "unknown")


def architecture_of(model: str) -> tuple[str, Mapping[str, Any]]:
    """(the name of the model that is built, its settings where a recipe is silent) of what a recipe calls a teacher."""
    from distilrec.teachers.text_sasrec import DEFAULTS

    return ("sasrec", DEFAULTS) if model == "text_sasrec" else (model, {})


def small(model: str, given: Mapping[str, Any]) -> Any:
    """One of two items. Raises whatever its constructor says of settings that it does not take."""
    from distilrec.models import model_class, model_settings

    build = model_class(model)
    of_data = {"n_items": 2, "n_users": 2, "graph": np.zeros((2, 1), dtype=np.int32)}
    wanted, known = get_type_hints(build.__init__), model_settings(model)
    return build(**{key: value for key, value in of_data.items() if key in wanted},
                 **{key: value for key, value in given.items() if key in known})
