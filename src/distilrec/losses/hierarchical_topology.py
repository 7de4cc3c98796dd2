"""The similarities of the batch in two levels: between groups, and within each."""

from __future__ import annotations

import torch
from torch import Tensor

from distilrec.losses.directions import unit

__all__ = ["hierarchical_topology"]


def hierarchical_topology(student: Tensor, teacher: Tensor, groups: Tensor) -> Tensor:
    """Squared errors of the similarities to the groups' prototypes and to the own group's members, per anchor: [B].

    A prototype is the mean of a group's vectors in the batch. The fine relations of a wide teacher between strangers
    are more than a narrow student can hold; what must be right is who belongs together and how groups lie.

    Args:
        student: [B, D], teacher: [B, E] vectors of the same B anchors; widths may differ.
        groups: int64 [B], the group of each anchor, from the teacher's own vectors.

    Source: Kang, Hwang, Kweon & Yu, "Topology Distillation for Recommender System", KDD 2021 (HTD). They learn the
    assignment to groups beside the student; here it is a clustering of the teacher's vectors, made once.
    """
    labels, index = torch.unique(groups, return_inverse=True)
    member = (index[:, None] == torch.arange(len(labels), device=index.device)).to(student.dtype)  # [B, G]
    share = member / member.sum(0)
    ours, theirs = unit(student), unit(teacher)
    between = (_to(ours, share.T @ student) - _to(theirs, share.T @ teacher)).square().mean(1)
    together = member @ member.T - torch.eye(len(student), dtype=student.dtype, device=student.device)
    error = (ours @ ours.T - theirs @ theirs.T).square() * together
    return between + error.sum(1) / together.sum(1).clamp(min=1)


def _to(directions: Tensor, prototypes: Tensor) -> Tensor:
    return directions @ unit(prototypes).T
