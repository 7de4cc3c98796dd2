"""The scores that the terms of one step share: true items, negatives, and on demand those of chosen items."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from distilrec.losses.bpr import bpr
from distilrec.losses.candidates import log_partition
from distilrec.losses.cross_entropy import cross_entropy
from distilrec.training.gather import gathered_scores
from distilrec.training.settings import TrainSettings

__all__ = ["Scores"]


@dataclass(eq=False)
class Scores:
    """Scores of T decisions against a catalog of I items, of which the whole or a sample of N is at hand."""

    q: Tensor  # [T, D], times the score scale
    table: Tensor  # [I, D]
    bias: Tensor | None  # [I]
    scale: float
    targets: Tensor  # int64 [T]
    positive: Tensor  # [T]
    all: Tensor | None = None  # [T, I]; None: a sample stands for the catalog
    drawn: Tensor | None = None  # int64 [N]
    negative: Tensor | None = None  # [T, N]
    log_expected: Tensor | float = 0.0  # log of the expected draws: [N], or one number
    _place: list[Tensor] = field(default_factory=list)  # item -> its column among the drawn, once it is asked for

    @classmethod
    def of(
        cls, q: Tensor, table: Tensor, bias: Tensor | None, scale: float, targets: Tensor,
        negatives: tuple[np.ndarray, np.ndarray | float] | None, on: Callable[[Any], Tensor],
    ) -> Scores:
        """`negatives`: (items int64 [N], log of their expected draws); None: the whole catalog."""
        if negatives is None:
            everything = q @ table.T
            if bias is not None:
                everything = everything + scale * bias
            positive = everything.gather(1, targets[:, None]).squeeze(1)
            return cls(q, table, bias, scale, targets, positive, all=everything)
        drawn = on(negatives[0])
        expected = negatives[1] if isinstance(negatives[1], float) else on(negatives[1])
        # looked up at once: each look-up costs a gradient as large as the table
        of_drawn, of_targets = F.embedding(torch.cat([drawn, targets]), table).split([len(drawn), len(targets)])
        positive, negative = (q * of_targets).sum(1), q @ of_drawn.T
        if bias is not None:
            positive, negative = positive + scale * bias[targets], negative + scale * bias[drawn]
        return cls(q, table, bias, scale, targets, positive, None, drawn, negative, expected)

    def take(self, rows: Tensor | None) -> Scores:
        """Those of some decisions; None: of all."""
        if rows is None:
            return self
        return Scores(
            self.q[rows], self.table, self.bias, self.scale, self.targets[rows], self.positive[rows],
            None if self.all is None else self.all[rows], self.drawn,
            None if self.negative is None else self.negative[rows], self.log_expected, self._place,
        )

    def hard(self, name: str, settings: TrainSettings) -> Tensor:
        """A plain loss of each decision: [T]."""
        own = self.targets[:, None]
        smoothing = settings.label_smoothing
        others = None if self.drawn is None or not (name == "bpr" or smoothing) else self._without(own)
        if name == "bpr":
            return bpr(self.positive, self._everything().scatter(1, own, -torch.inf) if others is None else others)
        mean = self._mean(others) if smoothing else None
        if self.drawn is None:
            log_z = log_partition(self._everything())
        else:
            log_z = log_partition(self._negatives(), self.positive, log_expected=self.log_expected,
                                  left_out=self._drawn_among(own))
        return cross_entropy(self.positive, log_z, mean_score=mean, label_smoothing=smoothing)

    def hard_by_owner(self, name: str, settings: TrainSettings, targets: Tensor, owner: Tensor) -> Tensor:
        """A plain loss of each of M labels [M], of which `owner` says to which of the T decisions it belongs.

        A model without history answers all labels of a user by one vector: the catalog is scored once for all of them,
        which on CiteULike (22 labels a user) is most of the work.
        """
        if name == "bpr" or settings.label_smoothing:  # these look at every pair
            many = self.take(owner)
            positive = (many.q * F.embedding(targets, self.table)).sum(1)
            if self.bias is not None:
                positive = positive + self.scale * self.bias[targets]
            return replace(many, targets=targets, positive=positive).hard(name, settings)
        if self.all is not None:
            positive = self.all[owner, targets]
            return cross_entropy(positive, log_partition(self.all)[owner])
        positive = (self.q[owner] * F.embedding(targets, self.table)).sum(1)
        if self.bias is not None:
            positive = positive + self.scale * self.bias[targets]
        sampled = log_partition(self._negatives(), log_expected=self.log_expected)[owner]
        # the label itself is exact, once, whether it was drawn or not
        place = self._places()[targets]
        expected = self.log_expected[place.clamp(min=0)] if isinstance(self.log_expected, Tensor) else self.log_expected
        top = torch.maximum(sampled, positive).detach()
        own = (positive - top).exp()
        rest = (sampled - top).exp() - torch.where(place >= 0, (positive - expected - top).exp(), 0.0)
        return cross_entropy(positive, (rest.clamp(min=0) + own).log() + top)

    def of_items(self, ids: Tensor) -> Tensor:
        """[T, K] scores of the items int64 [T, K]."""
        if self.all is not None:
            return self.all.gather(1, ids)
        scores = gathered_scores(self.q, self.table, ids)
        return scores if self.bias is None else scores + self.scale * self.bias[ids]

    def log_partition(self, ids: Tensor, kept: Tensor, temperature: float | Tensor) -> Tensor:
        """[T]: log of the sum of exp(s / t) over the catalog, in which the items `ids` with scores `kept` are exact."""
        if self.all is not None:
            return log_partition(self.all, temperature=temperature)
        # The true item is exact as well: it is often the best of those that the teacher did not keep.
        known = torch.cat([ids, self.targets[:, None]], 1)
        positive = self.positive.masked_fill((ids == self.targets[:, None]).any(1), -torch.inf)
        return log_partition(self._negatives(), kept, positive, log_expected=self.log_expected,
                             temperature=temperature, left_out=self._drawn_among(known))

    def others(self, ids: Tensor) -> tuple[Tensor, Tensor | float]:
        """([T, N] scores of items that are none of `ids`, -inf where one is; for how many items each stands)."""
        if self.all is not None:
            return self.all.scatter(1, ids, -torch.inf), 1.0
        known = torch.cat([ids, self.targets[:, None]], 1)
        positive = self.positive.masked_fill((ids == self.targets[:, None]).any(1), -torch.inf)
        times = torch.exp(-torch.as_tensor(self.log_expected, device=self.q.device, dtype=self.q.dtype))
        times = times.expand(len(self.drawn)) if self.drawn is not None else times
        return torch.cat([self._without(known), positive[:, None]], 1), torch.cat([times, times.new_ones(1)])

    def _everything(self) -> Tensor:
        if self.all is None:
            raise ValueError("a sample of the catalog is not the whole")
        return self.all

    def _mean(self, others: Tensor | None) -> Tensor:
        """[T] mean score over the catalog; from a sample, its unbiased estimate."""
        if others is None:
            return self._everything().mean(1)
        times = torch.exp(-torch.as_tensor(self.log_expected, device=others.device))
        return (self.positive + (others.masked_fill(others == -torch.inf, 0) * times).sum(1)) / len(self.table)

    def _without(self, ids: Tensor) -> Tensor:
        """Negative scores [T, N] with -inf where one of the items `ids` [T, C] was drawn: nothing counts twice."""
        negative = self._negatives()
        return negative.index_put(self._drawn_among(ids), negative.new_tensor(-torch.inf))

    def _drawn_among(self, ids: Tensor) -> tuple[Tensor, Tensor]:
        """(rows, columns) of the negatives that are among the items `ids` [T, C] of their row."""
        places = self._places()[ids]
        row, at = (places >= 0).nonzero(as_tuple=True)
        return row, places[row, at]

    def _negatives(self) -> Tensor:
        if self.negative is None:
            raise ValueError("the whole catalog has no drawn negatives")
        return self.negative

    def _places(self) -> Tensor:
        """int64 [I]: the column of each item among the drawn, -1 where it is not; made once a step."""
        if self.drawn is None:
            raise ValueError("the whole catalog has no drawn negatives")
        if not self._place:
            column = torch.full((len(self.table),), -1, dtype=torch.long, device=self.drawn.device)
            column[self.drawn] = torch.arange(len(self.drawn), device=self.drawn.device)
            self._place.append(column)
        return self._place[0]
