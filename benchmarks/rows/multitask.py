"""One small model of four tasks beside a model for each task alone, on the simulated shop.

    python benchmarks/rows/multitask.py [--out runs/bench/shop-multitask] [--seeds 0 1 2]

Runs recipes/shop-multitask.yaml, whose control.single_task trains the student's architecture once for each head. A run
that was killed goes on where it stopped. Leaves benchmarks/results/shop-multitask/{report,run}.json.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from distilrec import pipeline
from distilrec.cli_guard import use_threads
from distilrec.files import read_json
from distilrec.recipe_yaml import load_recipe
from kept import ROOT, keep

NAME = "shop-multitask"
RECIPE = ROOT / "recipes" / f"{NAME}.yaml"
TASKS = ("click.auc", "purchase.auc", "rating.rmse", "dwell.rmse")
LEAST = -0.002  # the goal: the lower end of student - single-task control, in AUC


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "bench" / NAME)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    use_threads(1)
    pipeline.run(load_recipe(RECIPE, overrides=[f"seeds={options.seeds}"]), options.out)
    report = read_json(options.out / "report.json")
    goals = goals_of(report)
    print("\n".join(goals))
    keep(NAME, f"distilrec run recipes/{NAME}.yaml --set 'seeds={options.seeds}'", options.seeds,
         {"report.json": report}, recipe=f"recipes/{NAME}.yaml", goals=goals)


def goals_of(report: dict[str, Any]) -> list[str]:
    """Each task's goal with the number beside it, then what else a reader asks: the other controls and the teacher."""
    lines = []
    for b in ("single-task", "control", "teacher"):
        for metric in TASKS:
            found = next(c for c in report["comparisons"]
                         if (c["a"], c["b"], c["metric"]) == ("student", b, metric))
            low, high = found["interval"]
            line = f"student - {b}, {metric}: {found['difference']:+.4f} ({low:+.4f} to {high:+.4f})"
            if metric.endswith("rmse"):
                part = [100 * one for one in found["relative_interval"]]
                line += f" = {100 * found['relative']:+.2f} % ({part[0]:+.2f} to {part[1]:+.2f} %), less is better"
            elif b == "single-task":
                line += f", goal: lower end above {LEAST}: {'met' if low > LEAST else 'missed'}"
            lines.append(line)
    return lines


if __name__ == "__main__":
    main()
