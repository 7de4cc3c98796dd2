"""The one training loop: optimizer, schedule, early stop, checkpoint, NaN stop, progress; whatever is trained."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from distilrec.errors import RecipeError, TrainingError, problem
from distilrec.models.fields import FieldTable
from distilrec.progress import track
from distilrec.training.checkpoint import load_checkpoint, save_checkpoint
from distilrec.training.lazy_adam import LazyAdam
from distilrec.training.memory import give_back
from distilrec.training.settings import TrainSettings, lower_is_better

__all__ = ["Fit", "Work", "check_device", "epoch", "make_optimizer", "run", "schedule"]


@dataclass(eq=False)
class Fit:
    """What training did: the model holds the best weights afterwards."""

    metric: str
    best: float = -math.inf
    best_epoch: int = 0
    epochs: int = 0
    steps: int = 0
    seconds: float = 0.0  # training and validation, summed over resumed runs
    cpu_seconds: float = 0.0
    curve: list[dict[str, float]] = field(default_factory=list)  # one entry per evaluation


class Work(Protocol):
    """What is trained on. Ranking sequences and rows of features each have one (training.fit, training.row_fit)."""

    @property
    def steps_per_epoch(self) -> int: ...

    @property
    def identity(self) -> dict[str, Any]:
        """What must be the same, beside settings and shapes, for a checkpoint to be of this run."""
        ...

    def batches(self, rng: np.random.Generator, done: float) -> Iterator[Any]:
        """The batches of one epoch; every random choice is drawn from `rng`. `done`: the share of epochs behind it."""
        ...

    def loss(self, model: nn.Module, batch: Any) -> Tensor:
        """Scalar, to be lowered."""
        ...

    def validate(self, model: nn.Module) -> float:
        """The metric that selects the weights, on the validation part."""
        ...


def run(
    model: nn.Module, work: Work, settings: TrainSettings, *, metric: str, folder: Path | None = None,
    min_steps: int = 0, what: str = "training", origin: str = "", stop_at: int | None = None,
) -> Fit:
    """Train `model` in place and keep the weights of the best validation metric.

    Args:
        folder: where the checkpoint lives. A killed run started again with the same arguments goes on from there
            and ends, on a CPU, with the same weights as an uninterrupted one.
        min_steps: do not stop early before so many steps (a control gets at least as many as its student).
        origin: what the caller knows of this run beyond the arguments (architecture, first weights), so that a
            checkpoint of another one is refused.
        stop_at: train just so many epochs of the schedule and keep the last weights, without asking the validation part
            (it has chosen this number before, and is trained on now).
    Raises:
        TrainingError: NaN, a checkpoint of another run, a device that is not there.
    """
    optimizer = make_optimizer(model, settings)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule(settings, work.steps_per_epoch))
    torch.manual_seed(settings.seed)
    sign = -1.0 if lower_is_better(metric) else 1.0
    state = Fit(metric, best=-sign * math.inf)
    best = _weights(model)
    identity = {
        **work.identity, "settings": settings.model_dump(mode="json", exclude={"device"}), "origin": origin,
        "metric": metric, "min_steps": min_steps, "stop_at": stop_at,
        "shapes": {name: list(tensor.shape) for name, tensor in model.state_dict().items()},
    }
    if folder is not None:
        resumed = load_checkpoint(folder, model, optimizer, scheduler, identity)
        if resumed is not None:
            best = resumed.best_weights
            state = Fit(**resumed.state)
    last = settings.epochs if stop_at is None else stop_at
    with track(last - state.epochs, what) as progress:
        while state.epochs < last and (stop_at is not None or not _finished(state, settings, min_steps)):
            begun, cpu = time.perf_counter(), time.process_time()
            loss = epoch(model, work, settings, optimizer, scheduler, state)
            state.epochs += 1
            if stop_at is not None:
                if state.epochs == stop_at:
                    best = _weights(model)
            elif state.epochs % settings.evaluate_every == 0 or state.epochs == settings.epochs:
                value = work.validate(model)
                if sign * value > sign * state.best:
                    state.best, state.best_epoch = value, state.epochs
                    best = _weights(model)
                state.curve.append({"epoch": state.epochs, "step": state.steps, "loss": loss, "valid": value,
                                    "seconds": state.seconds + time.perf_counter() - begun})
            state.seconds += time.perf_counter() - begun
            state.cpu_seconds += time.process_time() - cpu
            if folder is not None:
                save_checkpoint(folder, model, optimizer, scheduler, best, state.__dict__, identity)
            give_back()
            told = {} if stop_at is not None else {metric: f"{state.best:.4f}"}
            progress.advance(1, loss=f"{loss:.4f}", **told)
    for module in model.modules():
        if isinstance(module, FieldTable):
            module.before_read = None  # the optimizer is done, and may go
    model.load_state_dict(best)
    model.eval()
    return state


def check_device(settings: TrainSettings) -> None:
    if settings.device.startswith("cuda") and not torch.cuda.is_available():
        raise TrainingError(problem(f"device {settings.device!r}, and torch sees no GPU",
                                    "cpu, or a GPU that torch can use", "give --device cpu"))


def epoch(
    model: nn.Module, work: Work, settings: TrainSettings, optimizer: torch.optim.Optimizer, scheduler: Any, state: Fit,
) -> float:
    """One pass over the training data; returns the mean loss."""
    model.train()
    # Every random choice of an epoch follows from (seed, epoch), so a resumed run repeats nothing and skips nothing.
    rng = np.random.default_rng([settings.seed, state.epochs])
    torch.manual_seed(int(rng.integers(2**62)))
    total = torch.zeros((), device=settings.device)
    batches = 0
    for batch in work.batches(rng, state.epochs / settings.epochs):
        total += _step(model, work, batch, settings, optimizer)
        scheduler.step()
        batches += 1
        state.steps += 1
        if batches % 50 == 0:
            _check(total, state, settings)
    _check(total, state, settings)
    if isinstance(optimizer, LazyAdam):
        optimizer.settle()
    return float(total) / max(1, batches)


def _step(
    model: nn.Module, work: Work, batch: Any, settings: TrainSettings, optimizer: torch.optim.Optimizer
) -> Tensor:
    device_type = settings.device.split(":")[0]
    with torch.autocast(device_type, dtype=torch.bfloat16, enabled=settings.precision == "bf16"):
        loss = work.loss(model, batch)
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    if settings.gradient_clip:
        nn.utils.clip_grad_norm_(model.parameters(), settings.gradient_clip)
    optimizer.step()
    return loss.detach()


def _check(total: torch.Tensor, state: Fit, settings: TrainSettings) -> None:
    if not math.isfinite(float(total)):
        raise TrainingError(problem(
            f"the loss became {float(total)} at step {state.steps} (epoch {state.epochs + 1})", "a finite number",
            f"lower learning_rate (now {settings.learning_rate}), set gradient_clip: 1.0, or look for extreme content "
            "vectors; the checkpoint of the last whole epoch is kept",
        ))


def _finished(state: Fit, settings: TrainSettings, min_steps: int) -> bool:
    stale = state.epochs - state.best_epoch >= settings.patience * settings.evaluate_every
    return state.epochs > 0 and stale and state.steps >= min_steps


def make_optimizer(model: nn.Module, settings: TrainSettings) -> torch.optim.Optimizer:
    """Weight decay falls on matrices and tables, never on norms and biases.

    Raises:
        RecipeError: lazy_adam for a model without a FieldTable, or with gradient_clip.
    """
    groups = [
        {"params": [p for p in model.parameters() if p.dim() > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in model.parameters() if p.dim() <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    rate = settings.learning_rate
    if settings.optimizer == "lazy_adam":
        lazy = LazyAdam(groups, lr=rate)
        for table in _id_tables(model, settings):
            table.before_read = lazy.catch_up
        return lazy
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=rate, fused=True)
    if settings.optimizer == "adam":
        return torch.optim.Adam(groups, lr=rate, fused=True)
    if settings.optimizer == "adagrad":
        return torch.optim.Adagrad(groups, lr=rate, fused=settings.device == "cpu")
    return torch.optim.SGD(groups, lr=rate, momentum=0.9, fused=True)


def _id_tables(model: nn.Module, settings: TrainSettings) -> list[FieldTable]:
    tables = [module for module in model.modules() if isinstance(module, FieldTable)]
    if not tables or settings.gradient_clip:
        raise RecipeError(problem(
            "optimizer: lazy_adam " + ("with gradient_clip" if tables else "for a model without a table of features"),
            "a model of the tasks predict and tag, without gradient_clip", "use optimizer: adamw",
        ))
    return tables


def schedule(settings: TrainSettings, steps_per_epoch: int) -> Any:
    whole = settings.epochs * steps_per_epoch

    def factor(step: int) -> float:
        warm = min(1.0, (step + 1) / settings.warmup_steps) if settings.warmup_steps else 1.0
        done = min(1.0, step / whole)
        if settings.schedule == "linear":
            return warm * (1 - 0.99 * done)
        if settings.schedule == "cosine":
            return warm * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * done)))
        return warm

    return factor


def _weights(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
