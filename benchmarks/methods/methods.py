"""What a row of the tables is: a method with its eight trials. The rows are in factorizations.py and sequences.py."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product
from typing import Any

__all__ = ["HARD", "Method", "beside", "mixed", "weighted"]

HARD = "cross_entropy"


@dataclass(frozen=True)
class Method:
    """One row of the table: what it is, and what each trial sets beyond `COMMON`."""

    meaning: str
    trials: list[dict[str, Any]]
    # "given": the teacher of the set; "equal", "agreement": all its teachers, so weighed; "self": the best student
    # alone; "none"
    teacher: str = "given"
    of: dict[str, Any] = field(default_factory=dict)  # of every trial
    whole: bool = False  # trials as long as what is tested: those whom all are compared with must not be cut short


def mixed(loss: str, weights: tuple[float, ...] = (0.5, 1.0), temperatures: tuple[float, ...] = (0.3, 0.6),
          decays: tuple[float, ...] = (0.05, 0.2), **more: Any) -> list[dict[str, Any]]:
    """Weight of the soft term x temperature x weight decay."""
    return [{"losses": _share(loss, w), "temperature": t, "weight_decay": d, **more}
            for w, t, d in product(weights, temperatures, decays)]


def weighted(loss: str, weights: tuple[float, ...] = (0.3, 0.6, 0.9, 1.0), **more: Any) -> list[dict[str, Any]]:
    """Weight of a soft term without temperature x weight decay."""
    return [{"losses": _share(loss, w), "weight_decay": d, **more} for w, d in product(weights, (0.05, 0.2))]


def beside(loss: str, weights: tuple[float, ...], decays: tuple[float, ...], **more: Any) -> list[dict[str, Any]]:
    """A term of another scale on top of the plain loss x weight decay."""
    return [{"losses": {HARD: 1.0, loss: w}, "weight_decay": d, **more} for w, d in product(weights, decays)]


def _share(loss: str, weight: float) -> dict[str, float]:
    return {loss: 1.0} if weight == 1.0 else {HARD: round(1 - weight, 6), loss: weight}
