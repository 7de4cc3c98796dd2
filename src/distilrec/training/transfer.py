"""Parameter transfer: a teacher's layers start the student's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from distilrec.errors import TrainingError, problem

__all__ = ["copy_layers", "interpolate"]


@torch.no_grad()
def copy_layers(teacher: nn.Module, student: nn.Module, chosen: Sequence[int] | None = None) -> None:
    """Copy teacher blocks into the student, layer for layer, the final norm, and positions of the same shape and kind.

    Positions that are counted from the start (sasrec) and from the end (bert4rec) are of unlike kinds; where these or
    the shapes differ, the student's stay as they are.

    Args:
        chosen: teacher layers for the student's layers in turn; by default spread evenly, the last one always among
            them (Sanh et al., "DistilBERT", 2019, who take every second layer).
    Raises:
        TrainingError: the models have no blocks, or blocks of another shape or number of heads; more layers of the
            student than of the teacher, unless it is said which go where.
    """
    source, target = _blocks(teacher), _blocks(student)
    if chosen is None and len(source) < len(target):
        raise TrainingError(problem(f"a student of {len(target)} layers, more than the {len(source)} of its teacher",
                                    f"{len(source)} layers or fewer",
                                    "set the student's `layers` lower, or do not copy layers"))
    if chosen is None:
        chosen = [round((i + 1) * len(source) / len(target)) - 1 for i in range(len(target))]
    if len(chosen) != len(target) or not all(0 <= i < len(source) for i in chosen):
        raise TrainingError(problem(f"teacher layers {list(chosen)} for {len(target)} student layers",
                                    f"{len(target)} numbers below {len(source)}"))
    for index, block in zip(chosen, target, strict=True):
        heads = [getattr(one, "heads", None) for one in (source[index], block)]
        if heads[0] != heads[1]:  # the shapes would agree, and every head would read half of another one
            raise TrainingError(problem(f"teacher layer {index} has {heads[0]} heads, the student's has {heads[1]}",
                                        "the same number", "set the student's `heads` to the teacher's"))
        theirs, ours = source[index].state_dict(), block.state_dict()
        unlike = [name for name in ours if name not in theirs or theirs[name].shape != ours[name].shape]
        if unlike:
            raise TrainingError(problem(
                f"teacher layer {index} does not fit ({unlike[0]}: "
                f"{tuple(theirs[unlike[0]].shape) if unlike[0] in theirs else 'missing'} against "
                f"{tuple(ours[unlike[0]].shape)})",
                "equal inner width and feedforward",
                "set the student's `hidden` to the teacher's width, or do not copy layers",
            ))
        block.load_state_dict(theirs)
    for part in ("norm", "positions", "from_end"):
        given, own = getattr(teacher, part, None), getattr(student, part, None)
        if isinstance(given, nn.Module) and isinstance(own, nn.Module):
            own.load_state_dict(given.state_dict())
        elif isinstance(given, nn.Parameter) and isinstance(own, nn.Parameter) and given.shape == own.shape:
            own.copy_(given)


@torch.no_grad()
def interpolate(
    student: nn.Module, teacher_vectors: np.ndarray, shares: Sequence[float], validate: Callable[[nn.Module], float]
) -> tuple[float, dict[float, float]]:
    """Move the student's item table towards the teacher's, projected as at the start, by the share that validates best.

    W = (1 - a) W_student + a W_teacher; the model keeps the best W, which may be its own (a = 0).

    Args:
        teacher_vectors: float32 [I, E]; shares: the a to try, each in (0, 1].
        validate: higher is better.
    Returns:
        (the best share, {share: what it validates at}).

    Source: Wortsman et al., "Robust fine-tuning of zero-shot models", CVPR 2022 (WiSE-FT), there between a model and
    what it was fine-tuned from; here the two ends are the projected start and what training made of it.
    """
    net: Any = student
    own = net.table.weight.detach().clone()
    net.table.set_vectors(teacher_vectors)
    theirs = net.table.weight.detach().clone()
    found = {}
    for share in (0.0, *shares):
        net.table.weight.copy_(torch.lerp(own, theirs, share))
        found[float(share)] = validate(student)
    best = max(found, key=lambda share: found[share])
    net.table.weight.copy_(torch.lerp(own, theirs, best))
    return best, found


def _blocks(model: Any) -> nn.ModuleList:
    blocks = getattr(model, "blocks", None)
    if not isinstance(blocks, nn.ModuleList):
        raise TrainingError(problem(f"{type(model).__name__} has no layers to copy", "a model with `blocks` (sasrec)"))
    return blocks
