"""Training a pointwise model: rows of features in, an output per head out, with or without knowledge."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from distilrec.errors import KnowledgeError, RecipeError, TrainingError, nearest, problem
from distilrec.features import Feature
from distilrec.losses import ROW_HARD, ROW_LOSSES, ROW_SOFT
from distilrec.models.coupling import couple
from distilrec.models.fields import inputs_of
from distilrec.training.loop import Fit, check_device, run
from distilrec.training.row_objective import Learner, row_objective, variances_of
from distilrec.training.row_validate import parse_row_metric, row_metric
from distilrec.training.settings import RANK_ONLY, TrainSettings
from distilrec.types import Knowledge
from distilrec.types_rows import Head, RowSplit

__all__ = ["RowWork", "check_row_terms", "default_losses", "fit_rows"]

_VALID_BLOCK = 8192  # rows that validation answers at a time


class RowWork:
    """The rows of a split as work for training.loop. Everything is encoded once and stays on the device."""

    def __init__(
        self, split: RowSplit, features: Sequence[Feature], settings: TrainSettings, *, losses: Mapping[str, float],
        knowledge: Knowledge | None, metric: str,
    ) -> None:
        self.split, self.settings, self.losses, self.metric = split, settings, dict(losses), metric
        self.rows = split.rows("train")
        if not len(self.rows):
            raise TrainingError(problem("the split has no train rows", "at least one",
                                        "look at the counts that `distilrec prepare` printed"))
        on = lambda array: torch.as_tensor(array, device=settings.device)  # noqa: E731
        keys, extra = _extra(knowledge, self.losses)
        columns = {name: array[self.rows] for name, array in split.columns.items()}
        if len(keys):
            columns = {name: np.concatenate([array, extra[name]]) for name, array in columns.items()}
        self.inputs = inputs_of(features, columns, None, settings.device)
        labels = split.label_matrix(self.rows)
        self.labels = on(np.concatenate([labels, np.full((len(keys), labels.shape[1]), np.nan, np.float32)]))
        self.weights = None
        if split.weights is not None:  # rows that nobody logged count like the average of those that somebody did
            own = split.weights[self.rows].astype(np.float32)
            self.weights = on(np.concatenate([own, np.full(len(keys), own.mean(), np.float32)]))
        self.rows = np.concatenate([self.rows, keys])
        self.known: dict[str, Tensor] = {}
        self.knowledge_digest = getattr(knowledge, "digest", None)
        if knowledge is not None:
            wanted = {"response"} if any(n in ROW_SOFT for n in self.losses) else set()
            wanted |= {"hidden"} if "hint" in self.losses else set()
            taught = knowledge.batch(self.rows)
            self.known = {name: on(np.ascontiguousarray(taught[name], dtype=np.float32)) for name in wanted}
            if "hidden" in self.known:  # dimensions of like weight, whatever the teacher's scale
                self.known["hidden"] = _standardized(self.known["hidden"])
        self.valid = split.rows("valid")
        self.valid_inputs = inputs_of(features, split.columns, self.valid, settings.device)
        self.valid_labels = split.label_matrix(self.valid)
        self.valid_groups = None if split.groups is None else split.groups[self.valid]

    @property
    def steps_per_epoch(self) -> int:
        return -(-len(self.rows) // self.settings.batch_size)

    @cached_property
    def identity(self) -> dict[str, Any]:
        return {"split": self.split.digest, "losses": self.losses, "knowledge": self.knowledge_digest}

    def batches(self, rng: np.random.Generator, done: float = 0.0) -> Iterator[Tensor]:  # noqa: ARG002
        """Positions among the train rows, shuffled. No batch is of one row, which batch norm could not train on."""
        order = torch.as_tensor(rng.permutation(len(self.rows)), device=self.settings.device)
        size, left = self.settings.batch_size, len(order) % self.settings.batch_size
        sizes = [size] * (len(order) // size) + [left] * (left > 0)
        if left == 1 and size > 2 and len(sizes) > 1:
            sizes[-2:] = [size - 1, 2]
        yield from order.split(sizes)

    def loss(self, model: nn.Module, batch: Tensor) -> Tensor:
        weights = None if self.weights is None else self.weights[batch]
        known = {name: array[batch] for name, array in self.known.items()}
        learner: Any = model
        return row_objective(learner, self.inputs.take(batch), self.labels[batch], weights, self.losses,
                             self.settings, known)

    def validate(self, model: nn.Module) -> float:
        if not len(self.valid):
            raise TrainingError(problem("the validation part has no rows, so no best weights can be chosen",
                                        "at least one row of each class", "choose a split that keeps some"))
        return row_metric(self.metric, self.split.outputs, self.answers(model), self.valid_labels, self.valid_groups,
                          None if self.split.weights is None else self.split.weights[self.valid])

    @torch.inference_mode()
    def hidden_width(self, model: nn.Module) -> int:
        """H of the model's last hidden layer, 0 where it has none."""
        out = model.eval()(self.inputs.take(torch.zeros(2, dtype=torch.int64, device=self.settings.device)))
        return out["hidden"].shape[1] if "hidden" in out else 0

    @torch.inference_mode()
    def answers(self, model: nn.Module) -> np.ndarray:
        """float32 [n, O] for the validation rows."""
        learner: Any = model.eval()
        blocks = torch.arange(len(self.valid), device=self.settings.device).split(_VALID_BLOCK)
        heads = self.split.heads
        parts = [couple(learner.model(self.valid_inputs.take(rows))["scores"].float(), heads) for rows in blocks]
        return torch.cat(parts).cpu().numpy()


