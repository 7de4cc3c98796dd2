"""Pointwise metrics against scikit-learn, against hand-worked cases, and at their edges."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk

from distilrec.errors import DataError
from distilrec.evaluation import pointwise as pw
from distilrec.evaluation.row_terms import threshold_terms
from distilrec.types_rows import Head

CLICK, RATING = Head("click"), Head("rating", "number")
TAGS = Head("tags", "tags", ("new", "cheap", "red", "big"))


def binary_world(n: int = 500, seed: int = 0, decimals: int = 1) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(logits with many ties, labels, groups of unlike sizes)."""
    rng = np.random.default_rng(seed)
    z = rng.normal(-1, 1.5, n).round(decimals).astype(np.float32)
    return z, (rng.random(n) < pw.probability(z)).astype(np.float32), rng.geometric(0.02, n).astype(np.int32)


def test_binary_metrics_against_scikit_learn() -> None:
    z, y, _ = binary_world()
    p = pw.probability(z)
    assert pw.auc(z, y) == pytest.approx(sk.roc_auc_score(y, z), abs=1e-12)
    assert pw.log_loss(z, y) == pytest.approx(sk.log_loss(y, p), abs=1e-7)
    rate = float(y.mean())
    entropy = -(rate * math.log(rate) + (1 - rate) * math.log(1 - rate))
    assert pw.normalized_entropy(z, y) == pytest.approx(sk.log_loss(y, p) / entropy, abs=1e-6)
    for cut in (-1.0, 0.0, 1.25):
        own = {name: float(one.of()) for name, one in threshold_terms(z, y, cut).items()}
        said = z >= cut
        assert own == pytest.approx({
            "accuracy": sk.accuracy_score(y, said), "precision": sk.precision_score(y, said),
            "recall": sk.recall_score(y, said), "f1": sk.f1_score(y, said)})


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans(), st.integers(0, 4)), min_size=2, max_size=40))
def test_weighted_auc_is_that_of_repeated_rows(rows: list[tuple[int, bool, int]]) -> None:
    z, y, w = (np.array(column, dtype=np.float32) for column in zip(*rows, strict=True))
    own = pw.auc(z, y, w)
    again = np.repeat(y, w.astype(int))
    if len(set(again.tolist())) < 2:
        assert math.isnan(own)
    else:
        assert own == pytest.approx(sk.roc_auc_score(again, np.repeat(z, w.astype(int))), abs=1e-12)
        assert pw.auc(-z, y, w) == pytest.approx(1 - own, abs=1e-12), "turned around, wins become losses"


def test_group_auc_against_one_group_at_a_time() -> None:
    z, y, groups = binary_world()
    parts = [(groups == g) for g in np.unique(groups) if 0 < y[groups == g].mean() < 1]
    assert 5 < len(parts) < len(np.unique(groups)), "some groups have one class only"
    each, rows = [sk.roc_auc_score(y[part], z[part]) for part in parts], [part.sum() for part in parts]
    assert pw.gauc(z, y, groups) == pytest.approx(np.average(each, weights=rows), abs=1e-12)
    assert pw.uauc(z, y, groups) == pytest.approx(np.mean(each), abs=1e-12)


def test_group_auc_by_hand() -> None:
    z = np.array([3.0, 2, 1, 1, 1, 5, 4], dtype=np.float32)
    y = np.array([1.0, 0, 1, 1, 0, 1, 1], dtype=np.float32)
    groups = np.array([7, 7, 7, 2, 2, 9, 9])
    # group 7: one of two positives is above the negative, .5; group 2: a tie, .5; group 9: one class
    assert pw.gauc(z, y, groups) == 0.5
    z[2] = 2.5
    assert pw.gauc(z, y, groups) == pytest.approx((3 * 1.0 + 2 * 0.5) / 5)
    assert pw.uauc(z, y, groups) == pytest.approx(0.75)


def test_extreme_logits_have_finite_loss() -> None:
    z, y = np.array([1000.0, -1000.0, 1000.0], dtype=np.float32), np.array([1.0, 0.0, 0.0], dtype=np.float32)
    assert pw.log_loss(z, y) == pytest.approx(1000 / 3)


