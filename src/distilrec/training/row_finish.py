"""After training: the outputs are moved so that, on validation, the mean prediction is the mean of the data."""

from __future__ import annotations

import numpy as np

from distilrec.types_rows import Outputs

__all__ = ["calibration"]

_STEPS = 50
_RIDGE = 1e-3  # of the slope, towards 1: a handful of rows must not turn an order around
_BOUNDS = (0.2, 5.0)


def calibration(
    outputs: Outputs, predictions: np.ndarray, labels: np.ndarray, method: str, weights: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """(scale, shift), each float32 [O]: scale * logit + shift is calibrated on the rows given.

    Args:
        predictions, labels: [n, O] of the validation part; labels NaN where not observed.
        method: "none"; "shift": the mean probability equals the mean label, the order and the spread stay; "affine":
            the logistic regression of the label on the logit (Platt, "Probabilistic Outputs for Support Vector
            Machines", 1999), which also corrects too sure or too timid answers. The order of rows never changes.
        weights: [n], how much each row counts, as in training: both means are weighted ones. All alike without.
    Outputs of number heads, and outputs whose labels are all of one class, are left as they are.
    """
    scale, shift = np.ones(outputs.size), np.zeros(outputs.size)
    counts = np.ones(len(labels)) if weights is None else np.asarray(weights, dtype=np.float64)
    if method != "none":
        for head in outputs.heads:
            for column in range(*outputs.slices[head.name].indices(outputs.size)) if head.kind != "number" else ():
                known = ~np.isnan(labels[:, column]) & (counts > 0)
                y, z = labels[known, column].astype(np.float64), predictions[known, column].astype(np.float64)
                if len(y) and 0 < y.mean() < 1:  # weights on the scale of rows, which is that of the ridge
                    scale[column], shift[column] = _fit(z, y, counts[known] / counts[known].mean(), method == "affine")
    return scale.astype(np.float32), shift.astype(np.float32)


def _fit(z: np.ndarray, y: np.ndarray, counts: np.ndarray, slope: bool) -> tuple[float, float]:
    """Newton's method on the weighted log-likelihood of (slope, shift), or of the shift alone."""
    a, b = 1.0, 0.0
    for _ in range(_STEPS):
        p = 1 / (1 + np.exp(-np.clip(a * z + b, -500, 500)))
        w, error = counts * np.maximum(p * (1 - p), 1e-12), counts * (p - y)
        if not slope:
            step = float(error.sum() / w.sum())
            b -= np.clip(step, -2, 2)
            if abs(step) < 1e-9:
                break
            continue
        ridge = _RIDGE * len(z)
        gradient = np.array([(error * z).sum() + ridge * (a - 1), error.sum()])
        hessian = np.array([[(w * z * z).sum() + ridge, (w * z).sum()], [(w * z).sum(), w.sum()]])
        move = np.clip(np.linalg.solve(hessian + 1e-9 * np.eye(2), gradient), -2, 2)
        a, b = float(np.clip(a - move[0], *_BOUNDS)), float(b - move[1])
        if np.abs(move).max() < 1e-9:
            break
    return a, b
