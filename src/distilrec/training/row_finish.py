"""After training: the outputs are moved so that, on validation, the mean prediction is the mean of the data."""

from __future__ import annotations

import numpy as np

from distilrec.types_rows import Outputs

__all__ = ["calibration"]

_STEPS = 50
_RIDGE = 1e-3  # of the slope, towards 1: a handful of rows must not turn an order around
_BOUNDS = (0.2, 5.0)


def calibration(
    outputs: Outputs, predictions: np.ndarray, labels: np.ndarray, method: str
) -> tuple[np.ndarray, np.ndarray]:
    """(scale, shift), each float32 [O]: scale * logit + shift is calibrated on the rows given.

    Args:
        predictions, labels: [n, O] of the validation part; labels NaN where not observed.
        method: "none"; "shift": the mean probability equals the mean label, the order and the spread stay; "affine":
            the logistic regression of the label on the logit (Platt, "Probabilistic Outputs for Support Vector
            Machines", 1999), which also corrects too sure or too timid answers. The order of rows never changes.
    Outputs of number heads, and outputs whose labels are all of one class, are left as they are.
    """
    scale, shift = np.ones(outputs.size), np.zeros(outputs.size)
    if method != "none":
        for head in outputs.heads:
            for column in range(*outputs.slices[head.name].indices(outputs.size)) if head.kind != "number" else ():
                known = ~np.isnan(labels[:, column])
                y, z = labels[known, column].astype(np.float64), predictions[known, column].astype(np.float64)
                if len(y) and 0 < y.mean() < 1:
                    scale[column], shift[column] = _fit(z, y, method == "affine")
    return scale.astype(np.float32), shift.astype(np.float32)


def _fit(z: np.ndarray, y: np.ndarray, slope: bool) -> tuple[float, float]:
    """Newton's method on the log-likelihood of (slope, shift), or of the shift alone."""
    a, b = 1.0, 0.0
    for _ in range(_STEPS):
        p = 1 / (1 + np.exp(-np.clip(a * z + b, -500, 500)))
        w = np.maximum(p * (1 - p), 1e-12)
        if not slope:
            step = float((p - y).sum() / w.sum())
            b -= np.clip(step, -2, 2)
            if abs(step) < 1e-9:
                break
            continue
        ridge = _RIDGE * len(z)
        gradient = np.array([((p - y) * z).sum() + ridge * (a - 1), (p - y).sum()])
        hessian = np.array([[(w * z * z).sum() + ridge, (w * z).sum()], [(w * z).sum(), w.sum()]])
        move = np.clip(np.linalg.solve(hessian + 1e-9 * np.eye(2), gradient), -2, 2)
        a, b = float(np.clip(a - move[0], *_BOUNDS)), float(b - move[1])
        if np.abs(move).max() < 1e-9:
            break
    return a, b
