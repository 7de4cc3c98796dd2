"""Five-fold cross-validation of ratings on MovieLens 100K, kept as a committed result.

    python benchmarks/rows/ratings.py [--out runs/bench/movielens-rating] [--folds 5]

Data come from DISTILREC_DATA/ml-100k (interactions, items and users as Parquet). A run that was killed goes on where it
stopped. At the end crossval.json (unchanged) and run.json (command, date, commit, hardware, seeds) lie in
benchmarks/results/movielens-rating, and the goals are printed beside what was measured.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

from distilrec import crossval
from distilrec.cli_guard import use_threads
from distilrec.evaluation.folds import read_folds
from distilrec.files import write_json
from distilrec.recipe_yaml import load_recipe

ROOT = Path(__file__).resolve().parents[2]
NAME = "movielens-rating"
TEACHER, WITHIN = 0.93, 0.005  # the goals: RMSE of the teacher at most; of the student at most this much above it


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "bench" / NAME)
    parser.add_argument("--folds", type=int, default=5)
    options = parser.parse_args()
    use_threads(1)
    began, commit = time.strftime("%Y-%m-%d", time.gmtime()), _commit()
    recipe = load_recipe(ROOT / "recipes" / f"{NAME}.yaml", data=Path(os.environ["DISTILREC_DATA"]) / "ml-100k")
    document = crossval.cross_validate(recipe, options.out, options.folds)
    crossval.print_folds(document)
    for line in goals(document):
        print(line)
    target = ROOT / "benchmarks" / "results" / NAME
    target.mkdir(parents=True, exist_ok=True)
    shutil.copy(options.out / "crossval.json", target / "crossval.json")
    read_folds(target / "crossval.json")
    write_json(target / "run.json", {
        "command": f"distilrec cross-validate recipes/{NAME}.yaml --data $DISTILREC_DATA/ml-100k "
                   f"--folds {options.folds}",
        "date": began, "commit": commit, "hardware": _hardware(), "seeds": document["seeds"],
        "recipe": f"recipes/{NAME}.yaml", "goals": goals(document)})


def goals(document: dict[str, Any]) -> list[str]:
    """Each goal with the number beside it."""
    mean = {one["name"]: one["metrics"]["rmse"]["mean"] for one in document["models"]}
    found = next(c for c in document["comparisons"]
                 if (c["a"], c["b"], c["metric"]) == ("student", "teacher", "rmse"))
    high = {which: found[which]["interval"][1] for which in ("of_units", "of_training")}
    kept = found["difference"] <= WITHIN
    return [
        f"teacher RMSE <= {TEACHER}: {mean['teacher']:.4f}, {'reached' if mean['teacher'] <= TEACHER else 'missed'}",
        f"student - teacher <= {WITHIN}: {found['difference']:+.4f} (upper ends {high['of_units']:+.4f} for other "
        f"users, {high['of_training']:+.4f} for other training rows), {'reached' if kept else 'missed'}",
    ]


def _hardware() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    cores = len(os.sched_getaffinity(0))
    return f"{models[0] if models else platform.machine()}, {cores} shared cores, 1 thread, no GPU"


def _commit() -> str:
    return subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True,
                          check=True).stdout.strip()


if __name__ == "__main__":
    main()
