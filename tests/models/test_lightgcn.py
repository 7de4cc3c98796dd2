"""Propagation over the graph: against dense matrices, its gradient, and what is served."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from core_world import quick, split_of
from distilrec.errors import TrainingError
from distilrec.models.lightgcn import LightGCN, propagate
from distilrec.models.trained import Trained, create
from distilrec.training.train import train
from distilrec.types import Histories

PAIRS = np.array([[0, 0, 1, 3, 0], [0, 2, 2, 1, 0]])  # one pair twice; user 2 and item 3 have no edge
USERS, ITEMS = 4, 4


def dense() -> np.ndarray:
    a = np.zeros((8, 8))
    for user, item in PAIRS.T:
        a[user, 4 + item] = a[4 + item, user] = 1
    share = np.where(a.sum(1) > 0, a.sum(1), np.inf) ** -0.5
    return share[:, None] * a * share


def net(**settings: Any) -> LightGCN:
    torch.manual_seed(0)
    return LightGCN(ITEMS, n_users=USERS, graph=PAIRS, dim=3, **settings)


@pytest.mark.parametrize("layers", [0, 1, 3])
def test_propagation_is_the_mean_of_powers_of_the_dense_matrix(layers: int) -> None:
    model, a = net(layers=layers), dense()
    x = torch.cat([model.users, model.table.vectors()]).detach().numpy().astype(float)
    expected = sum(np.linalg.matrix_power(a, power) @ x for power in range(layers + 1)) / (layers + 1)
    np.testing.assert_allclose(model.eval().nodes().numpy(), expected, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(model.user_vectors().numpy(), expected[:4], rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(model.item_vectors().numpy(), expected[4:], rtol=1e-5, atol=1e-7)


def test_the_gradient_is_that_of_finite_differences() -> None:
    model = net()
    x = torch.randn(8, 2, dtype=torch.float64, requires_grad=True)
    graph = (model.starts, model.neighbors, model.shares.double())
    assert torch.autograd.gradcheck(lambda t: propagate(t, *graph, 3), (x,))


def test_training_propagates_once_per_step_and_through_users_and_items() -> None:
    model, twin = net().train(), net().train()
    users = torch.tensor([0, 3])
    items, lengths = torch.zeros(2, 1, dtype=torch.long), torch.ones(2, dtype=torch.long)
    (model.query(items, lengths, users)[:, 0] @ model.item_vectors().T).square().sum().backward()
    a = torch.as_tensor(dense(), dtype=torch.float32)
    x = torch.cat([twin.users, twin.table.vectors()])
    nodes = (x + a @ x + a @ a @ x + a @ a @ a @ x) / 4
    (nodes[users] @ nodes[4:].T).square().sum().backward()
    for one, two in ((model.users, twin.users), (model.table.weight, twin.table.weight)):
        torch.testing.assert_close(one.grad, two.grad, rtol=1e-4, atol=1e-6)
    with torch.no_grad():
        model.users.add_(1.0)
    fresh = model.item_vectors()
    torch.testing.assert_close(fresh, copy.deepcopy(model).eval().item_vectors())


def test_vectors_of_evaluation_follow_the_weights() -> None:
    model = net().eval()
    before = model.nodes()
    assert model.nodes() is before
    with torch.no_grad():
        model.table.weight[1] += 1
    assert not torch.equal(model.nodes(), before)
    after = model.nodes()
    model.load_state_dict(net().state_dict())
    assert torch.equal(model.nodes(), before)
    assert model.nodes() is not after
    model = net().eval()
    with torch.inference_mode():
        made = model.nodes()
    start = torch.zeros(3, requires_grad=True)
    (made @ start).sum().backward()  # vectors made in inference mode must not be lost for what is fitted afterwards


def test_what_is_served_is_a_factorization_with_the_same_answers() -> None:
    model = net(bias=True).eval()
    with torch.no_grad():
        model.table.bias.normal_()
        model.fold_in.normal_()
        model.table.start.normal_()
    served = model.served()
    items, lengths = torch.tensor([[1, 2], [4, 4], [3, 4]]), torch.tensor([2, 0, 1])
    users = torch.tensor([0, -1, -1])
    torch.testing.assert_close(served.last(items, lengths, users), model.last(items, lengths, users))
    torch.testing.assert_close(served.last(items, lengths, users)[0], model.user_vectors()[0])
    torch.testing.assert_close(served.item_vectors(), model.item_vectors())
    assert torch.equal(served.item_bias(), model.item_bias())
    assert Trained("x", model, "lightgcn", {}, "").parameters == Trained("x", served, "mf", {}, "").parameters


def test_the_graph_is_that_of_train_and_saved_with_the_weights(tmp_path: Path) -> None:
    split = split_of([([0, 1, 0], [2], [3]), ([2], [1], [0])], 4)
    model, settings = create("lightgcn", split, {"dim": 3})
    assert model.graph.tolist() == [[0, 0, 1], [0, 1, 2]]
    assert model.graph.dtype == torch.int32
    assert "graph" not in settings
    Trained("x", model, "lightgcn", settings, split.digest).save(tmp_path / "m")
    found = Trained.load(tmp_path / "m", split).model
    assert torch.equal(found.eval().nodes(), model.eval().nodes())
    for graph in (np.array([[0], [4]]), np.array([[4], [0]]), np.array([[0]])):
        with pytest.raises(TrainingError, match="two rows: users below 4, items below 4"):
            LightGCN(4, n_users=4, graph=graph)


def test_a_user_without_train_events_is_answered_like_an_empty_history() -> None:
    split = split_of([([0, 1], [2], []), ([], [], [1]), ([2, 3], [0], [])], 4)
    model = train("lightgcn", split, {"dim": 3, "bias": True}, quick(epochs=1))
    known, empty = model.scores(Histories.of([[]], np.array([1]))), model.scores(Histories.of([[]]))
    np.testing.assert_allclose(known, empty, atol=1e-5)
