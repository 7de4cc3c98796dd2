"""Losses of relations, attention and sensitivity: slow second ways, invariances, batch sizes, the worst of numbers."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from distilrec.losses.attention_transfer import attention_transfer
from distilrec.losses.directions import unit
from distilrec.losses.full_topology import full_topology
from distilrec.losses.hierarchical_topology import hierarchical_topology
from distilrec.losses.relation_angle import relation_angle
from distilrec.losses.relation_distance import relation_distance
from distilrec.losses.sobolev import sobolev

pytestmark = pytest.mark.req("C4")

Loss = Callable[[Tensor, Tensor], Tensor]


def grouped(student: Tensor, teacher: Tensor) -> Tensor:
    """Groups by the sign of the teacher's first number: those of a batch of copies are the same."""
    return hierarchical_topology(student, teacher, (teacher[:, 0] > 0).long() if len(teacher) else
                                 torch.zeros(0, dtype=torch.long))


ALL: dict[str, Loss] = {
    "relation_distance": relation_distance, "relation_angle": relation_angle, "full_topology": full_topology,
    "hierarchical_topology": grouped,
}
# where one vector more or less far from the origin is another relation
BY_ANGLE_TO_ORIGIN = ("full_topology", "hierarchical_topology")


def drawn(rows: int, width: int, seed: int) -> Tensor:
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def huber(x: float) -> float:
    return 0.5 * x * x if abs(x) < 1 else abs(x) - 0.5


def cosine(a: Tensor, b: Tensor) -> float:
    return float(a @ b / (a.norm() * b.norm()))


# --- a second and slower way


def test_distances_against_a_loop() -> None:
    student, teacher = drawn(5, 3, 0), 9 * drawn(5, 4, 1)
    means = [np.mean([float((x[i] - x[j]).norm()) for i in range(5) for j in range(5) if i != j])
             for x in (student, teacher)]
    for i, value in enumerate(relation_distance(student, teacher)):
        errors = [float((student[i] - student[j]).norm() / means[0] - (teacher[i] - teacher[j]).norm() / means[1])
                  for j in range(5) if j != i]
        assert value.item() == pytest.approx(np.mean([huber(e) for e in errors]))


def test_angles_against_a_loop() -> None:
    student, teacher = drawn(5, 3, 0), 9 * drawn(5, 4, 1)
    for i, value in enumerate(relation_angle(student, teacher)):
        others = [j for j in range(5) if j != i]
        errors = [cosine(student[j] - student[i], student[k] - student[i]) -
                  cosine(teacher[j] - teacher[i], teacher[k] - teacher[i])
                  for j in others for k in others if j != k]
        assert value.item() == pytest.approx(np.mean([huber(e) for e in errors]))


def test_angles_of_a_triangle_by_hand() -> None:
    right = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])  # cosines 0, sqrt(1/2), sqrt(1/2)
    even = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.5, math.sqrt(0.75)]])  # cosines 1/2
    expected = [0.5 * 0.25, *[0.5 * (math.sqrt(0.5) - 0.5) ** 2] * 2]
    torch.testing.assert_close(relation_angle(right, even), torch.tensor(expected))


def test_full_topology_against_a_loop() -> None:
    student, teacher = drawn(5, 3, 0), 9 * drawn(5, 4, 1)
    for i, value in enumerate(full_topology(student, teacher)):
        errors = [cosine(student[i], student[j]) - cosine(teacher[i], teacher[j]) for j in range(5) if j != i]
        assert value.item() == pytest.approx(np.mean(np.square(errors)))


def test_hierarchical_topology_against_a_loop() -> None:
    student, teacher, groups = drawn(6, 3, 0), 9 * drawn(6, 4, 1), torch.tensor([4, 0, 4, 0, 4, 9])
    for i, value in enumerate(hierarchical_topology(student, teacher, groups)):
        between, within = [], []
        for g in (0, 4, 9):
            ours, theirs = student[groups == g].mean(0), teacher[groups == g].mean(0)
            between.append((cosine(student[i], ours) - cosine(teacher[i], theirs)) ** 2)
        for j in range(6):
            if j != i and groups[j] == groups[i]:
                within.append((cosine(student[i], student[j]) - cosine(teacher[i], teacher[j])) ** 2)
        assert value.item() == pytest.approx(np.mean(between) + (np.mean(within) if within else 0))


