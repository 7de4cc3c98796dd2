"""What a step of each method costs beside a plain one, and the memory of its process.

    python benchmarks/methods/costs.py citeulike --teacher als --width 20 [--methods kl] [--rounds 3] [--out FOLDER]

Sets, teachers and knowledge are those of run.py. A step costs the same whoever taught, so the methods of several
teachers and of the student's own generations are not measured. Each method trains in a process of its own with the
settings of its first trial: CPU seconds of the epochs between a short and a longer training, so that reading, set-up
and validation do not count. The rounds go over all methods in turn, and a method is divided by the plain loss of its
own round. Kept after every round in benchmarks/results/methods/costs-SET-TEACHER-WIDTH.json.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from run import SETS, Bench, names_of

from distilrec.files import write_json
from kept import ROOT, commit, hardware

EPOCHS = (2, 8)
PLAIN = "alone"


def child(options: argparse.Namespace) -> None:
    """Train one method twice and print what it took."""
    bench = Bench(options.set, options.teacher, options.width, options.out)
    base, taken = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10, []
    for epochs in EPOCHS:
        with tempfile.TemporaryDirectory() as folder:
            made = bench.distill(options.method, 0, 0, Path(folder) / "student", epochs=epochs, evaluate_every=epochs)
        taken.append((made.training["cpu_seconds"], made.training["steps"]))
    (less, few), (more, many) = taken
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    print(json.dumps({"step_ms": 1000 * (more - less) / (many - few), "peak_mb": peak, "base_mb": base}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("set", choices=list(SETS))
    parser.add_argument("--teacher", help="the set's first by default")
    parser.add_argument("--width", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "methods")
    parser.add_argument("--methods", nargs="*", help="names of the set's methods; all by default")
    parser.add_argument("--method", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.teacher = options.teacher or next(iter(SETS[options.set]["teachers"]))
    if options.method is not None:
        child(options)
        return
    methods = SETS[options.set]["methods"].METHODS
    names = [name for name in names_of(options.set) if methods[name].teacher in ("given", "none")]
    if unknown := set(options.methods or ()) - set(names):
        parser.error(f"{', '.join(sorted(unknown))}: the methods of {options.set} are {', '.join(names)}")
    began, began_at = time.strftime("%Y-%m-%d", time.gmtime()), commit()
    asked = [name for name in names if name == PLAIN or name in (options.methods or names)]
    chosen = [options.set, "--teacher", options.teacher, "--width", str(options.width)]
    told = [*chosen, *(["--methods", *options.methods] if options.methods else []), "--rounds", str(options.rounds)]
    found: dict[str, list[dict[str, float]]] = {name: [] for name in asked}
    for number in range(options.rounds):
        for name in asked:
            done = subprocess.run([sys.executable, __file__, *chosen, "--out", str(options.out), "--method", name],
                                  check=True, stdout=subprocess.PIPE, text=True,
                                  env={**os.environ, "OMP_NUM_THREADS": "1"})
            found[name].append(json.loads(done.stdout.splitlines()[-1]))
            print(number, name, found[name][-1], flush=True)
        write_json(ROOT / "benchmarks" / "results" / "methods" / f"costs-{'-'.join(chosen[::2])}.json", {
            "costs": rows(found), "base_mb": max(one["base_mb"] for rounds in found.values() for one in rounds),
            "top_k": SETS[options.set].get("top_k", 100), "width": options.width, "set": options.set,
            "student": SETS[options.set]["student"], "teacher_name": options.teacher, "rounds": number + 1,
            "command": f"python benchmarks/methods/costs.py {shlex.join(told)}", "date": began, "commit": began_at,
            "hardware": hardware(), "seeds": [0]})


def rows(found: dict[str, list[dict[str, float]]]) -> list[dict[str, Any]]:
    """A line a method, by the medians of its rounds; the plain loss stands first in `found`."""
    plain = [one["step_ms"] for one in found[PLAIN]]
    return [{
        "method": name, "step_ms": float(np.median([one["step_ms"] for one in rounds])),
        "times_plain": float(np.median([one["step_ms"] / base for one, base in zip(rounds, plain, strict=True)])),
        "peak_mb": max(one["peak_mb"] for one in rounds),
    } for name, rounds in found.items()]


if __name__ == "__main__":
    main()