def test_calibration_by_hand() -> None:
    p = np.repeat([0.1, 0.5, 0.9], 50)
    y = np.concatenate([np.arange(50) < 10, np.arange(50) < 25, np.arange(50) < 40]).astype(np.float32)
    z = np.log(p / (1 - p))
    # gaps .1, 0 and .1; rows that are predicted alike share a bin
    assert pw.calibration_error(z, y) == pytest.approx(0.2 / 3)
    curve = pw.calibration_curve(p, y)
    assert [(round(c["prediction"], 6), c["label"], c["rows"]) for c in curve] == [
        (0.1, pytest.approx(0.2), 50), (0.5, 0.5, 50), (0.9, pytest.approx(0.8), 50)]
    assert pw.calibration_error(np.zeros(8), np.arange(8) % 2) == 0.0
    uneven = np.sort(np.random.default_rng(0).random(1500))
    assert [c["rows"] for c in pw.calibration_curve(uneven, uneven)] == [100] * 15


def test_numbers_against_scikit_learn() -> None:
    rng = np.random.default_rng(1)
    z, y = rng.normal(3, 1, 100).astype(np.float32), rng.normal(3, 1, 100).astype(np.float32)
    assert pw.rmse(z, y) == pytest.approx(sk.root_mean_squared_error(y, z), rel=1e-6)
    assert pw.mae(z, y) == pytest.approx(sk.mean_absolute_error(y, z), rel=1e-6)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(-4, 4), st.booleans()), min_size=1, max_size=30))
def test_threshold_has_the_best_f1_there_is(rows: list[tuple[int, bool]]) -> None:
    z, y = (np.array(column, dtype=np.float32) for column in zip(*rows, strict=True))
    cut = pw.choose_threshold(z, y)
    if not y.any():
        assert cut == 0.0
        return
    best = max(sk.f1_score(y, z >= other) for other in z)
    assert sk.f1_score(y, z >= cut) == pytest.approx(best)


def tag_world(n: int = 300, seed: int = 2) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    z = rng.normal(-1, 1.5, (n, 4)).round(2).astype(np.float32)
    return z, (rng.random((n, 4)) < pw.probability(z)).astype(np.float32)


def test_tags_against_scikit_learn_and_a_plain_loop() -> None:
    z, y = tag_world()
    cuts = np.array([-0.5, 0.0, 0.2, 1.0])
    own, said = pw.evaluate_rows(z, y, None, [TAGS], {"tags": cuts}), z >= cuts
    for kind in ("micro", "macro"):
        truth = sk.precision_recall_fscore_support(y, said, average=kind)[:3]
        assert [own[f"{kind}_{name}"] for name in ("precision", "recall", "f1")] == pytest.approx(truth)
    assert own["log_loss"] == pytest.approx(sk.log_loss(y.ravel(), pw.probability(z).ravel()), abs=1e-6)
    assert own["calibration_error"] == pytest.approx(pw.calibration_error(z.ravel(), y.ravel()))
    for k in (1, 3):
        tops = [set(sorted(range(4), key=lambda c, row=row: (-row[c], c))[:k]) for row in z]
        found = [len(top & set(np.flatnonzero(row))) for top, row in zip(tops, y, strict=True) if row.any()]
        assert own[f"hit@{k}"] == pytest.approx(np.mean([f > 0 for f in found]))
        assert own[f"precision@{k}"] == pytest.approx(np.mean(found) / k)
    assert "hit@5" not in own, "five of four classes"
    assert own["hit@1"] < own["hit@3"]


def test_classes_and_their_thresholds() -> None:
    z, y = tag_world()
    y[:, 3] = 0
    chosen = pw.choose_thresholds(z, y, [TAGS])["tags"]
    assert chosen[:3] == pytest.approx([pw.choose_threshold(z[:, c], y[:, c]) for c in range(3)])
    assert chosen[3] == pw.choose_threshold(z.ravel(), y.ravel()), "nothing to choose by alone"
    assert set(pw.choose_thresholds(z, y, [TAGS], by_class=False)["tags"]) == {chosen[3]}
    table = pw.evaluate_classes(z, y, [TAGS], {"tags": chosen})
    assert list(table) == ["tags: new", "tags: cheap", "tags: red", "tags: big"]
    assert table["tags: red"]["f1"] == pytest.approx(sk.f1_score(y[:, 2], z[:, 2] >= chosen[2]))
    assert table["tags: red"]["auc"] == pytest.approx(sk.roc_auc_score(y[:, 2], z[:, 2]))
    assert math.isnan(table["tags: big"]["auc"])
    macro = pw.evaluate_rows(z, y, None, [TAGS], {"tags": chosen})["macro_f1"]
    assert macro == pytest.approx(np.mean([table[f"tags: {c}"]["f1"] for c in ("new", "cheap", "red")]))


