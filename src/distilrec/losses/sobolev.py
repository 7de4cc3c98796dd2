"""How an answer changes with each past event: the student's sensitivity follows the teacher's."""

from __future__ import annotations

from torch import Tensor

from distilrec.losses.directions import unit

__all__ = ["sobolev"]


def sobolev(student: Tensor, teacher: Tensor) -> Tensor:
    """Squared distance of two directions of sensitivity, each of unit length: [B].

    Sensitivity is the derivative of a score by a factor before the vector of each past event, at 1: one number per
    event, whatever the widths of the two models. Only its direction is matched, since scores differ in scale.

    Args:
        student, teacher: [B, L], 0 where there is no event. A row of zeros of the teacher costs nothing.

    Source: Czarnecki, Osindero, Jaderberg, Swirszcz & Pascanu, "Sobolev Training for Neural Networks", NeurIPS 2017.
    """
    known = teacher.abs().sum(1) > 0
    return (unit(student) - unit(teacher)).square().sum(1) * known
