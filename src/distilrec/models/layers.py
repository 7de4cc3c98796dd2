"""Parts that several pointwise models share: dense layers, quick dropout, towers."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from distilrec.errors import RecipeError, problem

__all__ = ["Dense", "Dot", "Dropout", "Towers", "outputs_of"]


def outputs_of(heads: Sequence[int]) -> int:
    """O, the outputs of all heads together.

    Raises:
        RecipeError: no head, or one without outputs.
    """
    if not heads or min(heads) < 1:
        raise RecipeError(problem(f"heads with {list(heads)} outputs", "one head or more, each with an output"))
    return sum(heads)


class Dropout(nn.Module):
    """Dropout (Srivastava et al., JMLR 2014) whose rate is rounded to 1/256.

    On a CPU the mask is cut from random 64-bit words, eight numbers from each: a quarter of the time of
    torch.nn.Dropout, which otherwise takes as long as the layers it stands between.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        if not 0.0 <= rate < 1.0:
            raise RecipeError(problem(f"dropout {rate}", "at least 0, below 1"))
        self.rate = rate
        self.cut = min(255, max(1, round(rate * 256))) if rate else 0

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or not self.cut:
            return x
        if x.device.type != "cpu":
            return F.dropout(x, self.rate)
        words = torch.randint(-(2**63), 2**63 - 1, (-(-x.numel() // 8),))
        random = words.view(torch.uint8)[: x.numel()].view(x.shape)
        # 1 where random >= cut, else 0, without the detour over booleans that would cost more than all the rest
        kept = random.clamp_(self.cut - 1, self.cut).sub_(self.cut - 1)
        return x * kept.to(x.dtype).mul_(256 / (256 - self.cut))

    def extra_repr(self) -> str:
        return f"{self.rate}"


class Dense(nn.Module):
    """Linear, batch norm if asked for, ReLU, dropout, once per entry of `hidden`; none leaves the input as it is."""

    def __init__(self, width: int, hidden: Sequence[int], *, dropout: float = 0.0, batch_norm: bool = False) -> None:
        super().__init__()
        if min([1, *hidden]) < 1:
            raise RecipeError(problem(f"hidden layers of widths {list(hidden)}", "whole numbers from 1"))
        layers: list[nn.Module] = []
        for size in hidden:
            linear = nn.Linear(width, size)
            nn.init.kaiming_uniform_(linear.weight, nonlinearity="relu")
            nn.init.zeros_(linear.bias)
            layers += [linear, *([nn.BatchNorm1d(size)] if batch_norm else []), nn.ReLU(), Dropout(dropout)]
            width = size
        self.layers = nn.Sequential(*layers)
        self.width = width  # of what comes out

    def forward(self, x: Tensor) -> Tensor:
        """[B, width in] -> [B, width]."""
        return self.layers(x)


class Dot(nn.Module):
    """[B, D] products of vectors -> [B, O]: for one output their plain sum, a dot product; for several each output
    has its own weight per dimension, all starting at 1."""

    def __init__(self, dim: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(dim, outputs)) if outputs > 1 else None

    def forward(self, products: Tensor) -> Tensor:
        return products.sum(1, keepdim=True) if self.weight is None else products @ self.weight


class Towers(nn.Module):
    """One small network per head, each on an input of its own."""

    def __init__(
        self, width: int, heads: Sequence[int], hidden: Sequence[int], *, dropout: float = 0.0,
        batch_norm: bool = False,
    ) -> None:
        super().__init__()
        self.dense = nn.ModuleList(Dense(width, hidden, dropout=dropout, batch_norm=batch_norm) for _ in heads)
        last = hidden[-1] if hidden else width
        self.output = nn.ModuleList(nn.Linear(last, size, bias=False) for size in heads)

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """An input [B, width] per head -> ([B, O] scores, [B, sum of the last widths] hidden)."""
        hidden = [dense(x) for dense, x in zip(self.dense, inputs, strict=True)]
        scores = [output(x) for output, x in zip(self.output, hidden, strict=True)]
        return torch.cat(scores, 1), torch.cat(hidden, 1)
