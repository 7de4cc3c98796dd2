"""Where things are in a report."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["comparison_of", "mean_of", "model_named", "of_role"]


def of_role(report: Mapping[str, Any], role: str) -> list[dict[str, Any]]:
    """The models of one role, in the order of the report."""
    return [model for model in report["models"] if model["role"] == role]


def model_named(report: Mapping[str, Any], name: str | None) -> dict[str, Any] | None:
    return next((model for model in report["models"] if model["name"] == name), None)


def mean_of(model: Mapping[str, Any], metric: str, part: str = "test") -> float | None:
    """The mean over seeds, None where it was not measured."""
    stats = model["metrics"][part].get(metric)
    return None if stats is None else stats["mean"]


def comparison_of(report: Mapping[str, Any], a: str, b: str, metric: str) -> dict[str, Any] | None:
    return next(
        (c for c in report["comparisons"] if (c["a"], c["b"], c["metric"]) == (a, b, metric)), None,
    )
