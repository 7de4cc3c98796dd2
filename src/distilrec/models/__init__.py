"""Models, one file each. A model does not know whether it is teacher or student.

`MODELS` maps the name used in a recipe to the class. TRAINED ones are torch modules with the sequence-model contract
(`query`, `last`, `item_vectors`, `item_bias`); BASELINES are fitted in one pass and only score.
"""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Any

from distilrec.errors import RecipeError, nearest, problem

__all__ = ["BASELINES", "MODELS", "model_class", "model_settings"]

MODELS = {
    "sasrec": "distilrec.models.sasrec:SASRec",
    "gru4rec": "distilrec.models.gru4rec:GRU4Rec",
    "mf": "distilrec.models.mf:MatrixFactorization",
}
BASELINES = {
    "popularity": "distilrec.models.popularity:Popularity",
    "item_knn": "distilrec.models.item_knn:ItemKNN",
}


def model_class(name: str) -> Any:
    """The class behind a name of MODELS or BASELINES.

    Raises:
        RecipeError: no such model.
    """
    table = {**MODELS, **BASELINES}
    if name not in table:
        raise RecipeError(problem(f"model {name!r} is unknown{nearest(name, table)}", ", ".join(table)))
    module, _, attribute = table[name].partition(":")
    return getattr(import_module(module), attribute)


def model_settings(name: str) -> list[str]:
    """The constructor arguments that a recipe may set; what the data decide is not among them."""
    given = {"self", "n_items", "n_users", "content"}
    return [argument for argument in inspect.signature(model_class(name).__init__).parameters if argument not in given]
