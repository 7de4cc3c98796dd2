"""Models, one file each. A model does not know whether it is teacher or student.

`MODELS` maps the name used in a recipe to the class. TRAINED ones are torch modules with the sequence-model contract
(`query`, `last`, `item_vectors`, `item_bias`; one with `cloze = True` fills gaps instead of going along, see
models.bert4rec); BASELINES are fitted in one pass and only score. Both can teach.
ROW_MODELS answer the pointwise tasks: `forward(Inputs) -> {"scores": [B, O], "hidden": [B, H] where there is one}`
(and "shared", what all heads read, where that is not `hidden`: heads are balanced there)
and a parameter `output_bias` [O], which training may set to what the labels are on average.
"""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Any

from distilrec.errors import RecipeError, nearest, problem

__all__ = [
    "BASELINES", "MODELS", "ROW_BASELINES", "ROW_MODELS", "fitted_settings", "model_class", "model_settings",
    "row_model_class", "row_model_settings",
]

MODELS = {
    "sasrec": "distilrec.models.sasrec:SASRec",
    "gru4rec": "distilrec.models.gru4rec:GRU4Rec",
    "hstu": "distilrec.models.hstu:HSTU",
    "bert4rec": "distilrec.models.bert4rec:BERT4Rec",
    "mf": "distilrec.models.mf:MatrixFactorization",
    "lightgcn": "distilrec.models.lightgcn:LightGCN",
    "mult_vae": "distilrec.models.mult_vae:MultVAE",
}
BASELINES = {
    "popularity": "distilrec.models.popularity:Popularity",
    "item_knn": "distilrec.models.item_knn:ItemKNN",
    "user_knn": "distilrec.models.user_knn:UserKNN",
    "ease": "distilrec.models.ease:EASE",
    "als": "distilrec.models.als:ALS",
    "bpr": "distilrec.models.bpr:BPR",
}
ROW_MODELS = {
    "logistic": "distilrec.models.logistic:Logistic",
    "fm": "distilrec.models.fm:FactorizationMachine",
    "mlp": "distilrec.models.mlp:MLP",
    "wide_deep": "distilrec.models.wide_deep:WideDeep",
    "deepfm": "distilrec.models.deepfm:DeepFM",
    "dcnv2": "distilrec.models.dcnv2:DCNv2",
    "din": "distilrec.models.din:DIN",
    "finalmlp": "distilrec.models.finalmlp:FinalMLP",
    "shared_bottom": "distilrec.models.shared_bottom:SharedBottom",
    "mmoe": "distilrec.models.mmoe:MMoE",
    "ple": "distilrec.models.ple:PLE",
    "biased_mf": "distilrec.models.biased_mf:BiasedMF",
}
ROW_BASELINES = {
    "base_rate": "distilrec.models.base_rate:BaseRate",
    "logistic": "distilrec.models.logistic:Logistic",
}


def model_class(name: str) -> Any:
    """The class behind a name of MODELS or BASELINES.

    Raises:
        RecipeError: no such model.
    """
    return _class(name, {**MODELS, **BASELINES})


def row_model_class(name: str) -> Any:
    """The class behind a name of ROW_MODELS.

    Raises:
        RecipeError: no such model.
    """
    return _class(name, ROW_MODELS)


def model_settings(name: str) -> list[str]:
    """The constructor arguments that a recipe may set; what the data decide is not among them."""
    given = {"self", "n_items", "n_users", "content", "graph"}
    return [argument for argument in inspect.signature(model_class(name).__init__).parameters if argument not in given]


def fitted_settings(name: str) -> dict[str, Any]:
    """What a recipe may set of a model that is fitted in one pass: name -> default. The seed is the run's."""
    known = inspect.signature(model_class(name).fit).parameters
    own = {argument: one.default for argument, one in known.items() if argument not in ("split", "seed")}
    return {**own, "temperature": 1.0}


def row_model_settings(name: str) -> list[str]:
    """The constructor arguments of a pointwise model that a recipe may set; fields and heads come from the data."""
    given = {"self", "fields", "heads"}
    known = inspect.signature(row_model_class(name).__init__).parameters
    return [argument for argument in known if argument not in given]


def _class(name: str, table: dict[str, str]) -> Any:
    if name not in table:
        raise RecipeError(problem(f"model {name!r} is unknown{nearest(name, table)}", ", ".join(table)))
    module, _, attribute = table[name].partition(":")
    return getattr(import_module(module), attribute)
