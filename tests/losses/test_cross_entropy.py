"""Cross-entropy and the log-partition beneath it, against torch, hand values and the whole catalog."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from distilrec.losses.candidates import log_partition
from distilrec.losses.cross_entropy import cross_entropy
from distilrec.training.objective import Negatives
from distilrec.training.settings import TrainSettings

pytestmark = pytest.mark.req("C1")


def test_a_value_by_hand() -> None:
    # scores 0, log 2, log 5: probabilities 1/8, 2/8, 5/8
    scores = torch.log(torch.tensor([[1.0, 2.0, 5.0]]))
    loss = cross_entropy(scores[:, 1], scores.logsumexp(1))
    assert loss.item() == pytest.approx(math.log(4.0))
    smooth = cross_entropy(scores[:, 1], scores.logsumexp(1), mean_score=scores.mean(1), label_smoothing=0.3)
    by_hand = math.log(8) - 0.7 * math.log(2) - 0.3 * (math.log(10) / 3)
    assert smooth.item() == pytest.approx(by_hand)


@given(seed=st.integers(0, 2**20), smoothing=st.sampled_from([0.0, 0.1, 0.9]))
@settings(max_examples=20, deadline=None)
def test_over_the_whole_catalog_it_is_torchs(seed: int, smoothing: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    ours = (3 * torch.randn(5, 11, generator=generator)).requires_grad_()
    theirs = ours.detach().clone().requires_grad_()
    targets = torch.randint(11, (5,), generator=generator)
    loss = cross_entropy(
        ours.gather(1, targets[:, None])[:, 0], ours.logsumexp(1), mean_score=ours.mean(1), label_smoothing=smoothing
    )
    expected = F.cross_entropy(theirs, targets, reduction="none", label_smoothing=smoothing)
    torch.testing.assert_close(loss, expected)
    loss.sum().backward()
    expected.sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad)


def test_label_smoothing_without_a_mean_is_refused_not_forgotten() -> None:
    with pytest.raises(ValueError, match="mean score"):
        cross_entropy(torch.zeros(1), torch.ones(1), label_smoothing=0.1)


def test_huge_scores_stay_finite_in_value_and_gradient() -> None:
    scores = torch.tensor([[1e4, -1e4, 9e3], [-1e4, 1e4, 0.0]], requires_grad=True)
    negatives = scores[:, 1:]
    loss = cross_entropy(scores[:, 0], log_partition(negatives, scores[:, 0], log_expected=-2.0))
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert torch.isfinite(scores.grad).all()
    assert loss[1].item() == pytest.approx(2e4 + 2.0)


def test_every_negative_may_collide() -> None:
    positive = torch.tensor([0.5, -2.0], requires_grad=True)
    negatives = torch.zeros(2, 3, requires_grad=True)
    filled = negatives.masked_fill(torch.ones(2, 3, dtype=torch.bool), -torch.inf)
    loss = cross_entropy(positive, log_partition(filled, positive, log_expected=torch.zeros(3)))
    loss.sum().backward()
    torch.testing.assert_close(loss, torch.zeros(2))
    assert torch.isfinite(positive.grad).all()
    assert torch.isfinite(negatives.grad).all()


def test_positives_may_be_single_scores_or_several_and_may_be_absent() -> None:
    negatives, several = torch.log(torch.tensor([[2.0, 3.0]])), torch.log(torch.tensor([[1.0, 4.0]]))
    one, absent = torch.log(torch.tensor([6.0])), torch.tensor([-torch.inf])
    value = log_partition(negatives, several, one, absent, log_expected=math.log(0.5))
    assert value.item() == pytest.approx(math.log((2 + 3) / 0.5 + 1 + 4 + 6))
    by_item = log_partition(negatives, one, log_expected=torch.log(torch.tensor([0.5, 3.0])))
    assert by_item.item() == pytest.approx(math.log(2 / 0.5 + 3 / 3 + 6))


def test_a_partition_is_the_plain_sum_at_any_temperature_and_so_is_its_gradient() -> None:
    generator = torch.Generator().manual_seed(1)
    scores, offset = torch.randn(4, 6, generator=generator), torch.rand(6, generator=generator)
    left_out = torch.tensor([0, 0, 2, 3, 3, 3, 3, 3, 3]), torch.tensor([1, 4, 0, 0, 1, 2, 3, 4, 5])
    warm = torch.tensor([0.5, 1.0, 2.0, 3.0])
    for temperature in (1.0, 0.3, warm):
        t = temperature[:, None] if isinstance(temperature, torch.Tensor) else temperature
        mine, plain = scores.clone().requires_grad_(), scores.clone().requires_grad_()
        positive = torch.zeros(4)
        quick = log_partition(mine, positive, log_expected=offset, temperature=temperature, left_out=left_out)
        powers = (plain / t - offset).exp() * torch.ones(4, 6).index_put(left_out, torch.tensor(0.0))
        slow = (powers.sum(1) + 1).log()
        torch.testing.assert_close(quick, slow)
        assert quick[3].item() == pytest.approx(0.0)  # nothing of the sample counts there
        weight = torch.arange(1.0, 5.0)
        (quick * weight).sum().backward()
        (slow * weight).sum().backward()
        torch.testing.assert_close(mine.grad, plain.grad)
    assert torch.equal(log_partition(scores), log_partition(scores, temperature=1.0))
    torch.testing.assert_close(log_partition(scores), scores.logsumexp(1))


@pytest.mark.parametrize("power", [0.0, 0.75])
def test_the_sampled_sum_over_the_catalog_is_unbiased(power: float) -> None:
    """Many draws of a few negatives; the mean of exp(log-partition) is the sum over the whole catalog."""
    rng = np.random.default_rng(0)
    counts = (1000 / np.arange(1, 41)).astype(np.int64)
    scores = torch.as_tensor(
        np.log(counts + 1) * 0.5 + rng.normal(size=40), dtype=torch.float64
    )  # popular ones are liked
    draws = Negatives.of(counts, TrainSettings(negatives=8, negative_power=power))
    target, estimates = 3, []
    for _ in range(6000):
        items, log_expected = draws.draw(rng)  # type: ignore[misc]
        negative = scores[torch.as_tensor(items)].clone()
        negative[torch.as_tensor(items == target)] = -torch.inf
        correction = log_expected if isinstance(log_expected, float) else torch.as_tensor(log_expected)
        estimates.append(float(log_partition(negative[None], scores[None, target], log_expected=correction).exp()))
    whole = float(scores.exp().sum())
    error = np.std(estimates) / np.sqrt(len(estimates))
    assert abs(np.mean(estimates) - whole) < 4 * error
    assert error < 0.02 * whole


def test_uniform_draws_never_repeat_and_popular_ones_follow_their_power() -> None:
    rng = np.random.default_rng(0)
    counts = np.array([0, 10, 1000, 100])
    items, log_expected = Negatives(50, 20, None).draw(rng)  # type: ignore[misc]
    assert len(np.unique(items)) == 20
    assert log_expected == pytest.approx(math.log(0.4))
    popular = Negatives.of(np.repeat(counts, 5), TrainSettings(negatives=10, negative_power=0.5))
    assert popular.probability is not None
    np.testing.assert_allclose(popular.probability[:20:5] / popular.probability[0], np.sqrt(counts + 1))
    assert Negatives.of(counts, TrainSettings(negatives=4)).draw(rng) is None
    assert Negatives.of(counts, TrainSettings(negatives="full")).draw(rng) is None
