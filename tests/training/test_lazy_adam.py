"""AdamW by rows: the same where every row is seen, by hand where one is not."""

from __future__ import annotations

import math

import pytest
import torch

from distilrec.errors import RecipeError
from distilrec.features import Feature
from distilrec.models.deepfm import DeepFM
from distilrec.models.fields import Inputs
from distilrec.training.lazy_adam import LazyAdam
from distilrec.training.loop import make_optimizer
from distilrec.training.settings import TrainSettings

LAZY = TrainSettings(optimizer="lazy_adam", learning_rate=0.1, weight_decay=0.2)


def _sparse(rows: list[int], values: list[list[float]], shape: tuple[int, int]) -> torch.Tensor:
    return torch.sparse_coo_tensor(torch.tensor([rows]), torch.tensor(values), shape, check_invariants=True)


def test_rows_that_are_seen_in_every_step_move_as_in_adamw() -> None:
    torch.manual_seed(0)
    start, tables = torch.randn(4, 3), []
    for lazy in (True, False):
        table = torch.nn.Parameter(start.clone())
        optimizer = (LazyAdam([table], lr=0.1, weight_decay=0.2) if lazy else
                     torch.optim.AdamW([table], lr=0.1, weight_decay=0.2))
        generator = torch.Generator().manual_seed(1)
        for _ in range(20):
            gradient = torch.randn(4, 3, generator=generator)
            table.grad = gradient.to_sparse(1) if lazy else gradient
            optimizer.step()
        tables.append(table.detach())
    torch.testing.assert_close(tables[0], tables[1])


def test_steps_that_a_row_was_not_seen_in_are_made_up_for() -> None:
    """Against AdamW that is told of gradients of zero."""
    generator = torch.Generator().manual_seed(2)
    start = torch.randn(6, 3, generator=generator)
    lazy, dense = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    optimizers = LazyAdam([lazy], lr=0.01, weight_decay=0.1), torch.optim.AdamW([dense], lr=0.01, weight_decay=0.1)
    for _ in range(400):
        rows = (torch.rand(6, generator=generator) < torch.tensor([1.0, 0.5, 0.2, 0.1, 0.02, 0.0])).nonzero()[:, 0]
        values = torch.randn(len(rows), 3, generator=generator) + 0.5
        lazy.grad = torch.sparse_coo_tensor(rows[None], values, (6, 3), check_invariants=True)
        dense.grad = torch.zeros(6, 3).index_copy(0, rows, values)
        for optimizer in optimizers:
            optimizer.step()
    optimizers[0].settle()
    assert (dense.detach() - start).abs().min() > 0.2  # all of them moved far, if only by decay
    torch.testing.assert_close(lazy.detach(), dense.detach(), atol=0.02, rtol=0)


def test_a_row_that_is_seen_once_by_hand() -> None:
    table = torch.nn.Parameter(torch.tensor([[1.0], [2.0]]))
    optimizer = LazyAdam([table], lr=0.1, weight_decay=0.5)
    table.grad = _sparse([0, 0], [[-2.0], [-2.0]], (2, 1))  # the same row twice: the gradients add up
    optimizer.step()
    assert table.detach()[:, 0].tolist() == pytest.approx([1 * 0.95 + 0.1, 2.0])  # the first step is the rate
    table.grad = _sparse([1], [[1.0]], (2, 1))
    optimizer.step()
    before, ratio = 1.05, 0.9 / math.sqrt(0.999)
    m, v = 0.1 * -4 / (1 - 0.9**2), 0.001 * 16 / (1 - 0.999**2)
    optimizer.catch_up(table, torch.tensor([[0, 0]]))
    assert table.detach()[0].item() == pytest.approx(before * 0.95 - 0.1 * ratio * m / math.sqrt(v), abs=1e-5)
    held = table.detach().clone()
    optimizer.settle()
    assert torch.equal(table.detach(), held)  # everything was up to date


