"""Teachers that live in the step: the average of the student's past, and a peer."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from core_world import quick, walk_split
from distilrec.errors import RecipeError
from distilrec.models.trained import Trained
from distilrec.training import fit as fitting
from distilrec.training import loop
from distilrec.training.batches import epoch_batches, training_examples
from distilrec.training.checkpoint import NAME
from distilrec.training.live import answers_in, average_of, follow
from distilrec.training.train import train
from distilrec.types import Split

pytestmark = [pytest.mark.req("C11"), pytest.mark.req("C14")]

MODEL = {"dim": 8, "layers": 1, "max_length": 6, "dropout": 0.0}
BOTH = {"cross_entropy": 0.5, "kl": 0.5}


@pytest.fixture(scope="module")
def split() -> Split:
    return walk_split(users=30, items=20)


def weights(trained: Trained) -> dict[str, torch.Tensor]:
    return {name: tensor for name, tensor in trained.model.state_dict().items() if name != "table.start"}


def test_an_average_follows_by_the_share_that_decay_leaves() -> None:
    torch.manual_seed(0)
    model: Any = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    average: Any = average_of(model)
    assert not any(weight.requires_grad for weight in average.parameters())
    assert all(weight.requires_grad for weight in model.parameters())
    before = copy.deepcopy(average[0].weight)
    with torch.no_grad():
        model[0].weight.add_(1.0)
    model(torch.randn(4, 3))
    follow(average, model, 0.75)
    torch.testing.assert_close(average[0].weight, before + 0.25)
    torch.testing.assert_close(average[1].running_mean, 0.25 * model[1].running_mean)
    assert int(average[1].num_batches_tracked) == 1, "a counter is no weight"
    for _ in range(60):
        follow(average, model, 0.75)
    torch.testing.assert_close(average[0].weight, model[0].weight)


def test_the_companion_is_the_average_over_all_steps(split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    past: list[torch.Tensor] = []
    expected: list[torch.Tensor] = []
    seen: list[torch.Tensor] = []
    original = fitting.follow

    def watched(average: Any, model: Any, decay: float) -> None:
        if not expected:
            expected.append(average.table.weight.clone())
        original(average, model, decay)
        past.append(model.table.weight.detach().clone())
        expected[0] = decay * expected[0] + (1 - decay) * past[-1]
        seen.append(average.table.weight.clone())

    monkeypatch.setattr(fitting, "follow", watched)
    train("sasrec", split, MODEL, quick(epochs=3, teacher="average", decay=0.8), losses=BOTH)
    assert len(past) == 3 * 2
    torch.testing.assert_close(seen[-1], expected[0])
    assert not torch.equal(seen[-1], past[-1])


def test_without_decay_the_teacher_is_the_student_itself_and_teaches_nothing(split: Split) -> None:
    settings = {"epochs": 3, "batch_size": 16, "optimizer": "sgd", "learning_rate": 0.1}
    model = {**MODEL, "max_length": 20}  # no history is cut to make room for its open decision
    alone = train("sasrec", split, model, quick(**settings), losses={"cross_entropy": 1.0})
    # the open decisions change nothing either: their gradient is that of KL(p || p)
    same = train("sasrec", split, model, quick(**settings, teacher="average", decay=0.0),
                 losses={"cross_entropy": 1.0, "kl": 1.0})
    other = train("sasrec", split, model, quick(**settings, teacher="average", decay=0.9),
                  losses={"cross_entropy": 1.0, "kl": 1.0})
    table = weights(alone)["table.weight"]
    torch.testing.assert_close(weights(same)["table.weight"], table, atol=1e-5, rtol=1e-4)
    assert (weights(other)["table.weight"] - table).abs().max() > 1e-4


def test_answers_have_the_form_of_a_store_and_the_scale_of_the_scores(split: Split) -> None:
    trained = train("sasrec", split, {**MODEL, "dropout": 0.5}, quick(epochs=1))
    net: Any = trained.model.train()
    examples = training_examples(split, 6, open_end=True)
    batch = next(epoch_batches(split, examples, 8, np.random.default_rng(0)))
    said = answers_in(net, batch, quick(score_scale=2.0))
    again = answers_in(net, batch, quick(score_scale=2.0))
    assert torch.equal(said["response"], again["response"]), "a teacher does not guess with half of its units"
    assert net.training
    assert not said["response"].requires_grad
    net.eval()
    q = net.query(*(torch.as_tensor(a) for a in (batch.items, batch.lengths, batch.users))).flatten(0, 1)
    log_p = (2.0 * (q[torch.as_tensor(batch.positions)] @ net.item_vectors().T)).log_softmax(1).detach()
    torch.testing.assert_close(said["response"], log_p.sort(1, descending=True).values)
    torch.testing.assert_close(log_p.gather(1, said["response.ids"]), said["response"])
    torch.testing.assert_close(said["response.mass"], torch.ones(len(log_p)))


def test_a_peer_starts_elsewhere_learns_too_and_teaches(split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    learners: list[Any] = []
    original = fitting.run
    monkeypatch.setattr(fitting, "run", lambda model, *a, **k: learners.append(model) or original(model, *a, **k))
    start = np.random.default_rng(0).normal(size=(20, 8)).astype(np.float32)
    alone = train("sasrec", split, MODEL, quick(epochs=8), losses={"cross_entropy": 0.5}, start=start)
    pair = train("sasrec", split, MODEL, quick(epochs=8, teacher="peer"), losses=BOTH, start=start)
    learner = learners[-1]
    ours, theirs = (dict(net.named_parameters()) for net in (learner.model, learner.companion))
    assert learner.model is pair.model
    assert all(weight.requires_grad for weight in theirs.values())
    unlike = [name for name in ours if ours[name].dim() > 1 and not torch.allclose(ours[name], theirs[name], atol=1e-3)]
    assert len(unlike) > 3
    assert not torch.allclose(weights(alone)["table.weight"], ours["table.weight"], atol=1e-4), "it was taught"
    # the peer learns: it answers better than it would untrained
    before = fitting.average_of(train("sasrec", split, MODEL, quick(epochs=1, learning_rate=1e-12, seed=1000)).model)
    rate = {name: fitting.validate(net, split, "ndcg@10") for name, net in
            (("untrained", before), ("peer", learner.companion))}
    assert rate["peer"] > rate["untrained"]


def test_losses_of_answers_only_and_no_store_is_needed(split: Split) -> None:
    for teacher in ("average", "peer"):
        with pytest.raises(RecipeError, match="the loss 'hint' with teacher: " + teacher):
            train("sasrec", split, MODEL, quick(epochs=1, teacher=teacher), losses={"cross_entropy": 1.0, "hint": 1.0})
    for loss in ("grouped_kl", "relaxed_ranking", "rejuvenated_cross_entropy"):
        losses = {"cross_entropy": 1.0, loss: 1.0}
        made = train("sasrec", split, MODEL, quick(epochs=1, teacher="average"), losses=losses)
        assert np.isfinite(made.training["curve"][0]["loss"])
    train("mf", split, {"dim": 4}, quick(epochs=1, teacher="peer"), losses=BOTH)


@pytest.mark.parametrize("teacher", ["average", "peer"])
def test_a_killed_run_goes_on_to_the_same_bits_for_its_companion_is_in_the_checkpoint(
    teacher: str, split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = quick(epochs=4, teacher=teacher, decay=0.9)
    model = {**MODEL, "dropout": 0.3}
    whole = train("sasrec", split, model, settings, losses=BOTH, folder=tmp_path / "whole")
    original, done = loop.epoch, []

    def dying(*given: Any) -> float:
        done.append(1)
        if len(done) == 3:
            raise KeyboardInterrupt
        return original(*given)

    monkeypatch.setattr(loop, "epoch", dying)
    with pytest.raises(KeyboardInterrupt):
        train("sasrec", split, model, settings, losses=BOTH, folder=tmp_path / "parted")
    assert (tmp_path / "parted" / NAME).exists()
    parted = train("sasrec", split, model, settings, losses=BOTH, folder=tmp_path / "parted")
    assert len(done) == 3 + 2
    assert all(torch.equal(tensor, weights(whole)[name]) for name, tensor in weights(parted).items())
    assert parted.digest == whole.digest
    assert [p["loss"] for p in parted.training["curve"]] == [p["loss"] for p in whole.training["curve"]]


@pytest.mark.parametrize("teacher", ["average", "peer"])
def test_the_saved_model_has_no_companion(teacher: str, split: Split, tmp_path: Path) -> None:
    made = train("sasrec", split, MODEL, quick(epochs=1, teacher=teacher), losses=BOTH, folder=tmp_path / "m")
    plain = train("sasrec", split, MODEL, quick(epochs=1))
    assert made.parameters == plain.parameters
    found = Trained.load(tmp_path / "m", split)
    assert found.model.state_dict().keys() == plain.model.state_dict().keys()
    assert sorted(path.name for path in (tmp_path / "m").iterdir()) == ["model.json", "model.safetensors"]


def test_who_learns_from_labels_alone_has_nothing_to_balance(split: Split) -> None:
    """`balance` moves weight between two kinds of loss: it must not take the loss away from a control."""
    plain = {"losses": {"cross_entropy": 1.0}}
    still = train("sasrec", split, MODEL, quick(epochs=2), **plain)
    for balance in ("soft-then-hard", "hard-then-soft"):
        moved = train("sasrec", split, MODEL, quick(epochs=2, balance=balance), **plain)
        assert all(torch.equal(tensor, weights(still)[name]) for name, tensor in weights(moved).items())
    mixed = [train("sasrec", split, MODEL, quick(epochs=2, balance=balance, teacher="average"), losses=BOTH)
             for balance in ("constant", "soft-then-hard")]
    assert not torch.equal(weights(mixed[0])["table.weight"], weights(mixed[1])["table.weight"])
