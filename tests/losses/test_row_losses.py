"""The pointwise losses against hand values, at equality, at extremes, and in the scale of their gradients."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from distilrec.losses.bernoulli_kl import bernoulli_kl
from distilrec.losses.binary_cross_entropy import binary_cross_entropy
from distilrec.losses.hint import hint
from distilrec.losses.output_squared_error import output_squared_error
from distilrec.losses.squared_error import squared_error

pytestmark = pytest.mark.req("C1")

LOG3 = math.log(3)  # the logit of 3/4


def test_binary_cross_entropy_by_hand() -> None:
    loss = binary_cross_entropy(torch.tensor([LOG3, LOG3, 0.0]), torch.tensor([1.0, 0.0, 0.5]))
    assert loss.tolist() == pytest.approx([-math.log(3 / 4), -math.log(1 / 4), math.log(2)])


def test_label_smoothing_moves_the_label_towards_a_half() -> None:
    smooth = binary_cross_entropy(torch.tensor([LOG3]), torch.tensor([1.0]), label_smoothing=0.2)
    assert float(smooth) == pytest.approx(-0.9 * math.log(3 / 4) - 0.1 * math.log(1 / 4))


def test_squared_errors_by_hand() -> None:
    assert squared_error(torch.tensor([3.0, 1.0]), torch.tensor([5.0, 1.0])).tolist() == [4.0, 0.0]
    assert output_squared_error(torch.tensor([[3.0, 1.0]]), torch.tensor([[5.0, 0.0]])).tolist() == [[4.0, 1.0]]
    assert hint(torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0, 2.0]])).tolist() == [2.0]


def test_bernoulli_kl_by_hand() -> None:
    # p = 3/4, q = 1/2: 3/4 log 3/2 + 1/4 log 1/2
    value = bernoulli_kl(torch.tensor([0.0]), torch.tensor([LOG3]))
    assert float(value) == pytest.approx(0.75 * math.log(1.5) + 0.25 * math.log(0.5), rel=1e-6)
    warm = bernoulli_kl(torch.tensor([0.0]), torch.tensor([2 * LOG3]), temperature=2.0)
    assert float(warm) == pytest.approx(4 * (0.75 * math.log(1.5) + 0.25 * math.log(0.5)), rel=1e-6)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 7.0])
def test_bernoulli_kl_is_zero_at_equality_and_never_below(temperature: float) -> None:
    logits = torch.linspace(-30, 30, 61)
    assert bernoulli_kl(logits, logits, temperature=temperature).abs().max() < 1e-5
    assert bernoulli_kl(logits, logits.flip(0), temperature=temperature).min() > -1e-6


def test_bernoulli_kl_differs_from_the_soft_cross_entropy_by_the_entropy_of_the_teacher() -> None:
    student, teacher = torch.randn(50), torch.randn(50)
    p = teacher.sigmoid()
    entropy = binary_cross_entropy(teacher, p)
    torch.testing.assert_close(bernoulli_kl(student, teacher), binary_cross_entropy(student, p) - entropy)


def test_huge_logits_cost_much_and_break_nothing() -> None:
    student = torch.tensor([200.0, -200.0, 0.0], requires_grad=True)
    loss = bernoulli_kl(student, torch.tensor([-200.0, 200.0, 200.0]))
    assert loss.tolist() == pytest.approx([200.0, 200.0, math.log(2)])
    loss.sum().backward()
    assert student.grad is not None
    assert torch.isfinite(student.grad).all()


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_the_gradient_of_bernoulli_kl_is_t_times_the_difference_of_probabilities(temperature: float) -> None:
    student = torch.randn(20, dtype=torch.double, requires_grad=True)
    teacher = torch.randn(20, dtype=torch.double)
    bernoulli_kl(student, teacher, temperature=temperature).sum().backward()
    expected: Tensor = temperature * ((student.detach() / temperature).sigmoid() - (teacher / temperature).sigmoid())
    torch.testing.assert_close(student.grad, expected)


def test_warm_bernoulli_kl_tends_to_an_eighth_of_the_squared_difference_of_logits() -> None:
    student, teacher = torch.tensor([0.4], dtype=torch.double), torch.tensor([-0.7], dtype=torch.double)
    warm = bernoulli_kl(student, teacher, temperature=200.0)
    torch.testing.assert_close(warm, output_squared_error(student, teacher) / 8, rtol=1e-4, atol=0)
