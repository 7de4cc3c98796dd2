"""Training a ranking model: sequences in, the next item out, with or without knowledge."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from distilrec.errors import KnowledgeError, RecipeError, TrainingError, nearest, problem
from distilrec.knowledge.extract import decisions
from distilrec.knowledge.trust import Trusted
from distilrec.losses import LOSSES, SOFT
from distilrec.models.layer_states import layer_shape
from distilrec.training.batches import Batch, epoch_batches, training_examples
from distilrec.training.learner import RankLearner, learner_of, taught_of
from distilrec.training.live import answers_in, average_of, follow
from distilrec.training.loop import Fit, check_device, run
from distilrec.training.objective import Negatives, objective
from distilrec.training.settings import Augment, TrainSettings
from distilrec.training.validate import parse_metric, validate
from distilrec.types import Knowledge, Split

__all__ = ["RankWork", "fit", "read_by"]


class RankWork:
    """The sequences of a split as work for training.loop."""

    def __init__(
        self, model: nn.Module, split: Split, settings: TrainSettings, *, losses: Mapping[str, float] | None = None,
        knowledge: Knowledge | None = None, metric: str = "ndcg@10", seen: str = "drop", open_end: bool | None = None,
    ) -> None:
        net: Any = model
        self.split, self.settings, self.knowledge = split, settings, knowledge
        self.losses = dict(losses or {"cross_entropy": 1.0})
        self.metric, self.seen, self.open_end = metric, seen, open_end
        self.needs_history = net.needs_history
        self.mask_share = net.mask_share if getattr(net, "cloze", False) else None
        if self.mask_share is not None and settings.augment != Augment():
            raise RecipeError(problem(f"augment for a model of kind {type(model).__name__}", "no augmentation",
                                      "it masks by itself, see its setting mask_share"))
        self.examples = training_examples(
            split, net.max_length, needs_history=net.needs_history, windows=settings.windows,
            open_end=any(name in SOFT for name in self.losses) if open_end is None else open_end,
        )
        soft = {SOFT[name] for name in self.losses if name in SOFT}
        self.read = soft | {"response"} if soft else set()  # answers also say how far to trust the rest
        self.draws = Negatives.of(split.train_counts, settings)
        self.taught, self.teacher_width = taught_of(knowledge, split, self.losses, settings.device)

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.examples) // self.settings.batch_size)

    @cached_property
    def identity(self) -> dict[str, Any]:
        return {"split": self.split.digest, "losses": self.losses, "seen": self.seen, "open_end": self.open_end,
                "knowledge": getattr(self.knowledge, "digest", None)}

    def batches(self, rng: np.random.Generator, done: float = 0.0) -> Iterator[tuple[Batch, Any, Any, float]]:
        """(sequences, shared negatives, what the teacher says of their soft decisions, share of training behind)."""
        for batch in epoch_batches(self.split, self.examples, self.settings.batch_size, rng,
                                   augment=self.settings.augment, needs_history=self.needs_history,
                                   mask_share=self.mask_share):
            known = None
            if self.read and self.knowledge is not None and self.settings.teacher == "store":
                known = self.knowledge.batch(batch.keys[batch.soft], self.read)
            yield batch, self.draws.draw(rng), known, done

    def loss(self, model: nn.Module, batch: tuple[Batch, Any, Any, float]) -> Tensor:
        sequences, negatives, known, done = batch
        how: dict[str, Any] = {"done": done, "n_events": len(self.split.items)}
        learner: Any = model
        if self.settings.teacher == "store":
            return objective(model, sequences, negatives, self.losses, self.settings, known, self.taught, **how)[0]
        if self.settings.teacher == "average":
            follow(learner.companion, learner.model, self.settings.decay)
        def taught(student: nn.Module, teacher: nn.Module) -> Tensor:
            said = answers_in(teacher, sequences, self.settings)
            return objective(student, sequences, negatives, self.losses, self.settings, said, self.taught, **how)[0]

        loss = taught(learner, learner.companion)
        return loss if self.settings.teacher == "average" else loss + taught(learner.companion, learner.model)

    def validate(self, model: nn.Module) -> float:
        model = model.model if isinstance(model, RankLearner) else model
        return validate(model, self.split, self.metric, seen=self.seen, device=self.settings.device)


def fit(
    model: nn.Module, split: Split, settings: TrainSettings, *, losses: Mapping[str, float] | None = None,
    knowledge: Knowledge | None = None, metric: str = "ndcg@10", seen: str = "drop", folder: Path | None = None,
    min_steps: int = 0, open_end: bool | None = None, what: str = "training", origin: str = "",
    stop_at: int | None = None, peer: nn.Module | None = None,
) -> Fit:
    """Train `model` in place on the train part and keep the weights of the best validation metric.

    Args:
        losses: name -> weight, e.g. {"cross_entropy": 0.2, "kl": 0.8}; hard cross-entropy alone by default.
        knowledge: what the soft terms read, keyed by event.
        folder, min_steps, origin, stop_at: see training.loop.run.
        peer: the same model from another start, which learns beside this one where `settings.teacher` is "peer".
        open_end: also train the soft terms on the decision after the last train event; by default whenever there
            is knowledge.
    Raises:
        RecipeError, KnowledgeError: an unknown loss or metric, a soft loss without the knowledge it needs, nothing but
            soft losses where nothing is believed.
        TrainingError: NaN, a checkpoint of another run, nothing to train or to validate on.
    """
    _check_terms(model, losses or {}, knowledge, metric, settings.teacher)
    read_by(model, knowledge, split)
    if isinstance(knowledge, Trusted) and settings.teacher == "store" and knowledge.silent and losses and all(
            name in SOFT or not weight for name, weight in losses.items()):
        raise KnowledgeError(problem(
            f"the weight of every decision is 0 (trust: {', '.join(knowledge.rules)}; users left out: "
            f"{knowledge.facts()['users_left_out']}), and there are soft losses only",
            "a decision that is believed, or a plain loss", "add cross_entropy, or another rule, or another teacher"))
    check_device(settings)
    work = RankWork(model, split, settings, losses=losses, knowledge=knowledge, metric=metric, seen=seen,
                    open_end=open_end)
    if not len(work.examples):
        raise TrainingError(problem("no user has enough train events", "two events for a sequence model",
                                    "look at the counts that `distilrec prepare` printed"))
    torch.manual_seed(settings.seed + 1)  # the first weights of what only training needs
    companion = average_of(model) if settings.teacher == "average" else peer
    learner = learner_of(model, work.losses, work.taught, work.teacher_width, settings.experts, companion)
    return run(learner.to(settings.device), work, settings, metric=metric, folder=folder, min_steps=min_steps,
               what=what, origin=origin, stop_at=stop_at)


def read_by(model: Any, knowledge: Knowledge | None, split: Split) -> None:
    """Say to knowledge with weights which decisions a model, or a class of models, reads of it: all of them, or only
    those after the last train event of each user (factorizations, and models that fill gaps).

    Raises:
        KnowledgeError: see `Trusted.read_at`.
    """
    if isinstance(knowledge, Trusted):
        keys = decisions(split)[0]
        along = model.needs_history and not getattr(model, "cloze", False)
        knowledge.read_at(keys if along else keys[keys >= len(split.items)])


def student_lacks(model: Any, loss: str) -> str | None:
    """What a student would have to be to learn by this loss; None where it can."""
    if loss == "attention_transfer" and not hasattr(model, "attention"):
        return "a transformer (sasrec, hstu, bert4rec)"
    if SOFT.get(loss) == "layers" and layer_shape(model) is None:
        return "a transformer (sasrec, hstu, bert4rec) of one layer or more, all of one width"
    if loss == "sobolev" and not model.needs_history:
        return "a model that reads a history"
    return None


def _check_terms(model: Any, losses: Mapping[str, float], knowledge: Knowledge | None, metric: str,
                 teacher: str) -> None:
    parse_metric(metric)
    for name in losses:
        if name not in LOSSES:
            raise RecipeError(problem(f"loss {name!r} is unknown{nearest(name, LOSSES)}", ", ".join(LOSSES)))
        if name in SOFT and teacher != "store":
            if SOFT[name] != "response":
                raise RecipeError(problem(f"the loss {name!r} with teacher: {teacher}", "losses of answers, such as kl",
                                          "such a teacher gives answers only"))
            continue
        if name in SOFT and knowledge is None:
            raise RecipeError(problem(f"the loss {name!r} learns from a teacher, and there is no knowledge",
                                      "a knowledge store", "run `distilrec extract`, or name plain losses only"))
        if name in SOFT and knowledge is not None and SOFT[name] not in knowledge.signals:
            raise KnowledgeError(problem(
                f"the loss {name!r} needs the teacher's {SOFT[name]!r}; the store holds {', '.join(knowledge.signals)}",
                f"a store with {SOFT[name]!r}",
                "run `distilrec extract` with this recipe, which keeps what its losses need, or in Python "
                f'dr.extract(teacher, split, signals=["{SOFT[name]}"])'))
        if (kind := student_lacks(model, name)) is not None:
            raise RecipeError(problem(f"the loss {name!r} with a student of kind {type(model).__name__}", kind,
                                      "choose another student or loss"))
