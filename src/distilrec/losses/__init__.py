"""Losses: pure functions of tensors, one file each, one value per example.

`LOSSES` (rank) and `ROW_LOSSES` (predict, tag) map the name used in a recipe to the function. `HARD` and `ROW_HARD`
losses need labels, the others knowledge: `SOFT` says of which kind.
"""

from __future__ import annotations

__all__ = ["HARD", "LOSSES", "ROW_HARD", "ROW_LOSSES", "ROW_SOFT", "SOFT"]

HARD = ("cross_entropy", "bpr")
SOFT = {  # loss -> the signal of the store that it reads
    "kl": "response",
    "listnet": "response",
    "plackett_luce": "response",
    "relaxed_ranking": "response",
    "rank_distillation": "response",
    "collaborative_distillation": "response",
    "margin_squared_error": "response",
    "rejuvenated_cross_entropy": "response",
    "grouped_kl": "response",
    "hint": "query",
    "layer_hint": "layers",
    "relation_distance": "query",
    "relation_angle": "query",
    "full_topology": "query",
    "hierarchical_topology": "query",
    "attention_transfer": "attention",
    "sobolev": "gradient",
}
LOSSES = {name: f"distilrec.losses.{name}:{name}" for name in (*HARD, *SOFT)}

ROW_LOSSES = {
    "binary_cross_entropy": "distilrec.losses.binary_cross_entropy:binary_cross_entropy",
    "squared_error": "distilrec.losses.squared_error:squared_error",
    "bernoulli_kl": "distilrec.losses.bernoulli_kl:bernoulli_kl",
    "output_squared_error": "distilrec.losses.output_squared_error:output_squared_error",
    "hint": "distilrec.losses.hint:hint",
}
ROW_HARD = {"binary_cross_entropy": ("binary", "tags"), "squared_error": ("number",)}  # loss -> kinds of head
ROW_SOFT = {"bernoulli_kl": ("binary", "tags"), "output_squared_error": ("binary", "tags", "number"), "hint": ()}
