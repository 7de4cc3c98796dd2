"""The soft terms of a ranking step: which scores or vectors each loss compares, and with what of the teacher's.

Each term gives (values [n], rows int64 [n] of the decisions they belong to, or None for all soft ones in turn).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from distilrec.losses.attention_transfer import attention_transfer
from distilrec.losses.collaborative_distillation import collaborative_distillation
from distilrec.losses.full_topology import full_topology
from distilrec.losses.grouped_kl import grouped_kl
from distilrec.losses.hierarchical_topology import hierarchical_topology
from distilrec.losses.hint import hint
from distilrec.losses.kl import kl
from distilrec.losses.layer_hint import layer_hint
from distilrec.losses.listnet import listnet
from distilrec.losses.margin_squared_error import margin_squared_error
from distilrec.losses.plackett_luce import plackett_luce
from distilrec.losses.rank_distillation import rank_distillation
from distilrec.losses.rejuvenated_cross_entropy import rejuvenated_cross_entropy
from distilrec.losses.relation_angle import relation_angle
from distilrec.losses.relation_distance import relation_distance
from distilrec.losses.relaxed_ranking import relaxed_ranking
from distilrec.losses.sobolev import sobolev
from distilrec.models.sensitivity import sensitivity
from distilrec.training.learner import POPULARITY_GROUPS, RankLearner, Taught, normed
from distilrec.training.scores import Scores
from distilrec.training.settings import TrainSettings

__all__ = ["TERMS", "Step", "soft_term"]

_ANCHORS = 256  # of a relation loss, drawn from the batch: its cost grows with the square
_CORNERS = 64  # of the angles, whose cost grows with the cube

Term = tuple[Tensor, Tensor | None]


@dataclass(eq=False)
class Step:
    """Everything that a soft term may look at. n soft decisions, of B sequences."""

    learner: RankLearner
    scores: Scores  # of the soft decisions [n]
    q: Tensor  # [n, D], the student's query vectors as they are served
    known: Mapping[str, Tensor]  # what the teacher says of each of them
    taught: Taught
    settings: TrainSettings
    items: Tensor  # int64 [B, L], the batch
    lengths: Tensor  # int64 [B]
    at: Tensor  # int64 [n], the position of each soft decision in the flattened batch
    open: Tensor  # bool [n], the decision after the last train event
    truth: Tensor  # int64 [M], the distinct true items of the whole batch, also of decisions without soft labels
    states: list[Tensor]  # [B, L, H] after each of the student's layers, where a loss reads them
    _kept: list[Tensor]

    @property
    def ids(self) -> Tensor:
        return self.known["response.ids"]

    @property
    def temperature(self) -> float | Tensor:
        return self.known.get("response.temperature", self.settings.temperature)

    def kept(self) -> Tensor:
        """[n, K] the student's scores of what the teacher kept; computed once."""
        if not self._kept:
            self._kept.append(self.scores.of_items(self.ids))
        return self._kept[0]


def soft_term(name: str, step: Step) -> Term:
    """Values of one soft loss, before trust and weight."""
    return TERMS[name](step)


def _kl(step: Step) -> Term:
    student, t = step.kept(), step.temperature
    cold = not isinstance(t, Tensor) and t == 1.0
    mass = step.known.get("response.mass") if cold else None
    return kl(student, step.known["response"], temperature=t, mass=mass,
              log_partition=step.scores.log_partition(step.ids, student, t)), None


def _in_list(loss: Callable[..., Tensor], *, warm: bool = False) -> Callable[[Step], Term]:
    """A loss on the K items alone."""
    def term(step: Step) -> Term:
        more = {"temperature": step.temperature} if warm else {}
        return loss(step.kept(), step.known["response"], **more), None

    return term


def _against(loss: Callable[..., Tensor], *, warm: bool = False, centered: bool = False) -> Callable[[Step], Term]:
    """A loss on the K items against a sample of the others."""
    def term(step: Step) -> Term:
        others, times = step.scores.others(step.ids)
        more: dict[str, Any] = {"temperature": step.temperature} if warm else {}
        if centered:
            more["center"] = -math.log(len(step.scores.table))
        return loss(step.kept(), step.known["response"], others=others, times=times, **more), None

    return term


def _grouped(step: Step) -> Term:
    if step.taught.popularity is None:
        raise ValueError("grouped_kl needs the popularity of the items")
    groups = step.taught.popularity[step.ids]
    return grouped_kl(step.kept(), step.known["response"], groups, temperature=step.temperature,
                      n_groups=POPULARITY_GROUPS), None


def _hint(step: Step) -> Term:
    """Query vectors, and item vectors of the true items where the teacher has some."""
    teacher = _standard(step.known["query"], step.taught.center)
    values = hint(step.learner.bridges["query"](step.q, teacher).float(), teacher)
    if "item" not in step.learner.bridges or step.taught.item_vectors is None:
        return values, None
    items = step.truth
    if not len(items):
        return values, None
    theirs = _standard(step.taught.item_vectors[items], step.taught.item_center)
    ours = step.learner.bridges["item"](step.scores.table[items].float(), theirs).float()
    whole = hint(ours, theirs).mean()  # of items no decision is the owner
    return (values + whole) / 2, None


