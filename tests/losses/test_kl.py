"""The divergence of soft labels: hand values, equality, gradient scale, masks, the rest class."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from distilrec.losses.kl import kl

pytestmark = [pytest.mark.req("C1"), pytest.mark.req("A4")]


def drawn(rows: int, width: int, seed: int, scale: float = 2.0) -> torch.Tensor:
    return scale * torch.randn(rows, width, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_a_value_by_hand() -> None:
    teacher, student = torch.log(torch.tensor([[3.0, 1.0]])), torch.zeros(1, 2)
    expected = 0.75 * math.log(0.75 / 0.5) + 0.25 * math.log(0.25 / 0.5)
    assert kl(student, teacher).item() == pytest.approx(expected)
    # at temperature 2 the teacher's odds are sqrt(3) to 1, and t^2 = 4 stands in front
    p = math.sqrt(3) / (1 + math.sqrt(3))
    warm = 4 * (p * math.log(2 * p) + (1 - p) * math.log(2 * (1 - p)))
    assert kl(student, teacher, temperature=2.0).item() == pytest.approx(warm)


@given(seed=st.integers(0, 2**20), t=st.sampled_from([0.5, 1.0, 3.0]))
@settings(max_examples=20, deadline=None)
def test_against_torch(seed: int, t: float) -> None:
    student, teacher = drawn(4, 7, seed), drawn(4, 7, seed + 1)
    expected = (
        t
        * t
        * F.kl_div((student / t).log_softmax(1), (teacher / t).log_softmax(1), log_target=True, reduction="none").sum(1)
    )
    torch.testing.assert_close(kl(student, teacher, temperature=t), expected)
    per_row = kl(student, teacher, temperature=torch.full((4,), t, dtype=torch.float64))
    torch.testing.assert_close(per_row, expected)


@pytest.mark.parametrize("t", [0.5, 1.0, 8.0])
def test_zero_with_zero_gradient_at_equality_up_to_a_constant(t: float) -> None:
    teacher = drawn(3, 9, 0)
    student = (teacher + 5.0).requires_grad_()
    loss = kl(student, teacher, temperature=t)
    loss.sum().backward()
    torch.testing.assert_close(loss, torch.zeros(3, dtype=torch.float64), atol=1e-12, rtol=0)
    assert student.grad.abs().max() < 1e-12


def test_the_gradient_does_not_fade_with_the_temperature() -> None:
    teacher = drawn(1, 20, 1)
    sizes = []
    for t in (4.0, 16.0, 64.0, 256.0):
        student = drawn(1, 20, 2).requires_grad_()
        kl(student, teacher, temperature=t).sum().backward()
        sizes.append(float(student.grad.norm()))
    assert max(sizes) / min(sizes) < 1.3
    # the limit: (student - teacher, both centered) / K
    student = drawn(1, 20, 2)
    limit = ((student - student.mean()) - (teacher - teacher.mean())).norm() / 20
    assert sizes[-1] == pytest.approx(float(limit), rel=0.02)


def test_a_one_hot_teacher_is_cross_entropy() -> None:
    student = drawn(3, 6, 3).requires_grad_()
    twin = student.detach().clone().requires_grad_()
    teacher = torch.full((3, 6), -torch.inf, dtype=torch.float64)
    targets = torch.tensor([0, 5, 2])
    teacher[torch.arange(3), targets] = 0.0
    loss, expected = kl(student, teacher), F.cross_entropy(twin, targets, reduction="none")
    torch.testing.assert_close(loss, expected)
    loss.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(student.grad, twin.grad)


def test_a_teacher_of_ties_wants_ties() -> None:
    student = torch.zeros(1, 4, requires_grad=True)
    loss = kl(student, torch.full((1, 4), 7.0))
    loss.sum().backward()
    assert loss.item() == pytest.approx(0.0, abs=1e-6)
    assert student.grad.abs().max() < 1e-6


def test_a_mask_is_the_same_as_fewer_items() -> None:
    student, teacher = drawn(2, 6, 4).requires_grad_(), drawn(2, 6, 5)
    mask = torch.tensor([[True, True, False, True, False, True]] * 2)
    expected = kl(student.detach()[:, mask[0]], teacher[:, mask[0]], temperature=2.0)
    loss = kl(student, teacher, temperature=2.0, mask=mask)
    torch.testing.assert_close(loss, expected)
    loss.sum().backward()
    assert (student.grad[~mask] == 0).all()
    assert torch.isfinite(student.grad).all()


def test_a_row_that_is_masked_as_a_whole_costs_nothing_and_poisons_nothing() -> None:
    student = drawn(2, 3, 6).requires_grad_()
    mask = torch.tensor([[False] * 3, [True] * 3])
    loss = kl(student, drawn(2, 3, 7), mask=mask, log_partition=student.logsumexp(1))
    loss.sum().backward()
    assert loss[0].item() == 0.0
    assert torch.isfinite(student.grad).all()
    assert (student.grad[1] != 0).all()
    bare = drawn(2, 3, 6).requires_grad_()
    kl(bare, drawn(2, 3, 7), mask=mask).sum().backward()
    assert torch.isfinite(bare.grad).all()


def test_huge_logits_stay_finite() -> None:
    student = torch.tensor([[1e4, -1e4, 0.0], [-1e4, 1e4, 3.0]], requires_grad=True)
    teacher = torch.tensor([[-1e4, 1e4, 0.0], [-6e4, 0.0, -torch.inf]])
    for t in (0.5, 1.0, 4.0):
        mass = torch.tensor([1.0, 0.0]) if t == 1.0 else None
        loss = kl(student, teacher, temperature=t, log_partition=(student / t).logsumexp(1), mass=mass)
        (gradient,) = torch.autograd.grad(loss.sum(), student)
        assert torch.isfinite(loss).all()
        assert torch.isfinite(gradient).all()


def test_the_rest_class_is_the_divergence_of_the_collapsed_distributions() -> None:
    student, teacher = drawn(3, 10, 8), drawn(3, 10, 9)
    log_p, log_q = teacher.log_softmax(1), student.log_softmax(1)
    kept = torch.stack([row.argsort(descending=True)[:4] for row in log_p])
    p, q = log_p.exp().gather(1, kept), log_q.exp().gather(1, kept)
    p, q = torch.cat([p, 1 - p.sum(1, keepdim=True)], 1), torch.cat([q, 1 - q.sum(1, keepdim=True)], 1)
    expected = (p * (p / q).log()).sum(1)
    loss = kl(
        student.gather(1, kept),
        log_p.gather(1, kept),
        log_partition=student.logsumexp(1),
        mass=log_p.gather(1, kept).exp().sum(1),
    )
    torch.testing.assert_close(loss, expected)


def test_the_rest_class_is_zero_at_equality_and_pulls_towards_it() -> None:
    teacher = drawn(2, 8, 10)
    log_p = teacher.log_softmax(1)
    student = teacher.clone().requires_grad_()
    loss = kl(student[:, :3], log_p[:, :3], log_partition=student.logsumexp(1), mass=log_p[:, :3].exp().sum(1))
    loss.sum().backward()
    torch.testing.assert_close(loss, torch.zeros(2, dtype=torch.float64), atol=1e-9, rtol=0)
    assert student.grad.abs().max() < 1e-9


def test_with_all_items_kept_the_rest_class_is_empty() -> None:
    student, teacher = drawn(2, 5, 11).requires_grad_(), drawn(2, 5, 12)
    loss = kl(
        student, teacher.log_softmax(1), log_partition=student.logsumexp(1), mass=torch.ones(2, dtype=torch.float64)
    )
    torch.testing.assert_close(loss, kl(student, teacher), atol=1e-4, rtol=1e-4)
    loss.sum().backward()
    assert torch.isfinite(student.grad).all()


def test_the_partition_tells_the_student_that_other_items_are_worse() -> None:
    scores = torch.zeros(1, 6, requires_grad=True)
    kl(
        scores[:, :2], torch.tensor([[1.0, 0.0]]), temperature=2.0, log_partition=(scores / 2).logsumexp(1)
    ).sum().backward()
    assert (scores.grad[0, 2:] > 0).all(), "descending, the scores of items that the teacher did not keep fall"
    assert scores.grad[0, 0] < 0


def test_without_the_mass_the_kept_items_are_all_there_is() -> None:
    """What training asks for at t != 1: the student is pushed to give the items beyond the K nothing."""
    teacher = drawn(1, 3, 6)
    everything = torch.cat([teacher, torch.full((1, 1), 2.0, dtype=torch.float64)], 1).requires_grad_()
    t = 2.0
    log_z = (everything / t).logsumexp(1)
    loss = kl(everything[:, :3], teacher, temperature=t, log_partition=log_z)
    share = (everything.detach() / t).softmax(1)[0, 3].item()
    assert loss.item() == pytest.approx(-t * t * math.log(1 - share))
    loss.sum().backward()
    assert everything.grad[0, 3] > 0
    kept = everything.detach().softmax(1)[:, :3].sum(1)
    assert kl(everything[:, :3], teacher, log_partition=everything.logsumexp(1), mass=kept).item() == pytest.approx(0.0)


def test_a_row_in_which_the_teacher_rules_out_everything_costs_nothing() -> None:
    student = torch.randn(2, 3, requires_grad=True)
    loss = kl(student, torch.tensor([[0.0, 1.0, 2.0], [-torch.inf] * 3]))
    loss.sum().backward()
    assert loss[1].item() == 0.0
    assert torch.isfinite(student.grad).all()
    assert not student.grad[1].any()


@pytest.mark.parametrize("t", [1.0, 0.3, torch.tensor([0.5, 2.0, 1.0], dtype=torch.float64)])
@pytest.mark.parametrize("rest", [False, True])
@pytest.mark.parametrize("own", [False, True])
def test_its_own_way_back_is_the_right_one(t: float | torch.Tensor, rest: bool, own: bool) -> None:
    teacher, student = drawn(3, 5, 8), drawn(3, 5, 9)
    mask = torch.tensor([[True] * 5, [True, False, True, True, False], [True] * 5])
    mass = torch.tensor([0.9, 0.5, 0.2], dtype=torch.float64) if rest else None
    warm = student / (t[:, None] if isinstance(t, torch.Tensor) else t)
    log_z = None if own else (warm.logsumexp(1) + 1).requires_grad_()  # the student holds something beside the list

    def loss(student: torch.Tensor, *partition: torch.Tensor) -> torch.Tensor:
        known = partition[0] if partition else None
        return kl(student, teacher, temperature=t, mask=mask, mass=mass, log_partition=known)

    inputs = (student.requires_grad_(), *([] if log_z is None else [log_z]))
    assert torch.autograd.gradcheck(loss, inputs)


@pytest.mark.parametrize("t", [1.0, 0.3])
def test_mixed_precision_does_not_reach_it(t: float) -> None:
    """Near the teacher the two parts of the gradient nearly cancel: of eight bits of precision noise would be left."""
    teacher = drawn(64, 100, 10).float()
    found = []
    for mixed in (False, True):
        student = (teacher + 0.1 * drawn(64, 100, 11).float()).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            loss = kl(student, teacher.half(), temperature=t, log_partition=(student / t).logsumexp(1))
            loss.mean().backward()
        assert loss.dtype == torch.float32
        found.append(student.grad)
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-8)


def test_a_masked_row_costs_nothing_beside_a_rest_class_either() -> None:
    student, mask = drawn(2, 3, 6).requires_grad_(), torch.tensor([[False] * 3, [True] * 3])
    mass = torch.tensor([0.5, 0.5], dtype=torch.float64)
    loss = kl(student, drawn(2, 3, 7), mask=mask, mass=mass, log_partition=student.detach().logsumexp(1) + 1)
    loss.sum().backward()
    assert loss[0].item() == 0.0
    assert (student.grad[0] == 0).all()
    assert torch.isfinite(student.grad).all()


def test_a_list_of_nothing_costs_nothing() -> None:
    nothing = torch.zeros(2, 0)
    assert kl(nothing, nothing, log_partition=torch.ones(2)).tolist() == [0.0, 0.0]
