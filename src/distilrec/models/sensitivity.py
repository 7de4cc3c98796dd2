"""How a score changes with each event of the history."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

__all__ = ["sensitivity"]


def sensitivity(
    model: nn.Module, items: Tensor, lengths: Tensor, last: Tensor, target: Tensor, *, create_graph: bool = False
) -> Tensor:
    """[B, L]: the derivative of the score of `target` by a factor before the vector of each event, at 1.

    That is the vector times the gradient by it: one number per event, comparable between models of unlike widths.

    Args:
        model: with the sequence-model contract, whose events enter through `table`.
        items: int64 [B, L] padded; lengths [B]; last: int64 [B], the position whose answer is looked at.
        target: int64 [B], the item whose score it is.
        create_graph: so that the result can itself be learned from; costs a second backward pass.
    """
    net: Any = model
    factors = torch.ones(items.shape, device=items.device, requires_grad=True)

    def scale(_module: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
        return output * factors[:, :, None]

    handle = net.table.register_forward_hook(scale)
    try:
        # the fused kernel has no second derivative
        with torch.enable_grad(), sdpa_kernel(SDPBackend.MATH):
            q = net.query(items, lengths)
            q = q[torch.arange(len(items), device=items.device), last]
            score = (q * net.item_vectors()[target]).sum()
            (gradient,) = torch.autograd.grad(score, factors, create_graph=create_graph)
    finally:
        handle.remove()
    seen = torch.arange(items.shape[1], device=items.device) <= last[:, None]
    return gradient * seen
