"""Methods that a matrix factorization can learn by. Everything that a trial does not say is in `COMMON`."""

from __future__ import annotations

from itertools import product
from typing import Any

from methods import HARD, Method, beside, mixed, weighted

__all__ = ["COMMON", "METHODS"]

COMMON: dict[str, Any] = {
    "epochs": 20, "batch_size": 128, "learning_rate": 0.06, "schedule": "cosine", "negatives": 2048,
    "evaluate_every": 20, "patience": 3, "start": "none",
}


def _beside(loss: str, weights: tuple[float, ...], **more: Any) -> list[dict[str, Any]]:
    """With the decay that the plain loss alone asks for."""
    return beside(loss, weights, (0.15, 0.25), **more)


ALONE = [
    {"losses": {HARD: 1.0}, "weight_decay": w, "learning_rate": rate}
    for w, rate in product((0.05, 0.1, 0.2, 0.3), (0.06, 0.1))
]
PAIRWISE = [
    {"losses": {"bpr": 1.0}, "negatives": 32, "weight_decay": w, "learning_rate": rate}
    for w, rate in product((0.1, 0.2, 0.3, 0.4), (0.03, 0.1))
]
KL = mixed("kl")
TRUST = mixed("kl")

WIDE = (1.0, 10.0, 100.0, 1000.0)  # a mean of small squares asks for large weights

METHODS: dict[str, Method] = {
    "alone": Method("no teacher, cross-entropy", ALONE, "none", whole=True),
    "alone, pairwise": Method("no teacher, BPR", PAIRWISE, "none", whole=True),
    "kl": Method("soft labels, hard and soft mixed", KL),
    "listnet": Method("the list alone, as one distribution", mixed("listnet")),
    "plackett_luce": Method("the order of the list", weighted("plackett_luce", (0.2, 0.5, 0.8, 0.95))),
    "relaxed_ranking": Method("the order of the list, all above the rest (RRD)", weighted("relaxed_ranking")),
    "rank_distillation": Method("the list as further positives (RD)",
                                _beside("rank_distillation", (0.1, 0.3, 1.0, 3.0))),
    "collaborative_distillation": Method("each item as a yes or no (CD)", mixed("collaborative_distillation",
                                                                               (0.2, 0.8), (1.0, 3.0))),
    "margin_squared_error": Method("distances within the list",
                                   _beside("margin_squared_error", (0.01, 0.1, 1.0, 10.0))),
    "rejuvenated_cross_entropy": Method("soft labels against the student's own best (RCE-KD)",
                                        mixed("rejuvenated_cross_entropy")),
    "grouped_kl": Method("soft labels among items of like popularity (UnKD)", mixed("grouped_kl")),
    "hint": Method("query and item vectors through a linear bridge", _beside("hint", (0.1, 1.0, 10.0, 100.0))),
    "hint, 5 experts": Method("the same through chosen experts (DE)",
                              _beside("hint", (0.1, 1.0, 10.0, 100.0), experts=5)),
    "relation_distance": Method("distances in the batch (RKD)", _beside("relation_distance", WIDE)),
    "relation_angle": Method("angles in the batch (RKD)", _beside("relation_angle", WIDE)),
    "full_topology": Method("all similarities in the batch (FTD)", _beside("full_topology", WIDE)),
    "hierarchical_topology": Method("similarities to and within groups (HTD)", _beside("hierarchical_topology", WIDE)),
    "projected start": Method("no loss: the item table starts as the teacher's, projected",
                              [{**trial, "start": "teacher"} for trial in ALONE]),
    "kl, projected start": Method("both", [{**trial, "start": "teacher"} for trial in KL]),
    "kl, soft then hard": Method("soft labels first, plain ones later", mixed("kl", balance="soft-then-hard")),
    "kl, confidence": Method("decisions by the teacher's certainty", TRUST, of={"trust": ["confidence"]}),
    "kl, agreement": Method("decisions by agreement with the data", TRUST, of={"trust": ["agreement"]}),
    "kl, own temperature": Method("every user's soft labels as wide as the median", TRUST,
                                  of={"own_temperature": True}),
    "kl, consistency": Method("decisions by agreement of student and teacher", TRUST,
                              of={"weighting": ["consistency"]}),
    "kl, curriculum": Method("easy decisions first", TRUST, of={"weighting": ["curriculum"]}),
    "kl, all teachers": Method("soft labels of all teachers of the set, mixed equally", KL, "equal"),
    "kl, all teachers by agreement": Method("the same, each weighed by user and item", KL, "agreement"),
    "born again": Method("soft labels of the best student alone", KL, "self"),
    "kl and topology": Method("soft labels and full topology",
                              [{"losses": {"kl": 1.0, "full_topology": w}, "temperature": t, "weight_decay": d}
                               for w, t, d in product((1.0, 10.0), (0.3, 0.6), (0.05, 0.2))]),
}
