"""Layers of the pointwise models against values worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from distilrec.features import Feature
from distilrec.models.biased_mf import BiasedMF
from distilrec.models.dcnv2 import Cross
from distilrec.models.din import Attention
from distilrec.models.fields import inputs_of
from distilrec.models.finalmlp import FinalMLP
from distilrec.models.fm import FactorizationMachine, pairs
from distilrec.models.layers import Dot, Dropout
from distilrec.models.mmoe import mix

USER, ITEM = Feature("user", "category", size=3), Feature("item", "category", size=3)
LIKED = Feature("liked", "list", size=3, max_length=4)


def fill(parameter: torch.Tensor, values: list) -> None:
    with torch.no_grad():
        parameter.copy_(torch.tensor(values, dtype=torch.float32))


def test_pairs_are_the_sum_over_all_pairs() -> None:
    vectors = torch.randn(4, 5, 3, dtype=torch.float64)
    naive = sum(vectors[:, i] * vectors[:, j] for i in range(5) for j in range(i + 1, 5))
    torch.testing.assert_close(pairs(vectors), naive)


def test_a_factorization_machine_by_hand() -> None:
    model = FactorizationMachine([USER, ITEM], [1], dim=2).eval()
    fill(model.table.weight, [[0, 0], [1, 2], [9, 9], [0, 0], [9, 9], [3, -1]])
    fill(model.first.weight, [[0], [0.5], [9], [0], [9], [0.25]])
    fill(model.output_bias, [-1])
    answer = model(inputs_of([USER, ITEM], {"user": np.array([1]), "item": np.array([2])}))
    assert answer["scores"].item() == 0.5 + 0.25 + (1 * 3 + 2 * -1) - 1
    assert answer["hidden"].tolist() == [[3, -2]]


def test_a_dot_product_for_several_outputs() -> None:
    dot = Dot(2, 2)
    assert dot(torch.tensor([[3.0, -2.0]])).tolist() == [[1, 1]]
    fill(dot.weight, [[1, 0], [0.5, 2]])
    assert dot(torch.tensor([[3.0, -2.0]])).tolist() == [[2, -4]]


def test_a_cross_layer_by_hand() -> None:
    cross = Cross(2)
    fill(cross.wide.weight, [[1, 2], [0, -1]])
    fill(cross.wide.bias, [0.5, 1])
    start, x = torch.tensor([[2.0, 3.0]]), torch.tensor([[1.0, -1.0]])
    # W x + b = (1 - 2 + .5, 1 + 1); times start: (-1, 6); plus x
    assert cross(start, x).tolist() == [[0, 5]]


def test_a_cross_layer_of_low_rank_is_the_product_of_its_factors() -> None:
    low, full = Cross(4, rank=2), Cross(4)
    with torch.no_grad():
        full.wide.weight.copy_(low.wide.weight @ low.narrow.weight)
    start, x = torch.randn(3, 4), torch.randn(3, 4)
    torch.testing.assert_close(low(start, x), full(start, x))


def test_a_gate_mixes_by_its_softmax() -> None:
    experts = torch.tensor([[[1.0, 0.0], [0.0, 4.0]]])  # two experts of width two
    assert mix(experts, torch.tensor([[0.0, 0.0]])).tolist() == [[0.5, 2]]
    np.testing.assert_allclose(mix(experts, torch.tensor([[math.log(3), 0.0]])), [[0.75, 1]], atol=1e-6)


def test_attention_by_hand_and_over_nothing() -> None:
    attention = Attention(1, [1])
    fill(attention.pair.weight, [[1, 2]])  # of the history, of its product with the target
    fill(attention.pair.bias, [0])
    fill(attention.target.weight, [[-1]])
    fill(attention.weight.weight, [[0.5]])
    fill(attention.weight.bias, [0.25])
    history, there = torch.tensor([[[1.0], [2.0], [7.0]]]), torch.tensor([[True, True, False]])
    # target 3: relu(1 + 2*3 - 3) = 4 -> weight 2.25; relu(2 + 2*6 - 3) = 11 -> 5.75
    assert attention(history, there, torch.tensor([[3.0]])).item() == 2.25 * 1 + 5.75 * 2
    attention.normalize = True
    shares = np.exp([2.25, 5.75]) / np.exp([2.25, 5.75]).sum()
    assert attention(history, there, torch.tensor([[3.0]])).item() == pytest.approx(shares @ [1, 2], rel=1e-6)
    assert attention(history, ~there & False, torch.tensor([[3.0]])).tolist() == [[0]]


def test_ratings_by_hand() -> None:
    features = [USER, ITEM, LIKED]
    model = BiasedMF(features, [1], dim=2, history="liked").eval()
    fill(model.table.weight, [[0], [0.5], [0], [0], [0], [-0.25], [0], [0.1], [0.3]])
    fill(model.users, [[0, 0], [1, 2], [9, 9]])
    fill(model.items, [[0, 0], [9, 9], [3, -1]])
    fill(model.implicit, [[9, 9], [1, 0], [0, 1]])
    fill(model.output_bias, [3.5])
    columns = {"user": np.array([1, 1]), "item": np.array([2, 2]), "liked": np.array([[1, 2], [-1, -1]])}
    root = 1 / math.sqrt(2)
    known = 3.5 + 0.5 - 0.25 + 0.2 + (1 + root) * 3 - (2 + root)  # the list has the mean of .1 and .3 as its bias
    scores = model(inputs_of(features, columns))["scores"][:, 0]
    np.testing.assert_allclose(scores.detach(), [known, 3.5 + 0.5 - 0.25 + 3 - 2], rtol=1e-6)


def test_the_bilinear_fusion_is_the_sum_over_its_parts() -> None:
    model = FinalMLP([USER, ITEM], [1, 2], dim=2, hidden=[4], hidden2=[6], fusion=2).eval()
    answer = model(inputs_of([USER, ITEM], {"user": np.array([1, 2]), "item": np.array([2, 0])}))
    first, second = answer["hidden"].split([4, 6], 1)
    form = model.bilinear.unflatten(2, (3, 3))  # [part, 2, output, 3]
    naive = torch.stack([torch.stack([
        sum(first[row, 2 * k : 2 * k + 2] @ form[k, :, o] @ second[row, 3 * k : 3 * k + 3] for k in range(2))
        for o in range(3)]) for row in range(2)])
    torch.testing.assert_close(answer["scores"], model.output(answer["hidden"]) + naive)


@pytest.mark.parametrize("rate", [0.05, 0.2, 0.5, 0.9])
def test_dropout_keeps_the_mean_and_its_rate(rate: float) -> None:
    torch.manual_seed(0)
    dropout, x = Dropout(rate), torch.ones(400, 101)
    out = dropout(x)
    assert (out == 0).float().mean().item() == pytest.approx(rate, abs=0.01)
    assert out.mean().item() == pytest.approx(1, abs=0.05)
    assert len(out.unique()) == 2
    assert dropout.eval()(x) is x and Dropout(0.0)(x) is x