def _layer_hint(step: Step) -> Term:
    """All layers at every soft decision."""
    theirs = _standard(normed(step.known["layers"]), step.taught.layer_center)
    ours = step.learner.bridges["layers"]([state.flatten(0, 1)[step.at] for state in step.states])
    return layer_hint(ours.float(), theirs), None


def _relation(loss: Callable[..., Tensor], most: int, *, grouped: bool = False) -> Callable[[Step], Term]:
    """The geometry among some decisions of the batch, and as many true items where the teacher has vectors of them."""
    def term(step: Step) -> Term:
        count = len(step.q)
        with_items = step.taught.item_vectors is not None and \
            step.taught.item_vectors.shape[1] == step.known["query"].shape[1]
        some = most // 2 if with_items else most
        rows = _some(torch.arange(count, device=step.q.device), some)
        ours, theirs = step.q[rows].float(), step.known["query"][rows]
        if with_items and step.taught.item_vectors is not None:
            items = _some(step.truth, most - some)
            ours = torch.cat([ours, step.scores.table[items].float()])
            theirs = torch.cat([theirs, step.taught.item_vectors[items]])
        if not grouped:
            values = loss(ours, theirs)
        else:
            if step.taught.centroids is None:
                raise ValueError("hierarchical_topology needs the groups of the teacher's vectors")
            unit = torch.nn.functional.normalize(theirs, dim=1)
            values = loss(ours, theirs, (unit @ step.taught.centroids.T).argmax(1))
        if len(values) == len(rows):
            return values, rows
        # what items add is shared among the decisions
        return values[: len(rows)] + values[len(rows):].sum() / max(1, len(rows)), rows

    return term


def _some(of: Tensor, most: int) -> Tensor:
    """At most that many, at random."""
    return of if len(of) <= most else of[torch.randperm(len(of), device=of.device)[:most]]


def _attention(step: Step) -> Term:
    """Of the last layer at the open decision, by steps back from the latest event."""
    net: Any = step.learner.model
    rows = step.open.nonzero().squeeze(1)
    width = step.items.shape[1]
    sequence, last = step.at[rows] // width, step.at[rows] % width
    weights = net.attention(step.items[sequence], step.lengths[sequence], last)
    last = last - int(getattr(net, "cloze", False))  # where a mask answers, the latest event stands before it
    theirs = step.known["attention"][rows]
    return attention_transfer(_back(weights, last, theirs.shape[1]), theirs, mask=_seen(last, theirs)), rows


def _sobolev(step: Step) -> Term:
    """Of the score of the teacher's best item at the open decision."""
    rows = step.open.nonzero().squeeze(1)
    width = step.items.shape[1]
    sequence, last = step.at[rows] // width, step.at[rows] % width
    ours = sensitivity(step.learner.model, step.items[sequence], step.lengths[sequence], last, step.ids[rows, 0],
                       create_graph=True)
    last = last - int(getattr(step.learner.model, "cloze", False))
    theirs = step.known["gradient"][rows]
    return sobolev(_back(ours, last, theirs.shape[1]), theirs * _seen(last, theirs)), rows


def _back(values: Tensor, last: Tensor, width: int) -> Tensor:
    """[n, L] by position -> [n, width] by steps back from the event at `last`, 0 where there is none."""
    place = last[:, None] - torch.arange(width, device=values.device)
    return torch.where(place >= 0, values.gather(1, place.clamp(min=0)), 0.0)


def _seen(last: Tensor, theirs: Tensor) -> Tensor:
    """bool [n, W]: the steps back that the student's history holds; a teacher may look further."""
    return torch.arange(theirs.shape[1], device=last.device) <= last[:, None]


def _standard(values: Tensor, center: tuple[Tensor, Tensor] | None) -> Tensor:
    return values if center is None else (values - center[0]) / center[1]


TERMS: dict[str, Callable[[Step], Term]] = {
    "kl": _kl,
    "listnet": _in_list(listnet, warm=True),
    "plackett_luce": _in_list(plackett_luce),
    "margin_squared_error": _in_list(margin_squared_error),
    "relaxed_ranking": _against(relaxed_ranking),
    "rank_distillation": _against(rank_distillation),
    "rejuvenated_cross_entropy": _against(rejuvenated_cross_entropy, warm=True),
    "collaborative_distillation": _against(collaborative_distillation, warm=True, centered=True),
    "grouped_kl": _grouped,
    "hint": _hint,
    "layer_hint": _layer_hint,
    "relation_distance": _relation(relation_distance, _ANCHORS),
    "relation_angle": _relation(relation_angle, _CORNERS),
    "full_topology": _relation(full_topology, _ANCHORS),
    "hierarchical_topology": _relation(hierarchical_topology, _ANCHORS, grouped=True),
    "attention_transfer": _attention,
    "sobolev": _sobolev,
}
