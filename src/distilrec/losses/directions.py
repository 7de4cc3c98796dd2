"""Vectors of length one, without the explosion of a gradient where there is hardly a vector."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["unit"]


def unit(x: Tensor, *, least: float = 1e-12) -> Tensor:
    """[..., D] divided by its length; what is not longer than `least` has no direction: zeros, and no gradient.

    (Dividing by the larger of length and `least`, as is usual, multiplies the gradient of such a vector by 1 / least.)
    """
    length = x.norm(dim=-1, keepdim=True)
    known = length > least
    return torch.where(known, x / torch.where(known, length, 1.0), 0.0)