@pytest.mark.req("C5")
def test_attention_is_the_divergence_over_what_both_see() -> None:
    student, teacher = torch.tensor([[0.5, 0.25, 0.25]]), torch.tensor([[0.25, 0.25, 0.5]])
    by_hand = 0.25 * math.log(0.5) + 0.5 * math.log(2)
    assert attention_transfer(student, teacher).item() == pytest.approx(by_hand)
    # the third event is outside the student's window: both are normalized over the other two
    masked = attention_transfer(student, teacher, mask=torch.tensor([[True, True, False]]))
    assert masked.item() == pytest.approx(0.5 * math.log(0.5 / (2 / 3)) + 0.5 * math.log(0.5 / (1 / 3)))
    torch.testing.assert_close(attention_transfer(student * 7, teacher / 3), attention_transfer(student, teacher))


@pytest.mark.req("C7")
def test_sobolev_is_the_squared_chord_of_two_directions() -> None:
    student = torch.tensor([[3.0, 0.0], [2.0, 2.0], [1.0, -5.0]])
    teacher = torch.tensor([[0.0, 0.1], [9.0, 9.0], [0.0, 0.0]])
    torch.testing.assert_close(sobolev(student, teacher), torch.tensor([2.0, 0.0, 0.0]))


# --- invariances


@pytest.mark.parametrize("name", list(ALL))
def test_rotated_and_scaled_copies_cost_nothing_and_give_no_gradient(name: str) -> None:
    teacher = drawn(7, 4, 0)
    rotation = torch.linalg.qr(drawn(4, 4, 1)).Q
    student = (3.7 * teacher @ rotation).requires_grad_()
    loss = ALL[name](student, teacher)
    loss.sum().backward()
    torch.testing.assert_close(loss.detach(), torch.zeros(7, dtype=torch.float64), atol=1e-12, rtol=0)
    torch.testing.assert_close(student.grad, torch.zeros_like(teacher), atol=1e-7, rtol=0)


@pytest.mark.parametrize("name", list(ALL))
def test_rotation_scale_and_shift_of_either_side(name: str) -> None:
    student, teacher = drawn(7, 3, 0), drawn(7, 4, 1)
    rotation = torch.linalg.qr(drawn(3, 3, 2)).Q
    expected = ALL[name](student, teacher)
    torch.testing.assert_close(ALL[name](0.01 * student @ rotation, teacher), expected)
    torch.testing.assert_close(ALL[name](student, 50 * teacher), expected)
    shifted = ALL[name](student + 2.0, teacher)
    if name in BY_ANGLE_TO_ORIGIN:
        assert (shifted - expected).abs().max() > 1e-3
    else:
        torch.testing.assert_close(shifted, expected)


@pytest.mark.parametrize("name", list(ALL))
def test_the_order_of_the_batch_does_not_matter(name: str) -> None:
    student, teacher, order = drawn(7, 3, 0), drawn(7, 4, 1), torch.randperm(7)
    torch.testing.assert_close(ALL[name](student[order], teacher[order]), ALL[name](student, teacher)[order])


@pytest.mark.parametrize("name", list(ALL))
def test_the_weight_does_not_follow_the_batch_size(name: str) -> None:
    """Everything twice: the mean stays, but for the copy of itself that each anchor now sees; a sum would double."""
    student, teacher = drawn(40, 3, 0), drawn(40, 4, 1)
    once = ALL[name](student, teacher).mean()
    twice = ALL[name](student.repeat(2, 1), teacher.repeat(2, 1)).mean()
    assert twice.item() == pytest.approx(once.item(), rel=4 / 40)


