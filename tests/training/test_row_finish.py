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
