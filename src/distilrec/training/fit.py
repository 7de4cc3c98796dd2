"""The one training loop: any trained model, with or without knowledge."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from distilrec.errors import RecipeError, TrainingError, nearest, problem
from distilrec.losses import LOSSES, SOFT
from distilrec.progress import track
from distilrec.training.batches import Batch, epoch_batches, training_examples
from distilrec.training.checkpoint import load_checkpoint, save_checkpoint
from distilrec.training.objective import Negatives, objective
from distilrec.training.settings import TrainSettings
from distilrec.training.validate import parse_metric, validate
from distilrec.types import Examples, Knowledge, Split

__all__ = ["Fit", "fit"]


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


def fit(
    model: nn.Module, split: Split, settings: TrainSettings, *, losses: Mapping[str, float] | None = None,
    knowledge: Knowledge | None = None, metric: str = "ndcg@10", seen: str = "drop", folder: Path | None = None,
    min_steps: int = 0, open_end: bool | None = None, what: str = "training", origin: str = "",
) -> Fit:
    """Train `model` in place on the train part and keep the weights of the best validation metric.

    Args:
        losses: name -> weight, e.g. {"cross_entropy": 0.2, "kl": 0.8}; hard cross-entropy alone by default.
        knowledge: what the soft terms read, keyed by event.
        folder: where the checkpoint lives. A killed run started again with the same arguments goes on from there
            and ends, on a CPU, with the same weights as an uninterrupted one.
        min_steps: do not stop early before so many steps (a control gets at least as many as its student).
        open_end: also train the soft terms on the decision after the last train event; by default whenever there
            is knowledge.
        origin: what the caller knows of this run beyond the arguments (architecture, first weights), so that a
            checkpoint of another one is refused.
    Raises:
        RecipeError: an unknown loss or metric, a soft loss without knowledge.
        TrainingError: NaN, a checkpoint of another run, nothing to train or to validate on.
    """
    losses = dict(losses or {"cross_entropy": 1.0})
    _check_terms(losses, knowledge, metric)
    if settings.device.startswith("cuda") and not torch.cuda.is_available():
        raise TrainingError(problem(f"device {settings.device!r}, and torch sees no GPU",
                                    "cpu, or a GPU that torch can use", "give --device cpu"))
    net: Any = model.to(settings.device)
    examples = training_examples(
        split, net.max_length, needs_history=net.needs_history, windows=settings.windows,
        open_end=knowledge is not None if open_end is None else open_end,
    )
    if not len(examples):
        raise TrainingError(problem("no user has enough train events", "two events for a sequence model",
                                    "look at the counts that `distilrec prepare` printed"))
    optimizer = _optimizer(model, settings)
    steps_per_epoch = -(-len(examples) // settings.batch_size)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, _schedule(settings, steps_per_epoch))
    torch.manual_seed(settings.seed)
    state = Fit(metric)
    best = _weights(model)
    identity = {
        **_identity(split, settings, losses, model), "origin": origin, "metric": metric, "seen": seen,
        "min_steps": min_steps, "knowledge": getattr(knowledge, "digest", None), "open_end": open_end,
    }
    if folder is not None:
        resumed = load_checkpoint(folder, model, optimizer, scheduler, identity)
        if resumed is not None:
            best = resumed.best_weights
            state = Fit(**resumed.state)
    draws = Negatives.of(split.train_counts, settings)
    with track(settings.epochs - state.epochs, what) as progress:
        while state.epochs < settings.epochs and not _finished(state, settings, min_steps):
            begun, cpu = time.perf_counter(), time.process_time()
            loss = _epoch(model, split, examples, settings, losses, knowledge, optimizer, scheduler, draws, state)
            state.epochs += 1
            if state.epochs % settings.evaluate_every == 0 or state.epochs == settings.epochs:
                value = validate(model, split, metric, seen=seen, device=settings.device)
                if value > state.best:
                    state.best, state.best_epoch = value, state.epochs
                    best = _weights(model)
                state.curve.append({"epoch": state.epochs, "step": state.steps, "loss": loss, "valid": value,
                                    "seconds": state.seconds + time.perf_counter() - begun})
            state.seconds += time.perf_counter() - begun
            state.cpu_seconds += time.process_time() - cpu
            if folder is not None:
                save_checkpoint(folder, model, optimizer, scheduler, best, state.__dict__, identity)
            progress.advance(1, loss=f"{loss:.4f}", **{metric: f"{state.best:.4f}"})
    model.load_state_dict(best)
    model.eval()
    return state


def _check_terms(losses: Mapping[str, float], knowledge: Knowledge | None, metric: str) -> None:
    parse_metric(metric)
    for name in losses:
        if name not in LOSSES:
            raise RecipeError(problem(f"loss {name!r} is unknown{nearest(name, LOSSES)}", ", ".join(LOSSES)))
        if name in SOFT and knowledge is None:
            raise RecipeError(problem(f"the loss {name!r} learns from a teacher, and there is no knowledge",
                                      "a knowledge store", "run `distilrec extract`, or name plain losses only"))


def _epoch(
    model: nn.Module, split: Split, examples: Examples, settings: TrainSettings, losses: Mapping[str, float],
    knowledge: Knowledge | None, optimizer: torch.optim.Optimizer, scheduler: Any, draws: Negatives, state: Fit,
) -> float:
    """One pass over the training sequences; returns the mean loss."""
    net: Any = model.train()
    # Every random choice of an epoch follows from (seed, epoch), so a resumed run repeats nothing and skips nothing.
    rng = np.random.default_rng([settings.seed, state.epochs])
    torch.manual_seed(int(rng.integers(2**62)))
    total = torch.zeros((), device=settings.device)
    batches = 0
    for batch in epoch_batches(split, examples, settings.batch_size, rng,
                               augment=settings.augment, needs_history=net.needs_history):
        known = knowledge.batch(batch.keys) if knowledge is not None else None
        loss = _step(model, batch, draws.draw(rng), losses, settings, known, optimizer)
        scheduler.step()
        total += loss
        batches += 1
        state.steps += 1
        if batches % 50 == 0:
            _check(total, state, settings)
    _check(total, state, settings)
    return float(total) / max(1, batches)


def _step(
    model: nn.Module, batch: Batch, negatives: Any, losses: Mapping[str, float], settings: TrainSettings,
    known: Mapping[str, np.ndarray] | None, optimizer: torch.optim.Optimizer,
) -> torch.Tensor:
    device_type = settings.device.split(":")[0]
    with torch.autocast(device_type, dtype=torch.bfloat16, enabled=settings.precision == "bf16"):
        loss, _ = objective(model, batch, negatives, losses, settings, known)
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


def _optimizer(model: nn.Module, settings: TrainSettings) -> torch.optim.Optimizer:
    """Weight decay falls on matrices and tables, never on norms and biases."""
    groups = [
        {"params": [p for p in model.parameters() if p.dim() > 1], "weight_decay": settings.weight_decay},
        {"params": [p for p in model.parameters() if p.dim() <= 1], "weight_decay": 0.0},
    ]
    groups = [group for group in groups if group["params"]]
    rate = settings.learning_rate
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=rate, fused=True)
    if settings.optimizer == "adam":
        return torch.optim.Adam(groups, lr=rate, fused=True)
    if settings.optimizer == "adagrad":
        return torch.optim.Adagrad(groups, lr=rate, fused=settings.device == "cpu")
    return torch.optim.SGD(groups, lr=rate, momentum=0.9, fused=True)


def _schedule(settings: TrainSettings, steps_per_epoch: int) -> Any:
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


def _identity(split: Split, settings: TrainSettings, losses: Mapping[str, float], model: nn.Module) -> dict[str, Any]:
    """What must be the same for a checkpoint to be of this run."""
    return {
        "split": split.digest, "settings": settings.model_dump(mode="json"), "losses": dict(losses),
        "shapes": {name: list(tensor.shape) for name, tensor in model.state_dict().items()},
    }
