"""The likelihood of the teacher's order of its own list."""

from __future__ import annotations

from torch import Tensor

__all__ = ["in_order", "plackett_luce"]


def plackett_luce(student: Tensor, teacher: Tensor) -> Tensor:
    """-log P(the teacher's order) / K, items drawn one after the other in proportion to exp(s): [B].

        loss = 1/K sum_k ( log sum_{j >= k} exp s_j - s_k ),   k in the teacher's order

    Args:
        student, teacher: [B, K] scores; of the teacher only the order is read (ties: as they stand).

    Source: Plackett, 1975, and Luce, 1959; as a loss Xia, Liu, Wang, Zhang & Li, "Listwise Approach to Learning to
    Rank", ICML 2008 (ListMLE).
    """
    ordered = in_order(student, teacher)
    tail = ordered.flip(1).logcumsumexp(1).flip(1)
    return (tail - ordered).mean(1)


def in_order(student: Tensor, teacher: Tensor) -> Tensor:
    """[B, K]: the student's scores, the teacher's best item first."""
    return student.gather(1, teacher.argsort(dim=1, descending=True, stable=True))