def test_unobserved_cells_change_nothing() -> None:
    """Every metric is the one of the rows that were observed, head by head."""
    z, y, groups = binary_world(200)
    tags_z, tags_y = tag_world(200)
    heads = [CLICK, RATING, TAGS]
    labels = np.concatenate([y[:, None], z[:, None] + 0.5, tags_y], 1)
    predictions = np.concatenate([z[:, None], z[:, None], tags_z], 1)
    cuts = pw.choose_thresholds(predictions, labels, heads)
    whole = pw.evaluate_rows(predictions, labels, groups, heads, cuts)
    junk = np.random.default_rng(0).normal(size=(60, 6)).astype(np.float32)
    more = pw.evaluate_rows(np.r_[predictions, junk], np.r_[labels, np.full((60, 6), np.nan, np.float32)],
                            np.r_[groups, groups[:60]], heads, cuts)
    assert more == pytest.approx(whole, nan_ok=False)
    assert {"click.auc", "click.gauc", "rating.rmse", "tags.micro_f1", "tags.hit@1"} <= set(whole)
    assert whole["rating.rmse"] == pytest.approx(0.5, abs=1e-6) and "rating.auc" not in whole
    alone = pw.evaluate_rows(z[:, None], y[:, None], groups, [CLICK], cuts)
    assert {f"click.{name}": value for name, value in alone.items()} == {
        name: value for name, value in whole.items() if name.startswith("click.")}


def test_one_class_only_is_nan_and_no_error() -> None:
    z, groups = np.linspace(-2, 2, 10, dtype=np.float32)[:, None], np.zeros(10, np.int32)
    for label in (0.0, 1.0):
        found = pw.evaluate_rows(z, np.full((10, 1), label, np.float32), groups, [CLICK], {"click": 0.0})
        undefined = {name for name, value in found.items() if math.isnan(value)}
        assert {"auc", "gauc", "uauc", "normalized_entropy"} <= undefined
        assert not {"log_loss", "calibration_error", "mean_prediction", "accuracy"} & undefined
    nothing = pw.evaluate_rows(z, np.full((10, 1), np.nan, np.float32), groups, [CLICK], {"click": 0.0})
    assert all(math.isnan(value) for value in nothing.values())


def test_what_no_metric_can_read_is_refused() -> None:
    z, y, groups = (one[:5] for one in binary_world())
    with pytest.raises(DataError, match="one row each"):
        pw.evaluate_rows(z[:4, None], y[:, None], groups, [CLICK])
    bad = z[:, None].copy()
    bad[3] = np.nan
    with pytest.raises(DataError, match="nan in row 3, output 0"):
        pw.evaluate_rows(bad, y[:, None], groups, [CLICK])
    with pytest.raises(DataError, match="label 2.0 of head 'click'"):
        pw.evaluate_rows(z[:, None], np.full((5, 1), 2.0, np.float32), groups, [CLICK])


def test_directions_are_stated_for_every_metric() -> None:
    z, y, groups = binary_world()
    tags_z, tags_y = tag_world(500)
    found = pw.evaluate_rows(np.c_[z, z, tags_z], np.c_[y, y, tags_y], groups, [CLICK, RATING, TAGS],
                             {"click": 0.0, "tags": 0.0})
    names = {pw.base_name(name) for name in found}
    assert names >= pw.LOWER | pw.NEUTRAL | set(pw.CHANCE)
    higher = names - pw.LOWER - pw.NEUTRAL
    assert higher == {"auc", "gauc", "uauc", "accuracy", "precision", "recall", "f1", "hit", "micro_precision",
                      "micro_recall", "micro_f1", "macro_precision", "macro_recall", "macro_f1"}


