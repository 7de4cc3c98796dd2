"""What a layered model holds after each of its layers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["layer_shape", "layer_states", "watched"]


def layer_shape(model: nn.Module) -> tuple[int, int] | None:
    """(S, H), the number of a model's layers and their width; None where it has no `blocks` that refine one state and
    end in a `norm`, as transformers do."""
    blocks, norm = getattr(model, "blocks", None), getattr(model, "norm", None)
    if not isinstance(blocks, nn.ModuleList) or not isinstance(norm, nn.LayerNorm) or not len(blocks):
        return None
    return len(blocks), norm.normalized_shape[0]


@contextmanager
def watched(model: nn.Module, wanted: bool = True) -> Iterator[list[Tensor]]:
    """A list that a `query` within the context fills with the state [B, L, H] after each layer, lowest first.

    What is learned from the states is learned in the pass that answers, with the same dropout, and costs no other one.
    Where they are not `wanted` the list stays empty.
    """
    states: list[Tensor] = []

    def keep(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
        states.append(output)

    net: Any = model
    handles = [block.register_forward_hook(keep) for block in net.blocks] if wanted else []
    try:
        yield states
    finally:
        for handle in handles:
            handle.remove()


def layer_states(model: nn.Module, items: Tensor, lengths: Tensor) -> Tensor:
    """[B, L, S, H]: the state after each of the S layers at each position of the padded `items` [B, L]."""
    net: Any = model
    with watched(model) as states:
        net.query(items, lengths)
    return torch.stack(states, 2)
