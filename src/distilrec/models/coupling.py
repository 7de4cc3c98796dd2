"""Heads that can only happen after another one: the logit of both."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from distilrec.errors import RecipeError, problem
from distilrec.types_rows import Head, Outputs

__all__ = ["both", "couple"]


def both(first: Tensor, second: Tensor) -> Tensor:
    """The logit of sigmoid(first) x sigmoid(second), elementwise.

    With p = 1 / ((1 + e^-a)(1 + e^-b)) the odds against are e^-a + e^-b + e^-(a + b), so that the logit is
    -logsumexp(-a, -b, -a - b): no probability is ever formed, and nothing is lost near 0 or 1.
    """
    return -torch.logsumexp(torch.stack([-first, -second, -first - second]), 0)


def couple(scores: Tensor, heads: Sequence[Head]) -> Tensor:
    """Raw scores [..., O] -> [..., O] in which a head `after` another holds the logit of both happening (entire-space
    modeling, Ma et al., SIGIR 2018); the other heads stay as they are. Chains are followed to their start.

    Raises:
        RecipeError: `after` names no binary head, or runs in a circle.
    """
    known = {head.name: head for head in heads}
    outputs = Outputs(tuple(heads))
    if scores.shape[-1] != outputs.size:
        raise RecipeError(problem(f"{scores.shape[-1]} scores", f"{outputs.size}, one per output of the heads"))
    if all(head.after is None for head in heads):
        return scores
    done: dict[str, Tensor] = {}

    def of(head: Head, waiting: tuple[str, ...]) -> Tensor:
        if head.name not in done:
            own = scores[..., outputs.slices[head.name]]
            if head.after is not None:
                before = known.get(head.after)
                if before is None or head.name in waiting or before.kind != "binary" or head.kind != "binary":
                    raise RecipeError(problem(f"head {head.name!r} is `after: {head.after}`",
                                              "both are binary heads, and no circle", "mend `after` under labels"))
                own = both(own, of(before, (*waiting, head.name)))
            done[head.name] = own
        return done[head.name]

    return torch.cat([of(head, ()) for head in heads], -1)
