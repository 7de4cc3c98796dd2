"""AdamW whose cost does not grow with the number of ids."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

__all__ = ["LazyAdam"]

_BLOCK = 65536  # rows that `settle` brings up to date at a time


class LazyAdam(torch.optim.AdamW):
    """AdamW (Loshchilov & Hutter, ICLR 2019) that leaves a row of an id table alone until it is needed.

    In a step that does not see an id, AdamW still moves its row: by what is left of its momentum, and by weight decay.
    Here these steps are made up for all at once, when the row is read again (`catch_up`, which FieldTable calls) and at
    the end of an epoch (`settle`). Their sum is a geometric series, of ratio beta1 / sqrt(beta2), as far as epsilon,
    the correction of the moments and the learning rate stay what they are meanwhile. So the weights are those of AdamW
    but for that approximation, which is of no account after some dozens of steps. Parameters with a dense gradient
    are AdamW's.

    When to use it: tables of half a million ids and more. Below, AdamW is as fast.
    """

    def __init__(self, params: Iterable[Any], lr: float, weight_decay: float = 0.0) -> None:
        super().__init__(params, lr=lr, weight_decay=weight_decay, fused=True)
        # tables whose rows were brought up to date before this step read them -> the rows, and whose row each place is
        self._current: dict[Tensor, tuple[Tensor, Tensor] | None] = {}

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One step; the sparse gradients are used up."""
        sparse = [(group, table, table.grad) for group in self.param_groups for table in group["params"]
                  if table.grad is not None and table.grad.is_sparse]
        for _, table, _ in sparse:
            table.grad = None
        loss = super().step(closure)
        for group, table, grad in sparse:
            self._step_rows(group, table, *self._summed(table, grad))
        self._current.clear()
        return loss

    @torch.no_grad()
    def catch_up(self, table: Tensor, places: Tensor) -> None:
        """Make up for the steps that the rows at `places` (int64, any shape) were not seen in."""
        rows, whose = torch.unique(places, return_inverse=True)
        if self.state[table]:
            self._catch_up(self._group(table), table, rows)
        # read twice in a step, a table has a gradient of more places than these
        self._current[table] = None if table in self._current else (rows, whose.flatten())

    @torch.no_grad()
    def settle(self) -> None:
        """Bring every row of every table up to date, as before the weights are used for anything but a step."""
        for group in self.param_groups:
            for table in group["params"]:
                if "rows" in self.state.get(table, ()):
                    for rows in torch.arange(len(table), device=table.device).split(_BLOCK):
                        self._catch_up(group, table, rows)

    def _group(self, table: Tensor) -> dict[str, Any]:
        return next(group for group in self.param_groups if any(one is table for one in group["params"]))

    def _summed(self, table: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
        """(different rows int64 [U], the gradient of each [U, D])."""
        known = self._current.get(table)
        if known is None or grad._nnz() != len(known[1]):
            grad = grad.coalesce()
            return grad.indices()[0], grad.values()
        rows, whose = known  # the gradient of one reading is of its places, in their order: no need to sort them again
        return rows, grad._values().new_zeros((len(rows), grad.shape[1])).index_add_(0, whose, grad._values())

    def _catch_up(self, group: dict[str, Any], table: Tensor, rows: Tensor) -> None:
        state, (beta1, beta2), rate, width = self.state[table], group["betas"], group["lr"], table.shape[1]
        held = state["rows"].index_select(0, rows)
        first, second, last = held.split([width, width, 1], 1)
        missed, ratio = state["step"] - last, beta1 / beta2**0.5
        coasted = ratio * (1 - ratio**missed) / (1 - ratio)
        size = (second / (1 - beta2 ** (last + 1))).sqrt_().add_(group["eps"])
        move = first / size.mul_(1 - beta1 ** (last + 1)) * coasted
        decay = (1 - rate * group["weight_decay"]) ** missed
        table.index_copy_(0, rows, table.index_select(0, rows).mul_(decay).sub_(move, alpha=rate))
        first.mul_(beta1**missed)
        second.mul_(beta2**missed)
        last.add_(missed)
        state["rows"].index_copy_(0, rows, held)

    def _step_rows(self, group: dict[str, Any], table: Tensor, rows: Tensor, g: Tensor) -> None:
        n, width = table.shape
        state, (beta1, beta2), rate = self.state[table], group["betas"], group["lr"]
        if not state:
            state["step"] = torch.zeros((), dtype=torch.float32, device=table.device)
            # side by side, so that a row is fetched once: first moments, second moments, the step they are of
            state["rows"] = torch.zeros((n, 2 * width + 1), dtype=torch.float32, device=table.device)
        elif table not in self._current:
            self._catch_up(group, table, rows)
        state["step"] += 1
        step = float(state["step"])
        held = state["rows"].index_select(0, rows)
        first, second, last = held.split([width, width, 1], 1)
        first.lerp_(g, 1 - beta1)
        second.mul_(beta2).addcmul_(g, g, value=1 - beta2)
        last.fill_(step)
        state["rows"].index_copy_(0, rows, held)
        move = first / (second / (1 - beta2**step)).sqrt_().add_(group["eps"])
        values = table.index_select(0, rows).mul_(1 - rate * group["weight_decay"])
        table.index_copy_(0, rows, values.sub_(move, alpha=rate / (1 - beta1**step)))
