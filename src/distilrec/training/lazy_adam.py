"""AdamW that leaves rows of id tables alone in the steps that did not see them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

__all__ = ["LazyAdam"]


class LazyAdam(torch.optim.AdamW):
    """AdamW (Loshchilov & Hutter, ICLR 2019) whose cost does not grow with the number of ids.

    A parameter [N, D] whose gradient is sparse (models.fields.FieldTable with `sparse`) is updated in the rows of the
    gradient only. Such a row has a clock of its own: its moments and their correction know the steps that saw it, and
    weight decay makes up for the others when the row is seen again. Where every row is seen in every step, and for
    all parameters with a dense gradient, this is AdamW; a rare row differs, because AdamW goes on moving it by what is
    left of its momentum.

    When to use it: tables of half a million ids and more. Below, AdamW is as fast.
    """

    def __init__(self, params: Iterable[Any], lr: float, weight_decay: float = 0.0) -> None:
        super().__init__(params, lr=lr, weight_decay=weight_decay, fused=True)

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step; the sparse gradients are used up."""
        sparse = [(group, table, table.grad) for group in self.param_groups for table in group["params"]
                  if table.grad is not None and table.grad.is_sparse]
        for _, table, _ in sparse:
            table.grad = None
        loss = super().step(closure)
        for group, table, grad in sparse:
            self._step_rows(group, table, grad.coalesce())
        return loss

    def _step_rows(self, group: dict[str, Any], table: Tensor, grad: Tensor) -> None:
        rows, g, (n, width) = grad.indices()[0], grad.values(), table.shape
        state, (beta1, beta2) = self.state[table], group["betas"]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32, device=table.device)
            # side by side, so that a row is fetched once: first moments, second moments, steps seen, last one
            state["rows"] = torch.zeros((n, 2 * width + 2), dtype=torch.float32, device=table.device)
        state["step"] += 1
        held = state["rows"].index_select(0, rows)
        first, second, seen, last = held.split([width, width, 1, 1], 1)
        decay = (1 - group["lr"] * group["weight_decay"]) ** (state["step"] - last)
        seen += 1
        last.copy_(state["step"].expand_as(last))
        first.lerp_(g, 1 - beta1)
        second.mul_(beta2).addcmul_(g, g, value=1 - beta2)
        state["rows"].index_copy_(0, rows, held)
        move = (first / (1 - beta1**seen)).div_((second / (1 - beta2**seen)).sqrt_().add_(group["eps"]))
        table.index_copy_(0, rows, table.index_select(0, rows).mul_(decay).sub_(move, alpha=group["lr"]))
