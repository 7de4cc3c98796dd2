"""The benchmark of ratings says of each goal whether it was reached."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

FILE = Path(__file__).resolve().parents[2] / "benchmarks" / "rows" / "ratings.py"


def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("ratings", FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def document(teacher: float, student: float) -> dict[str, Any]:
    models = [{"name": name, "metrics": {"rmse": {"mean": value}}}
              for name, value in (("teacher", teacher), ("student", student))]
    span = {"interval": [student - teacher - 0.001, student - teacher + 0.001]}
    return {"models": models, "comparisons": [{"a": "student", "b": "teacher", "metric": "rmse", "of_units": span,
                                               "of_training": span, "difference": student - teacher}]}


def test_goals_that_were_reached_and_missed() -> None:
    told = script().goals
    good, close = told(document(0.912, 0.915))
    assert good == "teacher RMSE <= 0.93: 0.9120, reached"
    assert "+0.0030 (upper ends +0.0040" in close and close.endswith("reached")
    bad, far = told(document(0.94, 0.95))
    assert bad.endswith("missed") and far.endswith("missed")
