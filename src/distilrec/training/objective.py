"""One step's loss: scores of the needed items, then the weighted sum of the recipe's terms."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from distilrec.losses import SOFT
from distilrec.models.layer_states import watched
from distilrec.training.batches import Batch
from distilrec.training.learner import NOTHING, RankLearner, Taught
from distilrec.training.scores import Scores
from distilrec.training.settings import TrainSettings
from distilrec.training.soft_terms import Step, soft_term
from distilrec.training.weighting import consistency, pace, self_paced

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
    losses: Mapping[str, float], settings: TrainSettings, knowledge: Mapping[str, Any] | None = None,
    taught: Taught = NOTHING, *, done: float = 0.0, n_events: int = 0,
) -> tuple[Tensor, dict[str, Tensor]]:
    """(scalar loss, value of each term). Hard terms average over labeled decisions, soft terms over soft ones.

    Args:
        model: or a RankLearner with the bridges that its losses need.
        knowledge: arrays or tensors, of the soft decisions of the batch, in their order.
        taught: what the teacher said once for all steps.
        done: the share of training that lies behind, which weighting rules may follow.
        n_events: keys from here on are open decisions.
    Raises:
        ValueError: a soft term without knowledge.
    """
    truth = np.unique(batch.targets[batch.labeled]) if "query" in (knowledge or {}) else batch.targets[:0]
    if all(name in SOFT for name in losses):  # nobody needs the scores of the other decisions
        batch = batch.soft_only()
    device = settings.device
    learner = model if isinstance(model, RankLearner) else RankLearner(model)
    net: Any = learner.model
    on = lambda array: torch.as_tensor(array, device=device)  # noqa: E731
    items, lengths = on(batch.items), on(batch.lengths)
    with watched(net, any(SOFT.get(name) == "layers" for name in losses)) as states:
        hidden = net.query(items, lengths, on(batch.users))
    labels = None
    if not net.needs_history and not batch.soft.all():  # one vector answers all labels of a user
        labels = on(batch.targets), on(np.cumsum(batch.soft) - 1), on(batch.labeled)
        batch = batch.soft_only()
    q = hidden.flatten(0, 1)[on(batch.positions)].float()
    scores = Scores.of(q * settings.score_scale, net.item_vectors(), net.item_bias(), settings.score_scale,
                       on(batch.targets), negatives, on)
    step = None
    if any(name in SOFT for name in losses):
        if knowledge is None:
            raise ValueError(f"the losses {', '.join(n for n in losses if n in SOFT)} need knowledge")
        rows = None if batch.soft.all() else on(np.flatnonzero(batch.soft))
        chosen = slice(None) if rows is None else batch.soft
        known = {name: on(array) for name, array in knowledge.items()}
        if "response.ids" in known:
            known["response.ids"] = known["response.ids"].long()
        step = Step(learner, scores.take(rows), q if rows is None else q[rows], known, taught, settings, items, lengths,
                    on(batch.positions[chosen]), on(batch.keys[chosen] >= n_events), on(truth), states, [])
    weight_of = None if step is None else _trust(step, settings)
    total, values = q.new_zeros(()), {}
    both = any(name in SOFT for name in losses) and any(name not in SOFT for name in losses)
    for name, weight in losses.items():
        if name in SOFT and step is not None:
            term, of = soft_term(name, step)
            if of is None and "curriculum" in settings.weighting:
                term = term * self_paced(term, pace(done))
            mean = _weighted(term, weight_of, of)
        else:
            term, mask = (scores.hard(name, settings), on(batch.labeled)) if labels is None else \
                (scores.hard_by_owner(name, settings, *labels[:2]), labels[2])
            mean = torch.where(mask, term, 0.0).sum() / mask.sum().clamp(min=1)
        share = settings.share(name in SOFT, done) if both else 1.0  # a control has nothing to balance
        total = total + share * weight * mean
        values[name] = mean.detach()
    if getattr(net, "penalty", None) is not None:  # what the model itself wants, e.g. to stay near a prior
        total, values["penalty"] = total + net.penalty, net.penalty.detach()
    return total, values


def _trust(step: Step, settings: TrainSettings) -> Tensor | None:
    """[n]: what the store says of its own worth, times what the student makes of it."""
    trust = step.known.get("response.trust")
    if "consistency" not in settings.weighting:
        return trust
    agreed = consistency(step.kept(), step.known["response"], *step.scores.others(step.ids))
    return agreed if trust is None else agreed * trust


def _weighted(term: Tensor, trust: Tensor | None, rows: Tensor | None) -> Tensor:
    """Mean of trust x term. The divisor is the number of decisions: what is distrusted is left out, not replaced."""
    if trust is not None:
        term = term * (trust if rows is None else trust[rows])
    return term.sum() / max(1, len(term))
