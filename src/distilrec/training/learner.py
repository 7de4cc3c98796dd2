"""What training a ranking model needs beside the model itself: bridges to a teacher's space, thrown away afterwards."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from scipy.cluster.vq import kmeans2
from torch import Tensor, nn

from distilrec.knowledge.extract import decisions
from distilrec.knowledge.inner import BY_DECISION
from distilrec.losses import SOFT
from distilrec.models.layer_states import layer_shape
from distilrec.numerics import popularity_groups
from distilrec.types import Knowledge, Split

__all__ = [
    "NOTHING", "POPULARITY_GROUPS", "Bridge", "LayerBridges", "RankLearner", "Taught", "learner_of", "normed",
    "taught_of",
]

POPULARITY_GROUPS = 4
_CLUSTERS = 20  # of the teacher's vectors, for the hierarchical topology
_SAMPLE = 10_000  # decisions that statistics of query vectors are taken from


@dataclass(frozen=True, eq=False)
class Taught:
    """What a teacher said once for all steps. Everything is optional."""

    item_vectors: Tensor | None = None  # [I, E]
    centroids: Tensor | None = None  # [G, E], of the groups that a hierarchical topology is made of
    popularity: Tensor | None = None  # int64 [I], the popularity group of each item
    center: tuple[Tensor, Tensor] | None = None  # mean and standard deviation [E] of the query vectors
    item_center: tuple[Tensor, Tensor] | None = None  # the same of the item vectors
    layer_center: tuple[Tensor, Tensor] | None = None  # the same [S, H] of the normed states of the teacher's layers


NOTHING = Taught()


class Bridge(nn.Module):
    """From the student's width to the teacher's; trained with the student and thrown away.

    One expert is a linear map (Romero et al., "FitNets", ICLR 2015). Several are small networks of which the teacher's
    vector chooses one, so that a narrow student need not explain all users by a single map (Kang, Hwang, Kweon & Yu,
    "DE-RRD", CIKM 2020; the choice is drawn by the Gumbel softmax, straight through).
    """

    def __init__(self, width: int, teacher: int, experts: int = 1) -> None:
        super().__init__()
        middle = max(1, (width + teacher) // 2)
        self.experts = nn.ModuleList(
            nn.Linear(width, teacher) if experts == 1 else
            nn.Sequential(nn.Linear(width, middle), nn.ReLU(), nn.Linear(middle, teacher)) for _ in range(experts))
        self.choose = nn.Linear(teacher, experts) if experts > 1 else None

    def forward(self, student: Tensor, teacher: Tensor) -> Tensor:
        """[B, D], [B, E] -> [B, E]."""
        if self.choose is None:
            return self.experts[0](student)
        share = nn.functional.gumbel_softmax(self.choose(teacher), hard=True)
        return torch.stack([expert(student) for expert in self.experts], 2).mul(share[:, None]).sum(2)


class LayerBridges(nn.Module):
    """From each of the student's layers to the teacher's width, a linear map each; trained and thrown away."""

    def __init__(self, layers: int, width: int, teacher: int) -> None:
        super().__init__()
        self.maps = nn.ModuleList(nn.Linear(width, teacher) for _ in range(layers))

    def forward(self, states: list[Tensor]) -> Tensor:
        """S of [n, H] -> [n, S, W]."""
        return torch.stack([way(normed(state)) for way, state in zip(self.maps, states, strict=True)], 1)


def normed(states: Tensor) -> Tensor:
    """States [..., H] as the next layer reads them: it has a layer norm before it, so their length says nothing."""
    return nn.functional.layer_norm(states, states.shape[-1:])


class RankLearner(nn.Module):
    """A model with its bridges and, where it teaches itself, the companion that gives the soft labels."""

    def __init__(
        self, model: nn.Module, bridges: Mapping[str, nn.Module] | None = None, companion: nn.Module | None = None
    ) -> None:
        super().__init__()
        self.model = model
        self.bridges = nn.ModuleDict(dict(bridges or {}))
        self.companion = companion


def learner_of(
    model: nn.Module, losses: Mapping[str, float], taught: Taught, width: int, experts: int,
    companion: nn.Module | None = None,
) -> RankLearner:
    """A model with the bridges that its losses need, drawn from the current seed. `width`: of the query vectors, 0
    where there are none."""
    net: Any = model
    own = net.item_vectors().shape[1]
    bridges: dict[str, nn.Module] = {}
    if "hint" in losses:
        bridges["query"] = Bridge(own, width, experts)
        if taught.item_vectors is not None:
            bridges["item"] = Bridge(own, taught.item_vectors.shape[1], experts)
    shape = layer_shape(model)
    if taught.layer_center is not None and shape is not None:
        bridges["layers"] = LayerBridges(*shape, taught.layer_center[0].shape[1])
    return RankLearner(model, bridges, companion)


def taught_of(
    knowledge: Knowledge | None, split: Split, losses: Mapping[str, float], device: str
) -> tuple[Taught, int]:
    """(what the losses need of a teacher beyond single decisions, width of its query vectors or 0)."""
    on = lambda array: torch.as_tensor(array, device=device)  # noqa: E731
    popularity = on(popularity_groups(split.train_counts, POPULARITY_GROUPS)) if "grouped_kl" in losses else None
    signals = {SOFT[name] for name in losses if name in SOFT}
    if knowledge is None or not signals & set(BY_DECISION):
        return Taught(popularity=popularity), 0
    keys = decisions(split)[0]
    rng = np.random.default_rng(0)
    some = np.sort(rng.choice(keys, min(_SAMPLE, len(keys)), replace=False))
    said = knowledge.batch(some, signals)
    layers = _center(normed(on(said["layers"]))) if "layers" in signals else None
    if "query" not in signals:
        return Taught(popularity=popularity, layer_center=layers), 0
    queries = said["query"]
    told = getattr(knowledge, "vectors", None)
    items = None if told is None else told("item_vectors")
    centroids = None
    if "hierarchical_topology" in losses:
        alike = items is not None and items.shape[1] == queries.shape[1]
        unit = _unit(np.concatenate([items, queries]) if alike and items is not None else queries)
        centroids, _ = kmeans2(unit, min(_CLUSTERS, len(unit)), minit="++", rng=0)
    return Taught(
        None if items is None else on(items), None if centroids is None else on(_unit(centroids)), popularity,
        _center(on(queries)), None if items is None else _center(on(items)), layers,
    ), queries.shape[1]


def _unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)).astype(np.float32)


def _center(values: Tensor) -> tuple[Tensor, Tensor]:
    return values.mean(0), values.std(0, correction=0).clamp(min=1e-6)
