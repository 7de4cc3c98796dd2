"""The logit of two things happening, against probabilities in double precision."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from distilrec.errors import RecipeError
from distilrec.models.coupling import both, couple
from distilrec.types_rows import Head

CHAIN = (Head("pay", after="buy"), Head("stars", "number"), Head("click"), Head("buy", after="click"))


def sigmoid(x: float) -> float:
    return 1 / (1 + np.exp(-x))


@settings(max_examples=50, deadline=None)
@given(st.floats(-12, 12), st.floats(-12, 12))
def test_the_product_of_two_probabilities(a: float, b: float) -> None:
    together = sigmoid(a) * sigmoid(b)
    logit = both(torch.tensor(a, dtype=torch.float64), torch.tensor(b, dtype=torch.float64)).item()
    assert logit == pytest.approx(np.log(together / (1 - together)), abs=1e-6)


def test_extremes_stay_finite_and_exact() -> None:
    a = torch.tensor([200.0, -200.0, 90.0, 0.0], requires_grad=True)
    b = torch.tensor([200.0, -200.0, -3.0, 0.0])
    logit = both(a, b)
    np.testing.assert_allclose(logit.detach(), [200 - np.log(2), -400, -3, -np.log(3)], rtol=1e-6)
    logit.sum().backward()
    assert torch.isfinite(a.grad).all()


def test_a_chain_in_any_order_of_heads() -> None:
    scores = torch.tensor([[0.3, 4.5, -0.2, 1.1]], dtype=torch.float64)
    out = couple(scores, CHAIN)[0]
    buy = sigmoid(1.1) * sigmoid(-0.2)
    pay = buy * sigmoid(0.3)
    expected = [np.log(pay / (1 - pay)), 4.5, -0.2, np.log(buy / (1 - buy))]
    np.testing.assert_allclose(out, expected, atol=1e-9)


def test_heads_of_their_own_stay_as_they_are() -> None:
    scores = torch.randn(3, 3)
    assert couple(scores, (Head("a"), Head("t", "tags", ("x", "y")))) is scores


@pytest.mark.parametrize("heads", [
    (Head("a", after="b"), Head("b", after="a")), (Head("a", after="a"), Head("b")),
    (Head("a", after="c"), Head("b")), (Head("a", after="b"), Head("b", "number")),
])
def test_circles_and_heads_that_are_not_there(heads: tuple[Head, ...]) -> None:
    with pytest.raises(RecipeError, match="is `after"):
        couple(torch.zeros(1, 2), heads)
    with pytest.raises(RecipeError, match="5 scores"):
        couple(torch.zeros(1, 5), heads)
