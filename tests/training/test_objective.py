"""One step's loss against slow second ways: full and sampled, hard and soft, collisions, bias, scale."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from core_world import walk_split
from distilrec.models.trained import create
from distilrec.training.batches import Batch, epoch_batches, training_examples
from distilrec.training.gather import gathered_scores
from distilrec.training.objective import Negatives, objective
from distilrec.training.settings import Augment, TrainSettings
from distilrec.types import Split

pytestmark = [pytest.mark.req("C1"), pytest.mark.req("A4")]

I = 14


@pytest.fixture(scope="module")
def split() -> Split:
    return walk_split(users=12, items=I, length=7)


@pytest.fixture(scope="module")
def batch(split: Split) -> Batch:
    """With open decisions, and with some histories masked."""
    examples = training_examples(split, 6, open_end=True)
    found = next(epoch_batches(split, examples, 12, np.random.default_rng(0), augment=Augment(mask=0.4)))
    assert 0 < found.soft.sum() < len(found.soft)
    assert 0 < found.labeled.sum() < len(found.labeled)
    return found


@pytest.fixture(scope="module")
def model(split: Split) -> nn.Module:
    net = create("sasrec", split, {"dim": 8, "max_length": 6, "bias": True, "dropout": 0.0}, seed=1)[0]
    with torch.no_grad():
        for weight in net.parameters():
            weight.add_(0.5 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(2)))
    return net.eval()


@pytest.fixture(scope="module")
def knowledge(batch: Batch) -> dict[str, np.ndarray]:
    """Of the soft decisions, in their order."""
    return answers(int(batch.soft.sum()), I, 4)


def answers(rows: int, items: int, kept: int, seed: int = 3) -> dict[str, np.ndarray]:
    """A teacher's top answers with the share of probability that they hold."""
    scores = 2 * np.random.default_rng(seed).normal(size=(rows, items))
    log_p = scores - np.log(np.exp(scores).sum(1, keepdims=True))
    ids = np.argsort(-log_p, axis=1)[:, :kept]
    top = np.take_along_axis(log_p, ids, 1).astype(np.float32)
    return {"response": top, "response.ids": ids.astype(np.int32), "response.mass": np.exp(top).sum(1)}


def all_scores(model: Any, batch: Batch, scale: float = 1.0) -> torch.Tensor:
    hidden = model.query(torch.as_tensor(batch.items), torch.as_tensor(batch.lengths))
    q = hidden.flatten(0, 1)[torch.as_tensor(batch.positions)]
    return scale * (q @ model.item_vectors().T + model.item_bias())


def everything() -> tuple[np.ndarray, float]:
    """All items drawn: the sampled way must give what the whole catalog gives."""
    return np.random.default_rng(0).permutation(I), 0.0