@pytest.mark.parametrize("name", list(ALL))
def test_the_gradient_leads_to_the_teachers_geometry(name: str) -> None:
    teacher = drawn(8, 2, 1)
    student = drawn(8, 2, 0).requires_grad_()
    optimizer, first = torch.optim.Adam([student], lr=0.05), ALL[name](student, teacher).mean().item()
    for _ in range(120):
        optimizer.zero_grad()
        loss = ALL[name](student, teacher).mean()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.2 * first


# --- the worst of numbers


def cases() -> dict[str, tuple[Tensor, Tensor]]:
    one, two = drawn(6, 3, 0).float(), drawn(6, 4, 1).float()
    copies = torch.cat([one[:3], one[:3]])
    return {
        "huge": (1e4 * one, 1e4 * two), "tiny": (1e-4 * one, two), "one": (one[:1], two[:1]),
        "two": (one[:2], two[:2]), "none": (one[:0], two[:0]), "copies": (copies, two),
        "copies of the teacher": (one, torch.cat([two[:3], two[:3]])), "all alike": (one[:1].repeat(6, 1), two),
        "zeros": (torch.zeros(6, 3), two), "one zero": (one * torch.tensor([0.0, 1, 1, 1, 1, 1])[:, None], two),
        "zeros of the teacher": (one, torch.zeros(6, 4)),
    }


@pytest.mark.parametrize("case", list(cases()))
@pytest.mark.parametrize("name", list(ALL))
def test_values_and_gradients_are_finite_and_no_step_explodes(name: str, case: str) -> None:
    student, teacher = cases()[case]
    student.requires_grad_()
    loss = ALL[name](student, teacher)
    assert loss.shape == (len(student),)
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert (loss >= 0).all()
    assert student.grad is not None
    assert torch.isfinite(student.grad).all()
    size = student.detach().norm(dim=1)
    scale = float(size[size > 0].min()) if (size > 0).any() else 1.0
    assert student.grad.abs().max() < 100 / scale if len(student) else True


def test_one_and_two_anchors_cost_nothing_where_three_are_needed() -> None:
    student, teacher = drawn(2, 3, 0), drawn(2, 4, 1)
    assert relation_angle(student, teacher).tolist() == [0.0, 0.0]
    for loss in (relation_distance, full_topology):
        assert loss(student[:1], teacher[:1]).tolist() == [0.0]


def test_equal_vectors_are_at_distance_zero_in_float32_too() -> None:
    """By way of a matrix product, rounding would set copies of a long vector visibly apart."""
    vector = 100 * drawn(1, 64, 0).float()
    student, teacher = torch.cat([vector, vector, vector + 1]), torch.eye(3)
    distances = relation_distance(student, teacher)
    # distances 0, d, d of mean 2 d / 3, the teacher's all 1
    torch.testing.assert_close(distances, torch.tensor([(0.5 + 0.125) / 2, (0.5 + 0.125) / 2, 0.125]))


@pytest.mark.parametrize("loss", [attention_transfer, sobolev])
def test_empty_rows_are_finite(loss: Loss) -> None:
    student, teacher = torch.rand(4, 5), torch.rand(4, 5)
    student[0], teacher[1], student[2], teacher[2] = 0.0, 0.0, 0.0, 0.0
    student[3, 1:], teacher[3, 1:] = 0.0, 0.0
    student.requires_grad_()
    value = loss(student, teacher)
    value.sum().backward()
    assert torch.isfinite(value).all()
    assert torch.isfinite(student.grad).all()
    assert student.grad[1:3].abs().max() == 0
    assert value[3].item() == pytest.approx(0.0, abs=1e-6)
    assert loss(student[:0], teacher[:0]).shape == (0,)


def test_a_direction_of_nothing_is_nothing() -> None:
    x = torch.tensor([[3.0, 4.0], [0.0, 0.0]], requires_grad=True)
    found = unit(x)
    torch.testing.assert_close(found, torch.tensor([[0.6, 0.8], [0.0, 0.0]]))
    found.sum().backward()
    torch.testing.assert_close(x.grad, torch.tensor([[0.2 - 0.6 * 7 / 25, 0.2 - 0.8 * 7 / 25], [0.0, 0.0]]))