def test_a_saved_state_goes_on_as_if_nothing_had_happened() -> None:
    def train(table: torch.nn.Parameter, optimizer: LazyAdam, steps: range) -> None:
        for step in steps:
            table.grad = _sparse([step % 3], [[float(step + 1)]], (3, 1))
            optimizer.step()

    whole = torch.nn.Parameter(torch.ones(3, 1))
    train(whole, LazyAdam([whole], lr=0.1, weight_decay=0.1), range(7))
    first = torch.nn.Parameter(torch.ones(3, 1))
    killed = LazyAdam([first], lr=0.1, weight_decay=0.1)
    train(first, killed, range(4))
    again = LazyAdam([first], lr=0.1, weight_decay=0.1)
    again.load_state_dict(killed.state_dict())
    train(first, again, range(4, 7))
    assert torch.equal(first, whole)


def test_a_model_learns_and_decays_what_it_does_not_see() -> None:
    features = [Feature("user", "category", size=50), Feature("tags", "list", size=9)]
    torch.manual_seed(0)
    model = DeepFM(features, [1], dim=4, hidden=[8])
    optimizer = make_optimizer(model, LAZY)
    inputs = Inputs(torch.tensor([[3], [4]]), (torch.tensor([[1, 2], [2, -1]]),), torch.zeros(2, 0), ())
    before = model.table.weight.detach().clone()
    losses = []
    for _ in range(30):
        loss = torch.nn.functional.binary_cross_entropy_with_logits(
            model.train()(inputs)["scores"][:, 0], torch.tensor([1.0, 0.0]))
        optimizer.zero_grad()
        loss.backward()
        assert model.table.weight.grad.is_sparse
        optimizer.step()
        losses.append(loss.item())
    optimizer.settle()
    moved = (model.table.weight.detach() != before).any(1).nonzero()[:, 0].tolist()
    assert moved == [row for row in range(59) if row not in (0, 50)]  # by decay; unknown values start at zero
    gone = before[5] * (1 - 0.1 * 0.2) ** 30
    torch.testing.assert_close(model.table.weight.detach()[5], gone)
    assert losses[-1] < 0.1 < losses[0]


def test_what_it_cannot_do_is_said() -> None:
    with pytest.raises(RecipeError, match="without a table of features"):
        make_optimizer(torch.nn.Linear(2, 1), LAZY)
    model = DeepFM([Feature("user", "category", size=5)], [1], dim=2, hidden=[2])
    with pytest.raises(RecipeError, match="gradient_clip"):
        make_optimizer(model, LAZY.model_copy(update={"gradient_clip": 1.0}))


@pytest.mark.parametrize("lists", [False, True])  # a table that is read once in a step, and one that is read twice
def test_a_model_trains_as_with_adamw(lists: bool) -> None:
    features = [Feature("user", "category", size=30), Feature("item", "category", size=7)]
    features += [Feature("tags", "list", size=9)] if lists else []
    generator = torch.Generator().manual_seed(4)
    ids = torch.stack([torch.randint(size, (200,), generator=generator) for size in (30, 7)], 1)
    ragged = (torch.randint(-1, 9, (200, 2), generator=generator).sort(1, descending=True).values,) if lists else ()
    inputs, labels = Inputs(ids, ragged, torch.zeros(200, 0), ()), (ids.sum(1) % 2).float()
    found = []
    for name in ("lazy_adam", "adamw"):
        torch.manual_seed(0)
        model = DeepFM(features, [1], dim=4, hidden=[8])
        optimizer = make_optimizer(model, LAZY.model_copy(update={"optimizer": name, "learning_rate": 0.01}))
        for step in range(60):
            rows = torch.arange(200).roll(7 * step)[:20]
            scores = model.train()(inputs.take(rows))["scores"][:, 0]
            optimizer.zero_grad()
            torch.nn.functional.binary_cross_entropy_with_logits(scores, labels[rows]).backward()
            optimizer.step()
        if isinstance(optimizer, LazyAdam):
            optimizer.settle()
        found.append(model.eval()(inputs)["scores"].detach())
    assert found[1].std() > 0.2
    torch.testing.assert_close(found[0], found[1], atol=0.1, rtol=0)
