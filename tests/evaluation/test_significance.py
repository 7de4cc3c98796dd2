"""The bootstrap: exact on tiny cases, honest over repeated experiments."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from distilrec.errors import DataError
from distilrec.evaluation import significance
from distilrec.evaluation.significance import compare


def test_exact_distribution_of_three_users() -> None:
    """All 27 equally likely samples of three differences, against the resampled shares."""
    differences = np.array([0.0, 1.0, -0.25])
    exact = np.array([np.mean(pick) for pick in itertools.product(differences, repeat=3)])
    means = significance._resampled_means(differences, 200_000, np.random.default_rng(0))
    for value in np.unique(exact.round(9)):
        share = np.isclose(exact, value).mean()
        assert np.isclose(means, value).mean() == pytest.approx(share, abs=0.004)
    result = compare(differences, np.zeros(3), resamples=50_000)
    # only the 2^3 samples without the 1 have a mean of at most 0
    assert (exact <= 0).sum() == 8
    assert result.p_value == pytest.approx(16 / 27, abs=0.02)
    assert result.interval == (pytest.approx(-0.25), pytest.approx(1.0))


def test_constant_difference() -> None:
    b = np.linspace(0, 1, 50)
    result = compare(b + 0.1, b, resamples=999)
    assert result.difference == pytest.approx(0.1)
    assert result.interval == pytest.approx((0.1, 0.1))
    assert result.p_value == pytest.approx(2 / 1000)
    assert result.relative == pytest.approx(0.2)
    assert result.relative_interval == pytest.approx((0.2, 0.2))
    assert result.n == 50 and "999" in result.test


def test_equal_models_and_few_users() -> None:
    same = compare(np.ones(4), np.ones(4))
    assert (same.difference, same.interval, same.p_value) == (0.0, (0.0, 0.0), 1.0)
    assert compare(np.ones(1), np.zeros(1)).p_value == 1.0, "one user proves nothing"
    assert compare(np.ones(3), np.zeros(3)).p_value == 0.25, "three users agree by chance once in four times"
    assert compare(np.ones(3), np.zeros(3)).relative is None


def test_seeds_are_averaged_and_missing_users_left_out() -> None:
    a = np.array([[1.0, 0.0, np.nan], [0.0, 0.0, np.nan]])
    b = np.array([0.0, 0.25, np.nan])
    result = compare(a, b)
    assert (result.mean_a, result.mean_b, result.n) == (0.25, 0.125, 2)
    with pytest.raises(DataError, match="one model only"):
        compare(a, np.array([0.0, np.nan, np.nan]))
    with pytest.raises(DataError, match="2 users against 3"):
        compare(np.zeros(2), np.zeros(3))
    with pytest.raises(DataError, match="no user"):
        compare(np.array([np.nan]), np.array([np.nan]))


def test_deterministic_by_seed_and_symmetric() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.random(300), rng.random(300)
    assert compare(a, b, seed=4) == compare(a, b, seed=4)
    assert compare(a, b, seed=4).interval != compare(a, b, seed=5).interval
    forward, back = compare(a, b), compare(b, a)
    assert forward.difference == -back.difference
    assert forward.interval == pytest.approx((-back.interval[1], -back.interval[0]))
    assert forward.p_value == back.p_value


def test_chunks_change_nothing_but_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """Mean and spread of the resampled means are the same whether drawn at once or one resample at a time."""
    values = np.random.default_rng(0).normal(0.3, 1.0, 40)
    values[:20] = 0.0
    whole = significance._resampled_means(values, 20_000, np.random.default_rng(0))
    monkeypatch.setattr(significance, "_CHUNK", 100)
    small = significance._resampled_means(values, 20_000, np.random.default_rng(0))
    for means in (whole, small):
        assert means.mean() == pytest.approx(values.mean(), abs=4 * values.std() / np.sqrt(40 * 20_000))
        assert means.std() == pytest.approx(values.std() / np.sqrt(40), rel=0.03)


def _experiments(effect: float, runs: int, users: int) -> list[significance.Comparison]:
    """Sparse hits like those of real recommenders: most users hit under neither model."""
    rng = np.random.default_rng(7)
    results = []
    for run in range(runs):
        shared = rng.random(users) < 0.1
        a = np.where(shared, rng.random(users), 0.0) + effect
        b = np.where(shared, rng.random(users), 0.0)
        results.append(compare(a, b, resamples=1000, seed=run))
    return results


def test_interval_covers_the_truth_and_p_is_uniform_under_the_null() -> None:
    results = _experiments(0.0, runs=800, users=500)
    covered = np.mean([r.interval[0] <= 0.0 <= r.interval[1] for r in results])
    assert 0.92 < covered < 0.975, covered  # 0.95 with standard error 0.008, and a little short by nature
    p = np.sort([r.p_value for r in results])
    distance = np.abs(p - (np.arange(800) + 0.5) / 800).max()
    assert distance < 1.63 / np.sqrt(800), "Kolmogorov-Smirnov distance from uniform at 1 %"


def test_a_real_effect_is_found() -> None:
    results = _experiments(0.03, runs=60, users=500)
    assert np.mean([r.p_value < 0.05 for r in results]) > 0.9
    assert np.mean([r.interval[0] <= 0.03 <= r.interval[1] for r in results]) > 0.85
