"""List-wise soft labels: the order within the teacher's list, and nothing about the rest of the catalog."""

from __future__ import annotations

from torch import Tensor

from distilrec.losses.kl import kl

__all__ = ["listnet"]


def listnet(student: Tensor, teacher: Tensor, *, temperature: float | Tensor = 1.0) -> Tensor:
    """t^2 * KL between the two top-one distributions over the K items alone: [B].

    `kl` without a partition over the catalog: where the list stands among all items is left to the other losses.

    Args:
        student, teacher: [B, K] scores of the items that the teacher kept; temperature: t, a number or [B].

    Source: Cao, Qin, Liu, Tsai & Li, "Learning to Rank: From Pairwise Approach to Listwise Approach", ICML 2007, less
    the entropy of the teacher's distribution, so that it is 0 at equality.
    """
    return kl(student, teacher, temperature=temperature)
