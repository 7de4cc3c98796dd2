"""One step's loss: scores of the needed items, then the weighted sum of the recipe's terms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from distilrec.losses import SOFT
from distilrec.losses.bpr import bpr
from distilrec.losses.candidates import log_partition
from distilrec.losses.cross_entropy import cross_entropy
from distilrec.losses.kl import kl
from distilrec.training.batches import Batch
from distilrec.training.gather import gathered_scores
from distilrec.training.settings import TrainSettings

__all__ = ["Negatives", "objective"]


@dataclass(frozen=True, eq=False)
class Negatives:
    """Draws the negatives that a whole batch shares."""

    n_items: int
    size: int | None  # None: the whole catalog
    probability: np.ndarray | None  # float64 [I]; None: uniform, without replacement

    @classmethod
    def of(cls, train_counts: np.ndarray, settings: TrainSettings) -> Negatives:
        n_items = len(train_counts)
        if settings.negatives == "full" or settings.negatives >= n_items:
            return cls(n_items, None, None)
        if settings.negative_power == 0:
            return cls(n_items, settings.negatives, None)
        weight = (train_counts + 1.0) ** settings.negative_power
        return cls(n_items, settings.negatives, weight / weight.sum())

    def draw(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray | float] | None:
        """(items int64 [N], log of the expected draws: float32 [N], or one number); None for the whole catalog."""
        if self.size is None:
            return None
        if self.probability is None:
            items = rng.choice(self.n_items, self.size, replace=False)
            return items, float(np.log(self.size / self.n_items))
        drawn = np.searchsorted(np.cumsum(self.probability), rng.random(self.size) * (1 - 1e-9))
        # An item drawn twice stands once in the sample and counts double.
        items, times = np.unique(drawn, return_counts=True)
        return items, np.log(self.size * self.probability[items] / times).astype(np.float32)


def objective(
    model: nn.Module, batch: Batch, negatives: tuple[np.ndarray, np.ndarray | float] | None,
    losses: Mapping[str, float], settings: TrainSettings, knowledge: Mapping[str, np.ndarray] | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """(scalar loss, value of each term). Hard terms average over labeled decisions, soft terms over soft ones.

    Raises:
        ValueError: a soft term without knowledge.
    """
    device = settings.device
    net: Any = model
    on = lambda array: torch.as_tensor(array, device=device)  # noqa: E731
    hidden = net.query(on(batch.items), on(batch.lengths), on(batch.users))
    q = hidden.flatten(0, 1)[on(batch.positions)] * settings.score_scale
    table, bias = net.item_vectors(), net.item_bias()
    scores = Scores(q.float(), table, bias, settings.score_scale, on(batch.targets), negatives, on)
    total, values = q.new_zeros(()).float(), {}
    for name, weight in losses.items():
        if name in SOFT:
            if knowledge is None:
                raise ValueError(f"the loss {name!r} needs knowledge")
            term, mask = scores.soft(knowledge, settings, on), on(batch.soft)
            if "response.trust" in knowledge:
                term = term * on(knowledge["response.trust"])
        else:
            term, mask = scores.hard(name, settings), on(batch.labeled)
        mean = torch.where(mask, term, 0.0).sum() / mask.sum().clamp(min=1)
        total = total + weight * mean
        values[name] = mean.detach()
    return total, values


class Scores:
    """The scores that the terms of one step share: true items, negatives, and on demand the teacher's items."""

    def __init__(
        self, q: Tensor, table: Tensor, bias: Tensor | None, scale: float, targets: Tensor,
        negatives: tuple[np.ndarray, np.ndarray | float] | None, on: Any,
    ) -> None:
        self.q, self.table, self.bias, self.scale, self.targets = q, table, bias, scale, targets
        self.drawn: Tensor | None = None
        self.log_expected: Tensor | float | None = None
        if negatives is None:
            everything = q @ table.T
            self.all = everything if bias is None else everything + scale * bias
            self.positive = self.all.gather(1, targets[:, None]).squeeze(1)
            return
        self.drawn = on(negatives[0])
        self.log_expected = negatives[1] if isinstance(negatives[1], float) else on(negatives[1])
        self.positive = (q * F.embedding(targets, table)).sum(1)
        self.negative = q @ F.embedding(self.drawn, table).T
        if bias is not None:
            self.positive = self.positive + scale * bias[targets]
            self.negative = self.negative + scale * bias[self.drawn]

    def hard(self, name: str, settings: TrainSettings) -> Tensor:
        others = None if self.drawn is None else self._without(self.targets[:, None])
        if name == "bpr":
            if others is None:
                others = self.all.scatter(1, self.targets[:, None], -torch.inf)
            return bpr(self.positive, others)
        smoothing = settings.label_smoothing
        mean = self._mean(others) if smoothing else None
        log_z = self.all.logsumexp(1) if others is None else \
            log_partition(others, self.positive, log_expected=self.log_expected)
        return cross_entropy(self.positive, log_z, mean_score=mean, label_smoothing=smoothing)

    def _mean(self, others: Tensor | None) -> Tensor:
        """[T] mean score over the catalog; from a sample, its unbiased estimate."""
        if others is None:
            return self.all.mean(1)
        times = torch.exp(-torch.as_tensor(self.log_expected, device=others.device))
        return (self.positive + (others.masked_fill(others == -torch.inf, 0) * times).sum(1)) / len(self.table)

    def soft(self, knowledge: Mapping[str, np.ndarray], settings: TrainSettings, on: Any) -> Tensor:
        ids = on(knowledge["response.ids"]).long()
        teacher = on(knowledge["response"])
        t = settings.temperature
        if self.drawn is None:
            student = self.all.gather(1, ids)
            log_z = (self.all / t).logsumexp(1)
        else:
            student = gathered_scores(self.q, self.table, ids)
            if self.bias is not None:
                student = student + self.scale * self.bias[ids]
            # The true item is exact as well: it is often the best of those that the teacher did not keep.
            known = torch.cat([ids, self.targets[:, None]], 1)
            positive = self.positive.masked_fill((ids == self.targets[:, None]).any(1), -torch.inf)
            log_z = log_partition(self._without(known) / t, student / t, positive / t, log_expected=self.log_expected)
        mass = on(knowledge["response.mass"]) if t == 1.0 and "response.mass" in knowledge else None
        return kl(student, teacher, temperature=t, log_partition=log_z, mass=mass)

    def _without(self, ids: Tensor) -> Tensor:
        """Negative scores [T, N] with -inf where one of the items `ids` [T, C] was drawn: nothing counts twice."""
        if self.drawn is None:
            raise ValueError("the whole catalog has no drawn negatives")
        column = torch.full((len(self.table),), -1, dtype=torch.long, device=ids.device)
        column[self.drawn] = torch.arange(len(self.drawn), device=ids.device)
        row, place = (column[ids] >= 0).nonzero(as_tuple=True)
        return self.negative.index_put((row, column[ids[row, place]]), self.negative.new_tensor(-torch.inf))