@pytest.mark.parametrize("negatives", [None, everything()], ids=["full", "sampled"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("scale", [1.0, 2.5])
def test_cross_entropy_is_torchs_over_the_labeled_decisions(
    model: nn.Module, batch: Batch, negatives: Any, smoothing: float, scale: float
) -> None:
    settings = TrainSettings(label_smoothing=smoothing, score_scale=scale)
    loss, values = objective(model, batch, negatives, {"cross_entropy": 1.0}, settings)
    labeled = torch.as_tensor(batch.labeled)
    expected = F.cross_entropy(
        all_scores(model, batch, scale)[labeled], torch.as_tensor(batch.targets)[labeled], label_smoothing=smoothing
    )
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(values["cross_entropy"], expected.detach())


@pytest.mark.parametrize("negatives", [None, everything()], ids=["full", "sampled"])
def test_bpr_is_a_loop_over_the_other_items(model: nn.Module, batch: Batch, negatives: Any) -> None:
    loss, _ = objective(model, batch, negatives, {"bpr": 1.0}, TrainSettings())
    scores, rows = all_scores(model, batch).detach().double(), []
    for i in np.flatnonzero(batch.labeled):
        target = int(batch.targets[i])
        rows.append(
            sum(math.log1p(math.exp(float(scores[i, j] - scores[i, target]))) for j in range(I) if j != target) / I
        )
    assert loss.item() == pytest.approx(np.mean(rows), rel=1e-5)


@pytest.mark.parametrize("negatives", [None, everything()], ids=["full", "sampled"])
@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_soft_labels_are_a_loop_over_the_kept_items(
    model: nn.Module, batch: Batch, knowledge: dict[str, np.ndarray], negatives: Any, temperature: float
) -> None:
    loss, _ = objective(model, batch, negatives, {"kl": 1.0}, TrainSettings(temperature=temperature), knowledge)
    log_q = (all_scores(model, batch).double() / temperature).log_softmax(1)
    rows = []
    for place, i in enumerate(np.flatnonzero(batch.soft)):
        ids, logits = knowledge["response.ids"][place], torch.as_tensor(knowledge["response"][place]).double()
        q = log_q[i, torch.as_tensor(ids.astype(np.int64))]
        if temperature == 1.0:  # the rest of the catalog as one further class
            p, rest = logits.exp(), 1 - float(logits.exp().sum())
            value = (p * (logits - q)).sum() + rest * (math.log(rest) - math.log(1 - float(q.detach().exp().sum())))
        else:
            log_p = (logits / temperature).log_softmax(0)
            value = temperature**2 * (log_p.exp() * (log_p - q)).sum()
        rows.append(float(value))
    assert loss.item() == pytest.approx(np.mean(rows), rel=1e-4)


@pytest.mark.parametrize(
    "losses", [{"cross_entropy": 1.0}, {"bpr": 1.0}, {"kl": 1.0}, {"cross_entropy": 0.2, "kl": 0.8}]
)
def test_full_and_sampled_agree_in_value_and_gradient_when_all_items_are_drawn(
    model: nn.Module, batch: Batch, knowledge: dict[str, np.ndarray], losses: dict[str, float]
) -> None:
    results = []
    for negatives in (None, everything()):
        model.zero_grad()
        loss, _ = objective(model, batch, negatives, losses, TrainSettings(temperature=2.0), knowledge)
        loss.backward()
        results.append((loss.detach(), [p.grad.clone() for p in model.parameters()]))
    torch.testing.assert_close(results[0][0], results[1][0])
    for full, sampled in zip(results[0][1], results[1][1], strict=True):
        torch.testing.assert_close(full, sampled, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("losses", [{"cross_entropy": 1.0}, {"kl": 1.0}])
@pytest.mark.parametrize("power", [0.0, 1.0])
def test_a_few_negatives_estimate_the_whole_catalog_without_bias(
    model: nn.Module, batch: Batch, split: Split, losses: dict[str, float], power: float
) -> None:
    """The mean partition over many draws, from the loss of one decision whose true item the teacher did not keep."""
    rng = np.random.default_rng(0)
    known = answers(len(batch.keys), I, 4)
    candidates = np.flatnonzero(batch.labeled & batch.soft & ~(known["response.ids"] == batch.targets[:, None]).any(1))
    shares = all_scores(model, batch).detach().softmax(1).numpy()
    one = candidates[shares[candidates, batch.targets[candidates]].argmax()]  # the true item weighs most there
    known.pop("response.mass")  # without the rest class the loss is log Z plus a constant
    single = Batch(
        batch.items,
        batch.lengths,
        batch.users,
        *(column[[one]] for column in (batch.positions, batch.targets, batch.keys, batch.labeled, batch.soft)),
    )
    rows = {name: value[[one]] for name, value in known.items()}
    draws = Negatives.of(split.train_counts, TrainSettings(negatives=5, negative_power=power))
    whole = objective(model, single, None, losses, TrainSettings(), rows)[0].item()
    with torch.inference_mode():
        drawn = [
            objective(model, single, draws.draw(rng), losses, TrainSettings(), rows)[0].item() for _ in range(1000)
        ]
    ratio = np.exp(np.array(drawn) - whole)  # so is the cross-entropy
    assert abs(ratio.mean() - 1) < 4 * ratio.std() / np.sqrt(len(ratio))


def test_label_smoothing_over_a_sample_is_unbiased(model: nn.Module, batch: Batch, split: Split) -> None:
    rng = np.random.default_rng(0)
    settings = TrainSettings(negatives=6, negative_power=0.8, label_smoothing=0.5)
    draws = Negatives.of(split.train_counts, settings)
    labeled = torch.as_tensor(batch.labeled)
    scores = all_scores(model, batch).detach()[labeled]
    positive = scores.gather(1, torch.as_tensor(batch.targets)[labeled][:, None]).mean()
    pulls = []
    with torch.inference_mode():
        for _ in range(600):
            drawn = draws.draw(rng)
            plain = objective(
                model, batch, drawn, {"cross_entropy": 1.0}, settings.model_copy(update={"label_smoothing": 0.0})
            )
            smooth = objective(model, batch, drawn, {"cross_entropy": 1.0}, settings)
            pulls.append(float(plain[0] - smooth[0]) * 2 + float(positive))
    assert abs(np.mean(pulls) - float(scores.mean())) < 4 * np.std(pulls) / np.sqrt(len(pulls))


@pytest.mark.parametrize("losses", [{"cross_entropy": 1.0}, {"bpr": 1.0}, {"kl": 1.0}])
def test_a_single_negative_that_collides_gives_finite_gradients(
    model: nn.Module, batch: Batch, knowledge: dict[str, np.ndarray], losses: dict[str, float]
) -> None:
    target = int(batch.targets[np.flatnonzero(batch.labeled)[0]])
    model.zero_grad()
    loss, _ = objective(model, batch, (np.array([target]), math.log(1 / I)), losses, TrainSettings(), knowledge)
    loss.backward()
    assert torch.isfinite(loss)
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)


def test_terms_are_summed_with_their_weights_and_trust_weighs_a_teacher(
    model: nn.Module, batch: Batch, knowledge: dict[str, np.ndarray]
) -> None:
    trust = np.random.default_rng(0).uniform(0, 2, batch.soft.sum()).astype(np.float32)
    both, values = objective(model, batch, None, {"cross_entropy": 0.3, "kl": 0.7}, TrainSettings(), knowledge)
    assert both.item() == pytest.approx(0.3 * values["cross_entropy"].item() + 0.7 * values["kl"].item(), rel=1e-6)
    doubled, _ = objective(
        model,
        batch,
        None,
        {"kl": 1.0},
        TrainSettings(),
        {**knowledge, "response.trust": np.full(batch.soft.sum(), 2.0, np.float32)},
    )
    assert doubled.item() == pytest.approx(2 * values["kl"].item(), rel=1e-6)
    weighed, _ = objective(model, batch, None, {"kl": 1.0}, TrainSettings(), {**knowledge, "response.trust": trust})
    assert weighed.item() != pytest.approx(values["kl"].item(), rel=1e-3)


def test_an_unlabeled_decision_has_no_part_in_hard_terms(model: nn.Module, batch: Batch) -> None:
    other = Batch(
        batch.items,
        batch.lengths,
        batch.users,
        batch.positions,
        np.where(batch.labeled, batch.targets, 5),
        batch.keys,
        batch.labeled,
        batch.soft,
    )
    for negatives in (None, everything()):
        first = objective(model, batch, negatives, {"cross_entropy": 1.0}, TrainSettings())[0]
        assert first.item() == pytest.approx(
            objective(model, other, negatives, {"cross_entropy": 1.0}, TrainSettings())[0].item(), rel=1e-6
        )


def test_a_soft_term_without_knowledge_is_refused(model: nn.Module, batch: Batch) -> None:
    with pytest.raises(ValueError, match="need knowledge"):
        objective(model, batch, None, {"kl": 1.0}, TrainSettings())


def test_bf16_stays_near_float32(model: nn.Module, batch: Batch, knowledge: dict[str, np.ndarray]) -> None:
    for negatives in (None, everything()):
        exact = objective(model, batch, negatives, {"cross_entropy": 0.5, "kl": 0.5}, TrainSettings(), knowledge)[0]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            rough = objective(model, batch, negatives, {"cross_entropy": 0.5, "kl": 0.5}, TrainSettings(), knowledge)[0]
        assert rough.dtype == torch.float32
        assert rough.item() == pytest.approx(exact.item(), rel=0.02)


def test_gathered_scores_against_the_plain_way() -> None:
    generator = torch.Generator().manual_seed(0)
    q, table = torch.randn(7, 5, generator=generator), torch.randn(9, 5, generator=generator)
    ids = torch.randint(6, (7, 4), generator=generator)  # with repeats, and items that nobody asks for
    weight = torch.randn(7, 4, generator=generator)
    results = []
    for fast in (True, False):
        a, b = q.clone().requires_grad_(), table.clone().requires_grad_()
        scores = gathered_scores(a, b, ids) if fast else (F.embedding(ids, b) * a[:, None]).sum(-1)
        (scores * weight).sum().backward()
        results.append((scores.detach(), a.grad, b.grad))
    for mine, plain in zip(*results, strict=True):
        torch.testing.assert_close(mine, plain)


def test_gathered_scores_of_nothing_and_of_what_is_not_there() -> None:
    q, table = torch.randn(3, 5), torch.randn(4, 5)
    assert gathered_scores(q, table, torch.zeros(3, 0, dtype=torch.long)).shape == (3, 0)
    many = torch.tensor([[0, 1, 2, 3, 3, 0]] * 3)  # more than there are
    torch.testing.assert_close(gathered_scores(q, table, many), (q @ table.T).gather(1, many))
    for wrong in (-1, 4, 10**7):
        with pytest.raises(IndexError, match="of a table of 4"):
            gathered_scores(q, table, torch.tensor([[0], [1], [wrong]]))


@pytest.mark.parametrize("loss", ["cross_entropy", "bpr"])
@pytest.mark.parametrize("settings", [
    TrainSettings(score_scale=2.0), TrainSettings(negatives="full"), TrainSettings(negatives=9),
    TrainSettings(negatives=9, negative_power=0.7), TrainSettings(negatives=9, label_smoothing=0.1),
], ids=["many", "full", "few", "drawn by popularity", "smoothed"])
def test_the_labels_of_a_user_share_one_look_at_the_catalog(
    split: Split, settings: TrainSettings, loss: str
) -> None:
    """Of a model without history: the quick way, once per user, is the plain way, once per label."""
    net, _ = create("mf", split, {"dim": 6, "bias": True, "scale": 1.0}, seed=1)
    with torch.no_grad():
        net.table.bias.normal_()  # type: ignore[operator, union-attr]
    examples = training_examples(split, 200, needs_history=False)
    quick = next(epoch_batches(split, examples, 12, np.random.default_rng(0), needs_history=False))
    assert quick.soft.sum() == 12 < len(quick.soft)
    plain = dataclasses.replace(quick, soft=np.ones_like(quick.soft))
    drawn = Negatives.of(split.train_counts, settings).draw(np.random.default_rng(3))
    found = []
    for batch in (quick, plain):
        net.zero_grad()
        value, _ = objective(net, batch, drawn, {loss: 1.0}, settings)
        value.backward()
        found.append((value.detach(), [p.grad.clone() for p in net.parameters() if p.grad is not None]))
    torch.testing.assert_close(found[0][0], found[1][0])
    for ours, theirs in zip(found[0][1], found[1][1], strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)
