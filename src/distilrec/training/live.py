"""Teachers that live in the training step: an average of the student's own past, or a peer that learns beside it."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from distilrec.training.batches import Batch
from distilrec.training.settings import TrainSettings

__all__ = ["answers_in", "average_of", "follow"]

_KEPT = 100  # items of an answer, as in a store
_SCORES = 2**25  # computed at once


def average_of(model: nn.Module) -> nn.Module:
    """A copy that is not trained and that `follow` moves."""
    copied = copy.deepcopy(model)
    for weight in copied.parameters():
        weight.requires_grad_(False)
    return copied


@torch.no_grad()
def follow(average: nn.Module, model: nn.Module, decay: float) -> None:
    """average <- decay * average + (1 - decay) * model.

    Source: Tarvainen & Valpola, "Mean teachers are better role models", NeurIPS 2017.
    """
    for ours, theirs in zip(average.state_dict().values(), model.state_dict().values(), strict=True):
        if ours.dtype.is_floating_point:
            ours.lerp_(theirs, 1 - decay)
        else:
            ours.copy_(theirs)


@torch.no_grad()
def answers_in(teacher: nn.Module, batch: Batch, settings: TrainSettings) -> dict[str, Tensor]:
    """What a model says at the n soft decisions of a batch, in the form of a store's response.

    {"response": float32 [n, K] log-probabilities of the K best items, "response.ids": int64 [n, K],
    "response.mass": [n]}. No gradient reaches the teacher.
    """
    net: Any = teacher.model if hasattr(teacher, "model") else teacher
    on = lambda array: torch.as_tensor(array, device=settings.device)  # noqa: E731
    training = net.training
    net.eval()  # a teacher does not guess with half of its units
    q = net.query(on(batch.items), on(batch.lengths), on(batch.users)).flatten(0, 1)
    q = q[on(batch.positions[batch.soft])].float()
    net.train(training)
    table, bias = net.item_vectors().float(), net.item_bias()
    kept = min(_KEPT, len(table))
    values, ids = [], []
    for rows in q.split(max(1, _SCORES // len(table))):
        scores = rows @ table.T if bias is None else rows @ table.T + bias
        log_p = (settings.score_scale * scores).log_softmax(1)
        best = log_p.topk(kept, 1)
        values.append(best.values)
        ids.append(best.indices)
    response = torch.cat(values)
    return {"response": response, "response.ids": torch.cat(ids), "response.mass": response.exp().sum(1).clamp(max=1.0)}
