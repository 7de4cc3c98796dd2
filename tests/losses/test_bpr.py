"""BPR against a loop and by hand."""

from __future__ import annotations

import math

import pytest
import torch

from distilrec.losses.bpr import bpr

pytestmark = pytest.mark.req("C1")


def test_values_by_hand() -> None:
    assert bpr(torch.tensor([1.0]), torch.tensor([[1.0]])).item() == pytest.approx(math.log(2))
    # differences log 3 and -log 3: sigmoid 3/4 and 1/4
    loss = bpr(torch.tensor([0.0]), torch.tensor([[-math.log(3), math.log(3)]]))
    assert loss.item() == pytest.approx(-(math.log(0.75) + math.log(0.25)) / 2)


def test_against_a_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    positive, negatives = torch.randn(6, generator=generator), torch.randn(6, 9, generator=generator)
    naive = [
        -sum(math.log(1 / (1 + math.exp(-float(p - n)))) for n in row) / 9
        for p, row in zip(positive, negatives, strict=True)
    ]
    torch.testing.assert_close(bpr(positive, negatives), torch.tensor(naive))


def test_a_collision_costs_nothing_and_huge_scores_stay_finite() -> None:
    positive = torch.tensor([1e4, -1e4], requires_grad=True)
    negatives = torch.tensor([[-torch.inf, -1e4], [1e4, -torch.inf]], requires_grad=True)
    loss = bpr(positive, negatives)
    torch.testing.assert_close(loss, torch.tensor([0.0, 1e4]))
    loss.sum().backward()
    torch.testing.assert_close(positive.grad, torch.tensor([0.0, -0.5]))
    torch.testing.assert_close(negatives.grad, torch.tensor([[0.0, 0.0], [0.5, 0.0]]))
