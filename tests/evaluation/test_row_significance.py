"""The bootstrap over groups of rows: equal to measuring the drawn rows again, and honest over many experiments."""

from __future__ import annotations

import numpy as np
import pytest

from distilrec.errors import DataError
from distilrec.evaluation import row_significance as rs
from distilrec.evaluation.pointwise import auc, evaluate_rows, probability, row_statistics
from distilrec.types_rows import Head

HEADS = [Head("click"), Head("rating", "number"), Head("tags", "tags", ("a", "b", "c"))]
CUTS = {"click": -0.5, "tags": 0.1}


def world(n: int = 240, groups: int = 30, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(predictions [n, 5], labels with holes, groups)."""
    rng = np.random.default_rng(seed)
    z = rng.normal(0, 1.5, (n, 5)).round(1).astype(np.float32)
    y = (rng.random((n, 5)) < probability(z)).astype(np.float32)
    y[:, 1] = z[:, 1] + rng.normal(0, 1, n)
    y[rng.random((n, 5)) < 0.1] = np.nan
    return z, y, rng.integers(0, groups, n).astype(np.int32)


@pytest.mark.parametrize("grouped", [True, False])
def test_a_draw_is_the_metric_of_the_drawn_rows(grouped: bool) -> None:
    """Each draw again, by really repeating the rows; but bins and group AUCs, which are those of all rows."""
    z, y, groups = world()
    given = groups if grouped else None
    size = 30 if grouped else 240
    samples = rs.resample(row_statistics(z, y, given, HEADS, CUTS), given, 240, resamples=8, seed=5)
    rng = np.random.default_rng(5)
    for r in range(8):
        drawn = rng.integers(0, size, size, dtype=np.int32)
        rows = np.concatenate([np.flatnonzero(groups == g) for g in drawn]) if grouped else drawn
        fresh = np.concatenate([np.full((groups == g).sum(), i) for i, g in enumerate(drawn)]) if grouped else None
        again = evaluate_rows(z[rows], y[rows], fresh, HEADS, CUTS)
        assert ("click.gauc" in again) == grouped
        for name, value in again.items():
            if not name.endswith("calibration_error"):
                assert samples[name].draws[r] == pytest.approx(value, abs=1e-9), name
    whole = evaluate_rows(z, y, given, HEADS, CUTS)
    assert {name: one.value for name, one in samples.items()} == pytest.approx(whole)
    assert samples["click.auc"].n == size and samples["click.auc"].unit == ("groups" if grouped else "rows")


def test_blocks_change_nothing_but_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    z, y, groups = world()
    statistics = row_statistics(z, y, groups, HEADS, CUTS)
    whole = rs.resample(statistics, groups, 240, resamples=50)
    monkeypatch.setattr(rs, "_CHUNK", 700)
    small = rs.resample(statistics, groups, 240, resamples=50)
    for name, one in whole.items():
        assert np.allclose(one.draws, small[name].draws, equal_nan=True), name


def test_seeds_are_averaged_inside_each_draw() -> None:
    z, y, groups = world()
    other = z + np.random.default_rng(1).normal(0, 1, z.shape).astype(np.float32)
    both = rs.row_samples(np.stack([z, other]), y, groups, HEADS, [CUTS, CUTS], resamples=40)
    each = [rs.row_samples(one[None], y, groups, HEADS, [CUTS], resamples=40) for one in (z, other)]
    for name in ("click.auc", "rating.rmse", "tags.macro_f1"):
        assert both[name].value == pytest.approx((each[0][name].value + each[1][name].value) / 2)
        assert both[name].draws == pytest.approx((each[0][name].draws + each[1][name].draws) / 2)


def test_comparison_is_paired_and_turns_around() -> None:
    z, y, groups = world()
    noise = np.random.default_rng(1).normal(0, 2, z.shape).astype(np.float32)
    a, b = (rs.row_samples(one[None], y, groups, HEADS, [CUTS]) for one in (z, z + noise))
    found, back = rs.compare_samples(a["click.auc"], b["click.auc"]), rs.compare_samples(b["click.auc"], a["click.auc"])
    assert found.difference == a["click.auc"].value - b["click.auc"].value > 0
    assert found.interval == pytest.approx((-back.interval[1], -back.interval[0])) and found.p_value == back.p_value
    assert found.interval[0] > 0 and found.p_value < 0.01 and found.n == 30
    assert found.test == "paired bootstrap over groups, 1000 resamples"
    assert rs.compare_samples(a["rating.rmse"], b["rating.rmse"]).interval[1] < 0, "less error is a negative difference"
    same = rs.compare_samples(a["click.auc"], a["click.auc"])
    assert (same.difference, same.interval, same.p_value) == (0.0, (0.0, 0.0), 1.0)
    low, high = a["click.auc"].interval()
    assert low < a["click.auc"].value < high


def test_undefined_draws_are_left_out_and_undefined_metrics_refused() -> None:
    z = np.linspace(-1, 1, 12, dtype=np.float32)[:, None]
    y = np.zeros((12, 1), np.float32)
    y[-1] = 1  # a third of the draws miss the only positive
    samples = rs.row_samples(z[None], y, None, [Head("click")])
    missing = np.isnan(samples["auc"].draws).mean()
    assert missing == pytest.approx((11 / 12) ** 12, abs=0.05)
    assert rs.compare_samples(samples["auc"], samples["auc"]).p_value == 1.0
    one_class = rs.row_samples(z[None], np.zeros((12, 1), np.float32), None, [Head("click")])
    assert one_class["auc"].interval() is None
    with pytest.raises(DataError, match="do not define"):
        rs.compare_samples(one_class["auc"], one_class["auc"])
    with pytest.raises(DataError, match="same draws"):
        rs.compare_samples(samples["auc"], rs.row_samples(z[None], y, None, [Head("click")], resamples=9)["auc"])
    with pytest.raises(DataError, match="no rows"):
        rs.resample({}, None, 0)


def test_interval_covers_the_truth_where_rows_of_a_group_are_alike() -> None:
    """Rows by themselves would promise too much: 400 rows of 40 users are not 400 observations."""
    rng = np.random.default_rng(3)
    covered = {True: 0, False: 0}
    truth = 0.0
    for run in range(200):
        taste = np.repeat(rng.normal(0, 1, 40), 10)  # how much a group likes model a over model b
        errors = rng.normal(0, 0.3, (2, 400)) + np.stack([taste, np.zeros(400)])
        users = np.repeat(np.arange(40), 10)
        for grouped in (True, False):
            groups = users if grouped else None
            a, b = (rs.row_samples(e[None, :, None].astype(np.float32), np.zeros((400, 1), np.float32), groups,
                                   [Head("x", "number")], resamples=200, seed=run)["mean_prediction"] for e in errors)
            low, high = rs.compare_samples(a, b).interval
            covered[grouped] += low <= truth <= high
    assert covered[True] / 200 > 0.89, covered
    assert covered[False] / 200 < 0.6, covered


def test_auc_interval_is_that_of_delong() -> None:
    """The spread of the resampled AUC against the formula of DeLong et al. (Biometrics 1988) for single rows."""
    rng = np.random.default_rng(0)
    z = np.r_[rng.normal(1, 1, 150), rng.normal(0, 1, 250)].astype(np.float32)
    y = np.r_[np.ones(150), np.zeros(250)].astype(np.float32)
    wins = (z[:150, None] > z[None, 150:]).astype(float)
    spread = np.sqrt(wins.mean(1).var(ddof=1) / 150 + wins.mean(0).var(ddof=1) / 250)
    sample = rs.row_samples(z[None, :, None], y[:, None], None, [Head("click")], resamples=2000)["auc"]
    assert sample.value == pytest.approx(auc(z, y))
    assert sample.draws.std() == pytest.approx(spread, rel=0.08)


def calibrated(seed: int, n: int = 1500) -> tuple[np.ndarray, np.ndarray]:
    """Logits [2, n] of two different models, both perfectly calibrated and alike in all but the rows, and labels [n].

    Either knows one of two causes: its answer is the mean of the truth over the other.
    """
    rng = np.random.default_rng(seed)
    causes = rng.integers(0, 40, (2, n))
    level = np.linspace(-3, 1, 40)
    truth = probability(level[:, None] + level)
    known = np.stack([truth.mean(axis=1)[causes[0]], truth.mean(axis=0)[causes[1]]])
    labels = (rng.random(n) < truth[causes[0], causes[1]]).astype(np.float32)
    return np.log(known / (1 - known)).astype(np.float32), labels


@pytest.mark.parametrize("grouped", [False, True])
def test_an_interval_of_the_calibration_error_holds_its_value_and_equal_models_do_not_differ(grouped: bool) -> None:
    holds = 0
    for seed in range(20):
        z, y = calibrated(seed)
        groups = np.arange(len(y)) // 5 if grouped else None
        one, other = (rs.row_samples(model[None, :, None], y[:, None], groups, [Head("click")], resamples=200)
                      ["calibration_error"] for model in z)
        for sample in (one, other):
            low, high = sample.interval()
            assert low <= sample.value <= high
            assert np.mean(sample.draws) == pytest.approx(sample.value)
        low, high = rs.compare_samples(one, other).interval
        holds += low <= 0 <= high
    assert holds >= 17


def test_only_the_calibration_error_is_moved() -> None:
    draws = np.array([0.2, np.nan, 0.4])
    assert rs.centered("click.log_loss", 0.1, draws) is draws
    assert rs.centered("click.calibration_error", 0.1, draws) == pytest.approx([0.0, np.nan, 0.2], nan_ok=True)
    nothing = np.full(3, np.nan)
    assert np.isnan(rs.centered("calibration_error", 0.1, nothing)).all()


@pytest.mark.parametrize("grouped", [True, False])
def test_a_draw_of_weighted_rows_is_the_weighted_metric_of_the_drawn_rows(grouped: bool) -> None:
    z, y, groups = world()
    w = np.random.default_rng(4).integers(0, 5, 240).astype(np.float32)
    given, size = (groups, 30) if grouped else (None, 240)
    samples = rs.row_samples(z[None], y, given, HEADS, [CUTS], resamples=4, seed=5, weights=w)
    rng = np.random.default_rng(5)
    for r in range(4):
        drawn = rng.integers(0, size, size, dtype=np.int32)
        rows = np.concatenate([np.flatnonzero(groups == g) for g in drawn]) if grouped else drawn
        again = evaluate_rows(z[rows], y[rows], None, HEADS, CUTS, weights=w[rows])
        for name, value in again.items():
            if not name.endswith("calibration_error"):
                assert samples[name].draws[r] == pytest.approx(value, abs=1e-9), name
