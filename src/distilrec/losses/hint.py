"""Hidden layers: the student's representation, sent through a learned map, resembles the teacher's."""

from __future__ import annotations

from torch import Tensor

__all__ = ["hint"]


def hint(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean over the H dimensions of (student - teacher)^2: [B].

    Args:
        student: [B, H], the student's last hidden layer after the linear map that bridges unlike widths (it is
            trained with the student and thrown away); teacher: [B, H], standardized by dimension.

    Source: Romero et al., "FitNets: Hints for Thin Deep Nets", ICLR 2015.
    """
    return (student - teacher).square().mean(1)
