"""The auto-encoder of bags: arithmetic by hand, the penalty and its annealing, answers along a history."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from core_world import quick, split_of, walk_split
from distilrec.models.mult_vae import MultVAE
from distilrec.models.trained import Trained, create
from distilrec.training.batches import epoch_batches, training_examples
from distilrec.training.objective import objective
from distilrec.training.train import train
from distilrec.types import Histories


def net(**settings: Any) -> MultVAE:
    torch.manual_seed(0)
    return MultVAE(6, dim=4, hidden=5, latent=3, **settings)


def test_the_answer_by_hand() -> None:
    model = net().eval()
    items, lengths = torch.tensor([[1, 4, 6], [2, 6, 6]]), torch.tensor([2, 1])
    enter = model.enter.detach()
    for row, bag in enumerate(([1, 4], [2])):
        state = torch.tanh(enter[bag].sum(0) / len(bag) ** 0.5 + model.enter_bias)
        expected = torch.tanh(model.decode(model.mean(state)))
        torch.testing.assert_close(model.last(items, lengths)[row], expected)
        torch.testing.assert_close(model.query(items, lengths)[row, 0], expected)


def test_the_order_and_the_user_do_not_matter() -> None:
    model = net().eval()
    one = model.last(torch.tensor([[1, 4, 2]]), torch.tensor([3]), torch.tensor([0]))
    two = model.last(torch.tensor([[2, 1, 4]]), torch.tensor([3]), torch.tensor([5]))
    torch.testing.assert_close(one, two)


def test_the_penalty_is_the_divergence_per_item_and_is_annealed() -> None:
    model = net(variation=0.5, anneal=4, dropout=0.0).train()
    items, lengths = torch.tensor([[1, 4, 6], [2, 6, 6]]), torch.tensor([2, 1])
    seen = []
    for _ in range(6):
        model.query(items, lengths)
        assert model.penalty is not None
        seen.append(float(model.penalty.detach()))
    states = [torch.tanh(model.enter[bag].sum(0) / len(bag) ** 0.5) for bag in ([1, 4], [2])]
    divergence = 0.0
    for state in states:
        mean, log_variance = model.mean(state), model.log_variance(state)
        posterior = torch.distributions.Normal(mean, (0.5 * log_variance).exp())
        prior = torch.distributions.Normal(torch.zeros(3), torch.ones(3))
        divergence += float(torch.distributions.kl_divergence(posterior, prior).sum().detach())
    expected = [0.5 * min(1.0, step / 4) * divergence / 3 for step in range(6)]
    np.testing.assert_allclose(seen, expected, rtol=1e-5)
    model.eval().query(items, lengths)
    assert model.penalty is None


def test_without_variation_it_is_the_plain_auto_encoder() -> None:
    model = net(variation=0.0, dropout=0.0).train()
    items, lengths = torch.tensor([[1, 4]]), torch.tensor([2])
    first = model.query(items, lengths)
    assert model.penalty is None
    torch.testing.assert_close(first, model.eval().query(items, lengths))


def test_training_adds_the_penalty_to_the_loss() -> None:
    split = split_of([([0, 1, 2], [3], []), ([1, 4], [5], [])], 6)
    model = net(variation=0.5, anneal=1, dropout=0.0).train()
    model.step += 1
    settings = quick()
    batch = next(epoch_batches(split, training_examples(split, 9, needs_history=False), 2, np.random.default_rng(0),
                               needs_history=False))
    total, values = objective(model, batch, None, {"cross_entropy": 1.0}, settings)
    torch.testing.assert_close(total, values["cross_entropy"] + values["penalty"])
    assert values["penalty"] > 0


def test_each_prefix_of_a_history_has_an_answer_of_its_own() -> None:
    split = walk_split(users=10, items=12)
    model, settings = create("mult_vae", split, {"dim": 4})
    trained = Trained("x", model, "mult_vae", settings, split.digest)
    assert not trained.per_user
    steps = trained.step_scores(Histories.of([[3, 1, 7], [], [2]], np.array([0, 1, 2])))
    expected = trained.scores(Histories.of([[3], [3, 1], [3, 1, 7], [2]]))
    np.testing.assert_allclose(steps, expected, rtol=1e-5, atol=1e-6)


def test_annealing_goes_on_where_it_stopped() -> None:
    split = walk_split(users=20, items=12)
    trained = train("mult_vae", split, {"dim": 4}, quick(epochs=3, patience=3))
    assert 1 <= int(trained.model.step) <= trained.training["steps"]
