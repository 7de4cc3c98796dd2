"""Teacher and student together: fused, and as a cascade of several depths, with quality against milliseconds.

    python benchmarks/methods/fusions.py [scientific] [--width 16] [--out runs/methods]

The student is that of the row "kl" of run.py, all three seeds, served from its bundle; the weights of the learned
fusion are chosen on validation. Kept in benchmarks/results/methods/fusions-SET-WIDTH.json.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from run import LONGER, SEEDS, SETS, Bench

import distilrec as dr
from distilrec.files import write_json
from kept import ROOT, commit, hardware

DEPTHS = (10, 20, 50, 100, 200)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", choices=list(SETS), nargs="?", default="scientific")
    parser.add_argument("--width", type=int, default=16)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "methods")
    options = parser.parse_args()
    began, began_at = time.strftime("%Y-%m-%d", time.gmtime()), commit()
    teacher = next(iter(SETS[options.set]["teachers"]))
    bench = Bench(options.set, teacher, options.width, options.out)
    trial = bench.choose("kl")["trial"]
    found: dict[str, dict[str, list[float]]] = {}
    for seed in SEEDS:
        trained = bench.train("kl", trial, seed, LONGER)
        with tempfile.TemporaryDirectory() as folder:
            report = dr.evaluate(
                bench.split, teacher=bench.teacher, student=dr.export(trained, Path(folder) / "bundle", bench.split),
                fusion=["weighted", "rrf", "learned"], cascade=DEPTHS, baselines=[], metric=bench.metric, k=[bench.k])
        print(report, flush=True)
        for model in report["models"]:
            entry = found.setdefault(model["name"], {"test": [], "cpu_ms": [], "ms": []})
            entry["test"].append(model["metrics"]["test"][bench.metric]["mean"])
            entry["ms"].append(model["latency_ms"]["p50"])
            entry["cpu_ms"].append(model["latency_ms"]["cpu_p50"])
    rows: list[dict[str, Any]] = [
        {"model": name, "test": float(np.mean(entry["test"])), "std": float(np.std(entry["test"], ddof=1)),
         "ms": float(np.median(entry["ms"])), "cpu_ms": float(np.median(entry["cpu_ms"]))}
        for name, entry in found.items()]
    write_json(ROOT / "benchmarks" / "results" / "methods" / f"fusions-{options.set}-{options.width}.json", {
        "fusions": rows, "set": options.set, "width": options.width, "metric": bench.metric, "teacher_name": teacher,
        "command": f"python benchmarks/methods/fusions.py {options.set} --width {options.width}", "date": began,
        "commit": began_at, "hardware": hardware(), "seeds": list(SEEDS)})


if __name__ == "__main__":
    main()
