"""Calibration: the mean prediction becomes the mean of the data, and no row changes places."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from distilrec.training.row_finish import calibration
from distilrec.types_rows import Head, Outputs

pytestmark = pytest.mark.req("A5")

OUTPUTS = Outputs((Head("click"), Head("stars", "number")))


def biased(n: int = 4000, slope: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Logits that are too high by one, and too sure by `slope`."""
    rng = np.random.default_rng(0)
    truth = rng.normal(-1, 1.2, n)
    labels = (rng.random(n) < 1 / (1 + np.exp(-truth))).astype(np.float32)
    return np.stack([slope * truth + 1, truth], 1).astype(np.float32), np.stack([labels, truth], 1).astype(np.float32)


def test_shift_matches_the_mean_and_leaves_the_spread() -> None:
    predictions, labels = biased()
    scale, shift = calibration(OUTPUTS, predictions, labels, "shift")
    assert scale.tolist() == [1, 1]
    assert shift[1] == 0
    assert (1 / (1 + np.exp(-(predictions[:, 0] + shift[0])))).mean() == pytest.approx(labels[:, 0].mean(), abs=1e-6)
    assert shift[0] == pytest.approx(-1, abs=0.1)


def test_affine_is_the_logistic_regression_of_the_label_on_the_logit() -> None:
    predictions, labels = biased(slope=2.0)
    scale, shift = calibration(OUTPUTS, predictions, labels, "affine")
    fitted = LogisticRegression(C=np.inf, tol=1e-8).fit(predictions[:, :1], labels[:, 0])
    assert scale[0] == pytest.approx(fitted.coef_[0, 0], abs=5e-3)
    assert shift[0] == pytest.approx(fitted.intercept_[0], abs=1e-2)
    assert scale[1] == 1


def test_an_order_that_was_wrong_is_not_turned_around() -> None:
    predictions, labels = biased()
    scale, _ = calibration(OUTPUTS, -predictions, labels, "affine")
    assert scale[0] > 0


@pytest.mark.parametrize("value", [0.0, 1.0, np.nan])
def test_labels_of_one_class_or_none_change_nothing(value: float) -> None:
    predictions, labels = biased(50)
    labels[:, 0] = value
    scale, shift = calibration(OUTPUTS, predictions, labels, "affine")
    assert (scale[0], shift[0]) == (1, 0)


def test_none_changes_nothing_and_huge_logits_are_survived() -> None:
    predictions, labels = biased(200)
    assert calibration(OUTPUTS, predictions, labels, "none")[1].tolist() == [0, 0]
    scale, shift = calibration(OUTPUTS, predictions * 1e4, labels, "affine")
    assert np.isfinite([*scale, *shift]).all()


def test_rows_of_a_sample_are_calibrated_to_the_whole_that_they_stand_for() -> None:
    """Every positive and one in nine negatives kept: with weights of one over the chance, the rate is that of all."""
    predictions, labels = biased(20_000)
    kept = (labels[:, 0] == 1) | (np.random.default_rng(1).random(len(labels)) < 1 / 9)
    predictions, labels = predictions[kept], labels[kept]
    weights = np.where(labels[:, 0] == 1, 1.0, 9.0).astype(np.float32)
    _, shift = calibration(OUTPUTS, predictions, labels, "shift", weights)
    p = 1 / (1 + np.exp(-(predictions[:, 0] + shift[0])))
    rate = np.average(labels[:, 0], weights=weights)
    assert labels[:, 0].mean() > 0.7 and rate < 0.35
    assert np.average(p, weights=weights) == pytest.approx(rate, abs=1e-6)
    assert shift[0] == pytest.approx(-1, abs=0.1)  # the truth, which the sample alone would hide


def test_weights_are_those_of_logistic_regression_and_0_leaves_a_row_out() -> None:
    predictions, labels = biased(slope=2.0)
    weights = np.random.default_rng(2).integers(0, 4, len(labels)).astype(np.float32)
    scale, shift = calibration(OUTPUTS, predictions, labels, "affine", weights)
    fitted = LogisticRegression(C=np.inf, tol=1e-8).fit(predictions[:, :1], labels[:, 0], sample_weight=weights)
    assert (scale[0], shift[0]) == pytest.approx((fitted.coef_[0, 0], fitted.intercept_[0]), abs=1e-2)
    some = weights > 0
    assert calibration(OUTPUTS, predictions[some], labels[some], "affine", weights[some])[1] == pytest.approx(shift)
    alike = calibration(OUTPUTS, predictions, labels, "affine", np.full(len(labels), 5.0))
    assert np.allclose(alike, calibration(OUTPUTS, predictions, labels, "affine"), atol=1e-6)
