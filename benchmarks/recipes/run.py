"""Run recipes on real data and keep their reports as committed results.

    python benchmarks/recipes/run.py amazon-beauty [movielens-1m ...] [--seeds 0 1 2] [--out runs/bench]

Data come from DISTILREC_DATA/SET, where SET is the data set that the recipe is named after. A run that was killed goes
on where it stopped. Each finished recipe leaves benchmarks/results/NAME/report.json (the report of the run, unchanged)
and run.json (command, date, commit, hardware, seeds); results_table.py then writes the tables.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from distilrec.files import read_json, write_json
from rivals import commit, hardware

ROOT = Path(__file__).resolve().parents[2]
SETS = {"amazon-beauty": "amazon-beauty", "movielens-1m": "ml-1m", "movielens-100k": "ml-100k",
        "ads-ctr": "frappe-nfm", "movielens-ctr": "ml-1m-collm", "citeulike": "citeulike-tdkd",
        "gowalla": "gowalla-lightgcn", "movielens-1m-hstu": "ml-1m"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", default=list(SETS), choices=list(SETS))
    parser.add_argument("--seeds", type=int, nargs="+")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "bench")
    options = parser.parse_args()
    data = Path(os.environ["DISTILREC_DATA"])
    for name in options.recipes:
        command = ["distilrec", "run", f"recipes/{name}.yaml", "--data", str(data / SETS[name]),
                   "--out", str(options.out / name)]
        if options.seeds:
            command += ["--set", f"seeds={options.seeds}"]
        began, made_at = time.strftime("%Y-%m-%d", time.gmtime()), commit()
        subprocess.run([str(ROOT / ".venv" / "bin" / command[0]), *command[1:]], check=True, cwd=ROOT)
        keep(options.out / name, name, command, began, made_at)


def keep(out: Path, name: str, command: list[str], date: str, made_at: str) -> None:
    """Copy the report of a finished run into benchmarks/results with what is needed to make it again."""
    target = ROOT / "benchmarks" / "results" / name
    target.mkdir(parents=True, exist_ok=True)
    shutil.copy(out / "report.json", target / "report.json")
    seeds = read_json(out / "report.json")["protocol"]["seeds"]
    shown = " ".join(command).replace(os.environ.get("DISTILREC_DATA", "\0"), "$DISTILREC_DATA").replace(f"{ROOT}/", "")
    write_json(target / "run.json", {"command": shown, "date": date, "commit": made_at, "hardware": hardware(),
                                     "seeds": seeds, "recipe": f"recipes/{name}.yaml"})


if __name__ == "__main__":
    main()