def fit_rows(
    model: nn.Module, split: RowSplit, features: Sequence[Feature], settings: TrainSettings, *,
    losses: Mapping[str, float] | None = None, knowledge: Knowledge | None = None, metric: str,
    auxiliary: bool = False, folder: Path | None = None, min_steps: int = 0, what: str = "training", origin: str = "",
) -> Fit:
    """Train `model` in place on the train rows and keep the weights of the best validation metric.

    Args:
        features: those that the model reads, in its order.
        losses: name -> weight; by default the likelihood of each head (see `default_losses`).
        auxiliary: the soft terms teach an auxiliary head instead of the served one.
        folder, min_steps, origin: see training.loop.run.
    Raises:
        RecipeError, KnowledgeError: a loss that no head has, a soft one without its knowledge, an unknown metric, a
            setting that only ranking reads.
        TrainingError: NaN, a checkpoint of another run, nothing to train or to validate on.
    """
    losses = dict(losses or default_losses(split.heads))
    check_row_terms(losses, split.heads, knowledge)
    parse_row_metric(metric, split.heads)
    check_device(settings)
    for name in RANK_ONLY:
        if getattr(settings, name) != TrainSettings.model_fields[name].get_default(call_default_factory=True):
            raise RecipeError(problem(f"{name} = {getattr(settings, name)!r} for a model of rows",
                                      "settings that training on rows reads", f"leave {name} out"))
    work = RowWork(split, features, settings, losses=losses, knowledge=knowledge, metric=metric)
    hint_width = work.known["hidden"].shape[1] if "hidden" in work.known else 0
    torch.manual_seed(settings.seed + 1)  # the first weights of what only training needs
    learner = Learner(model, split.outputs, variances_of(split), width=work.hidden_width(model), auxiliary=auxiliary,
                      hint_width=hint_width)
    return run(learner.to(settings.device), work, settings, metric=metric, folder=folder, min_steps=min_steps,
               what=what, origin=origin)


def default_losses(heads: tuple[Head, ...]) -> dict[str, float]:
    """The likelihood of each kind of head: what a control is trained with."""
    return {name: 1.0 for name, kinds in ROW_HARD.items() if any(head.kind in kinds for head in heads)}


def check_row_terms(losses: Mapping[str, float], heads: tuple[Head, ...], knowledge: Knowledge | None) -> None:
    """Refuse, before anything is trained, losses that are unknown, that teach no head, or that lack their knowledge.

    Raises:
        RecipeError, KnowledgeError.
    """
    for name in losses:
        if name not in ROW_LOSSES:
            raise RecipeError(problem(f"loss {name!r} is unknown{nearest(name, ROW_LOSSES)}", ", ".join(ROW_LOSSES)))
        kinds = {**ROW_HARD, **ROW_SOFT}[name]
        if kinds and not any(head.kind in kinds for head in heads):
            raise RecipeError(problem(f"the loss {name!r} has no head to teach: the heads are "
                                      + ", ".join(f"{head.name} ({head.kind})" for head in heads),
                                      f"a head of kind {' or '.join(kinds)}", "choose a loss that fits"))
        if name in ROW_SOFT:
            need = "hidden" if name == "hint" else "response"
            have = [] if knowledge is None else list(knowledge.signals)
            if need not in have:
                raise KnowledgeError(problem(
                    f"the loss {name!r} needs the teacher's {need!r}; the store holds {', '.join(have) or 'nothing'}",
                    f"a knowledge store with {need!r}",
                    "run `distilrec extract`" + (" with knowledge.hidden: true" if need == "hidden" else ""),
                ))
    for head in heads:
        fitting = [name for name, kinds in {**ROW_HARD, **ROW_SOFT}.items() if head.kind in kinds]
        if not any(losses.get(name) for name in fitting):
            raise RecipeError(problem(f"no loss teaches the head {head.name!r} ({head.kind})", " or ".join(fitting)))


def _extra(knowledge: Knowledge | None, losses: Mapping[str, float]) -> tuple[np.ndarray, Mapping[str, np.ndarray]]:
    """(keys, encoded columns) of the rows that only the teacher speaks of; none where no loss listens to it."""
    told = getattr(knowledge, "extra_rows", None)
    if told is None or not any(name in ROW_SOFT for name in losses):
        return np.empty(0, dtype=np.int64), {}
    return told()


def _standardized(values: Tensor) -> Tensor:
    return (values - values.mean(0)) / values.std(0).clamp(min=1e-6)
