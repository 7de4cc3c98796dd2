"""Hints of all layers: values by hand, what does not matter, and what the mix is for."""

from __future__ import annotations

import math

import pytest
import torch

from distilrec.losses.hint import hint
from distilrec.losses.layer_hint import layer_hint

pytestmark = pytest.mark.req("C3")


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_by_hand() -> None:
    """Two dimensions, so a score is divided by the root of 2; ln 3 makes shares of 3/4 and 1/4."""
    first = math.sqrt(2) * math.log(3)
    teacher = torch.tensor([[[1.0, 0.0], [0.0, 1.0]]])
    one = torch.tensor([[[first, 0.0]]])  # the mix is (3/4, 1/4)
    expected = ((first - 0.75) ** 2 + 0.25**2) / 2
    assert layer_hint(one, teacher).tolist() == pytest.approx([expected])
    both = torch.cat([one, torch.tensor([[[2.0, 2.0]]])], 1)  # the second layer's mix is (1/2, 1/2), 9/4 away
    assert layer_hint(both, teacher).tolist() == pytest.approx([(expected + 2.25) / 2])


def test_one_teacher_layer_is_a_plain_hint_and_equality_costs_nothing() -> None:
    student, teacher = drawn(5, 1, 4), drawn(5, 1, 4, seed=1)
    torch.testing.assert_close(layer_hint(student, teacher), hint(student[:, 0], teacher[:, 0]))
    assert layer_hint(teacher.expand(-1, 3, -1), teacher).abs().max() == 0


def test_a_layer_that_is_chosen_clearly_is_met_exactly() -> None:
    """Far apart, the weights are those of a single layer; a student who equals it pays nothing."""
    teacher = 9 * torch.eye(4)[None, :3].repeat(2, 1, 1)
    student = teacher[:, [2, 0]]
    assert layer_hint(student, teacher).max() < 1e-6
    assert layer_hint(student + 0.5, teacher).min() > 0.2


def test_the_order_of_the_teachers_layers_and_the_company_in_a_batch_do_not_matter() -> None:
    student, teacher = drawn(6, 3, 5), drawn(6, 4, 5, seed=1)
    value = layer_hint(student, teacher)
    assert value.shape == (6,)
    torch.testing.assert_close(layer_hint(student, teacher[:, [3, 0, 2, 1]]), value)
    torch.testing.assert_close(layer_hint(student.repeat(1, 2, 1), teacher), value)
    for row in range(6):
        torch.testing.assert_close(layer_hint(student[row : row + 1], teacher[row : row + 1])[0], value[row])
    assert layer_hint(student[:0], teacher[:0]).shape == (0,)


def test_against_a_slow_second_way() -> None:
    student, teacher = drawn(3, 2, 5), drawn(3, 4, 5, seed=1)
    for row, value in enumerate(layer_hint(student, teacher).tolist()):
        total = 0.0
        for s in student[row].tolist():
            scores = [math.exp(sum(a * b for a, b in zip(s, t, strict=True)) / math.sqrt(5))
                      for t in teacher[row].tolist()]
            for i in range(5):
                mix = sum(w * t[i] for w, t in zip(scores, teacher[row].tolist(), strict=True)) / sum(scores)
                total += (s[i] - mix) ** 2
        assert value == pytest.approx(total / (2 * 5))


def test_the_gradient_goes_through_the_weights_too() -> None:
    student = drawn(2, 2, 3).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: layer_hint(s, drawn(2, 3, 3, seed=1)), (student,))
    (found,) = torch.autograd.grad(layer_hint(student, drawn(2, 3, 3, seed=1)).sum(), student)
    weights = torch.softmax(student @ drawn(2, 3, 3, seed=1).transpose(1, 2) / math.sqrt(3), 2).detach()
    held = 2 * (student - weights @ drawn(2, 3, 3, seed=1)) / 6
    assert (found - held).abs().max() > 1e-3
