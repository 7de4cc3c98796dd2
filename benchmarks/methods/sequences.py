"""Methods that a transformer over sequences can learn by: those that look into the model, and those of weights."""

from __future__ import annotations

from itertools import product
from typing import Any

from methods import HARD, Method

__all__ = ["COMMON", "METHODS", "STUDENT", "TEACHER"]

TEACHER: dict[str, Any] = {
    "dim": 64, "layers": 3, "heads": 4, "dropout": 0.4, "max_length": 20, "epochs": 60, "batch_size": 128,
    "learning_rate": 0.002, "schedule": "cosine", "weight_decay": 0.1, "negatives": "full", "evaluate_every": 10,
}
STUDENT: dict[str, Any] = {"hidden": 64, "layers": 1, "heads": 4, "max_length": 20}
COMMON: dict[str, Any] = {  # all begin with the components of the texts, as a control that is fair does
    "epochs": 10, "batch_size": 128, "learning_rate": 0.005, "schedule": "cosine", "weight_decay": 0.05,
    "negatives": "full", "evaluate_every": 10, "start": "text",
}
DROPOUT = (0.1, 0.3)


def _beside(loss: str, weights: tuple[float, ...], **more: Any) -> list[dict[str, Any]]:
    return [{"losses": {HARD: 1.0, loss: w}, "dropout": d, **more} for w, d in product(weights, DROPOUT)]


ALONE = [
    {"losses": {HARD: 1.0}, "learning_rate": rate, "dropout": d, "weight_decay": w}
    for rate, d, w in product((0.003, 0.008), DROPOUT, (0.02, 0.1))
]
KL = [
    {"losses": {HARD: round(1 - w, 6), "kl": w}, "temperature": t, "dropout": d}
    for w, t, d in product((0.5, 0.9), (0.7, 1.0), DROPOUT)
]
SELF = [
    {"losses": {HARD: round(1 - w, 6), "kl": w}, "temperature": 1.0, "dropout": d}
    for w, d in product((0.1, 0.3, 0.5, 0.8), DROPOUT)
]

METHODS: dict[str, Method] = {
    "alone": Method("no teacher, cross-entropy", ALONE, "none", whole=True),
    "kl": Method("soft labels, hard and soft mixed", KL),
    "hint": Method("query and item vectors through a linear bridge", _beside("hint", (0.1, 1.0, 10.0, 100.0))),
    "layer_hint": Method("all layers of the teacher, fused, through bridges",
                         _beside("layer_hint", (0.1, 1.0, 10.0, 100.0))),
    "attention_transfer": Method("where the last layers look", _beside("attention_transfer", (0.1, 1.0, 3.0, 10.0))),
    "sobolev": Method("what the best item's score depends on", _beside("sobolev", (0.1, 1.0, 3.0, 10.0))),
    "layers copied": Method("no loss: the layers start as the teacher's", ALONE, of={"layers_from": "teacher"}),
    "projected start": Method("no loss: the item table starts as the teacher's, projected", ALONE,
                              of={"start": "teacher"}),
    "kl, projected start": Method("both", KL, of={"start": "teacher"}),
    "kl, interpolated": Method("and afterwards a step back towards the teacher's table", KL,
                               of={"start": "teacher", "interpolation": [0.1, 0.3, 0.5]}),
    "kl, label gate": Method("where the true item is among the teacher's first 20", KL, of={"trust": ["label_gate"]}),
    "kl, agreement": Method("decisions by agreement with the data", KL, of={"trust": ["agreement"]}),
    "born again": Method("soft labels of the best student alone", KL, "self"),
    "peer": Method("soft labels of a like model that learns beside it", SELF, of={"teacher": "peer"}),
    "average": Method("soft labels of the average of its own weights", SELF, of={"teacher": "average"}),
}
