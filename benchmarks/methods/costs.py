"""What a step of each method costs beside a plain one, and the memory of its process.

    python benchmarks/methods/costs.py [--width 20] [--rounds 3] [--out runs/methods]

CiteULike (split of Topology Distillation), ALS teacher, K = 100; teacher and knowledge are those of run.py. Each method
trains in a process of its own with the settings of its first trial: CPU seconds of the epochs between a short and a
longer training, so that reading, set-up and validation do not count. The rounds go over all methods in turn, and a
method is divided by the plain loss of its own round. Kept in benchmarks/results/methods/costs-WIDTH.json.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from factorizations import COMMON, METHODS
from run import Bench

import distilrec as dr
from distilrec.files import write_json
from kept import ROOT, commit, hardware

EPOCHS = (2, 8)
PLAIN = "alone"


def child(options: argparse.Namespace) -> None:
    """Train one method twice and print what it took."""
    bench = Bench("citeulike", "als", options.width, options.out)
    method = METHODS[options.method]
    base, taken = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10, []
    for epochs in EPOCHS:
        given = {**COMMON, **method.of, **method.trials[0], "epochs": epochs, "evaluate_every": epochs}
        with tempfile.TemporaryDirectory() as folder:
            made = dr.distill("mf", bench.split, bench.store, control=False, dim=options.width, metric=bench.metric,
                              folder=Path(folder) / "student", **given)
        taken.append((made.model.training["cpu_seconds"], made.model.training["steps"]))
    (less, few), (more, many) = taken
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    print(json.dumps({"step_ms": 1000 * (more - less) / (many - few), "peak_mb": peak, "base_mb": base}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--width", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "methods")
    parser.add_argument("--methods", nargs="*", choices=list(METHODS), help="all by default")
    parser.add_argument("--method", choices=list(METHODS), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.method is not None:
        child(options)
        return
    began = time.strftime("%Y-%m-%d", time.gmtime())
    asked = [name for name in METHODS if name == PLAIN or name in (options.methods or METHODS)]
    found: dict[str, list[dict[str, float]]] = {name: [] for name in asked}
    for number in range(options.rounds):
        for name in asked:
            done = subprocess.run([sys.executable, __file__, "--width", str(options.width), "--out", str(options.out),
                                   "--method", name], check=True, capture_output=True, text=True,
                                  env={**os.environ, "OMP_NUM_THREADS": "1"})
            found[name].append(json.loads(done.stdout.splitlines()[-1]))
            print(number, name, found[name][-1], flush=True)
    plain = [one["step_ms"] for one in found[PLAIN]]
    rows: list[dict[str, Any]] = [{
        "method": name, "step_ms": float(np.median([one["step_ms"] for one in rounds])),
        "times_plain": float(np.median([one["step_ms"] / base for one, base in zip(rounds, plain, strict=True)])),
        "peak_mb": max(one["peak_mb"] for one in rounds),
    } for name, rounds in found.items()]
    write_json(ROOT / "benchmarks" / "results" / "methods" / f"costs-{options.width}.json", {
        "costs": rows, "base_mb": max(one["base_mb"] for rounds in found.values() for one in rounds), "top_k": 100,
        "width": options.width,
        "command": f"python benchmarks/methods/costs.py --width {options.width}", "date": began, "commit": commit(),
        "hardware": hardware(), "seeds": [0]})


if __name__ == "__main__":
    main()
