"""Losses: pure functions of tensors, one file each, one value per example.

`LOSSES` maps the name used in a recipe to the function. `HARD` losses need labels, `SOFT` ones knowledge.
"""

from __future__ import annotations

__all__ = ["HARD", "LOSSES", "SOFT"]

LOSSES = {
    "cross_entropy": "distilrec.losses.cross_entropy:cross_entropy",
    "bpr": "distilrec.losses.bpr:bpr",
    "kl": "distilrec.losses.kl:kl",
}
HARD = ("cross_entropy", "bpr")
SOFT = ("kl",)