def weighted_world(n: int = 600) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(predictions [n, 5], labels with holes, weights of 0 to 9)."""
    rng = np.random.default_rng(8)
    z = rng.normal(-0.5, 1.5, (n, 6)).round(1).astype(np.float32)
    y = (rng.random((n, 6)) < pw.probability(z)).astype(np.float32)
    y[:, 1] = z[:, 1] + rng.normal(size=n)
    y[rng.random((n, 6)) < 0.05] = np.nan
    return z, y, rng.integers(0, 10, n).astype(np.float32)


def test_weights_against_sample_weights_of_scikit_learn() -> None:
    z, y, w = weighted_world()
    found = pw.evaluate_rows(z, y, None, [CLICK, RATING, TAGS], {"click": -0.5, "tags": 0.1}, weights=w)
    on = ~np.isnan(y)
    a, b = on[:, 0], on[:, 1]
    p = pw.probability(z[a, 0])
    said, mine = z[a, 0] >= -0.5, {"sample_weight": w[a]}
    truth = y[a, 0]
    rate = np.average(truth, weights=w[a])
    loss = sk.log_loss(truth, p, **mine)
    assert found["click.log_loss"] == pytest.approx(loss, abs=1e-7)
    assert found["click.normalized_entropy"] == pytest.approx(
        loss / -(rate * math.log(rate) + (1 - rate) * math.log(1 - rate)), abs=1e-6)
    assert found["click.auc"] == pytest.approx(sk.roc_auc_score(truth, z[a, 0], **mine), abs=1e-12)
    assert found["click.f1"] == pytest.approx(sk.f1_score(truth, said, **mine))
    assert found["click.accuracy"] == pytest.approx(sk.accuracy_score(truth, said, **mine))
    assert found["click.mean_prediction"] == pytest.approx(np.average(p, weights=w[a]))
    assert found["click.calibration_ratio"] == pytest.approx(np.average(p, weights=w[a]) / rate)
    stars = {"sample_weight": w[b]}
    assert found["rating.rmse"] == pytest.approx(sk.root_mean_squared_error(y[b, 1], z[b, 1], **stars))
    assert found["rating.mae"] == pytest.approx(sk.mean_absolute_error(y[b, 1], z[b, 1], **stars))
    cells, wide = on[:, 2:].ravel(), w.repeat(4)
    tags = {"sample_weight": wide[cells]}
    assert found["tags.log_loss"] == pytest.approx(
        sk.log_loss(y[:, 2:].ravel()[cells], pw.probability(z[:, 2:].ravel()[cells]), **tags), abs=1e-7)
    assert found["tags.micro_f1"] == pytest.approx(
        sk.f1_score(y[:, 2:].ravel()[cells], z[:, 2:].ravel()[cells] >= 0.1, **tags))
    alone = pw.evaluate_classes(z, y, [CLICK, RATING, TAGS], weights=w)["tags: cheap"]
    c = on[:, 3]
    assert alone["tags.auc"] == pytest.approx(sk.roc_auc_score(y[c, 3], z[c, 3], sample_weight=w[c]), abs=1e-12)


def test_whole_weights_are_rows_that_are_there_so_often() -> None:
    """All but the bins of equal numbers of rows, and the orders inside groups, which take rows as they are."""
    z, y, w = weighted_world()
    groups, rows = np.arange(len(w)) % 40, np.repeat(np.arange(len(w)), w.astype(int))
    heads, cuts = [CLICK, RATING, TAGS], {"click": -0.5, "tags": 0.1}
    found = pw.evaluate_rows(z, y, groups, heads, cuts, weights=w)
    repeated = pw.evaluate_rows(z[rows], y[rows], groups[rows], heads, cuts)
    plain = pw.evaluate_rows(z, y, groups, heads, cuts)
    for name, value in found.items():
        if pw.base_name(name) != "calibration_error":
            same = plain if pw.base_name(name) in pw.UNWEIGHTED else repeated
            assert value == pytest.approx(same[name], abs=1e-9), name
    for by_class in (True, False):
        chosen = pw.choose_thresholds(z, y, heads, by_class=by_class, weights=w)
        again = pw.choose_thresholds(z[rows], y[rows], heads, by_class=by_class)
        assert chosen["click"] == pytest.approx(again["click"]) and chosen["tags"] == pytest.approx(again["tags"])
    alike = pw.evaluate_rows(z, y, groups, heads, cuts, weights=np.full(len(w), 3.0))
    assert alike == pytest.approx(plain)


def test_a_sample_of_negatives_is_calibrated_by_weight() -> None:
    """A model that is right about the whole: without weights it looks wrong by half, with them it is right."""
    rng = np.random.default_rng(3)
    z = rng.normal(-2.5, 1, 60_000).astype(np.float32)
    y = (rng.random(len(z)) < pw.probability(z)).astype(np.float32)
    kept = (y == 1) | (rng.random(len(z)) < 1 / 9)
    z, y = z[kept, None], y[kept, None]
    w = np.where(y[:, 0] == 1, 1, 9).astype(np.float32)
    plain, found = (pw.evaluate_rows(z, y, None, [CLICK], weights=one) for one in (None, w))
    assert plain["calibration_ratio"] < 0.5 and plain["calibration_error"] > 0.3
    assert found["calibration_ratio"] == pytest.approx(1, abs=0.05) and found["calibration_error"] < 0.01
    curve = pw.calibration_curve(pw.probability(z), y, weights=w[:, None])
    assert all(one["label"] == pytest.approx(one["prediction"], abs=0.04) for one in curve)
    assert sum(one["rows"] for one in curve) == len(y)
