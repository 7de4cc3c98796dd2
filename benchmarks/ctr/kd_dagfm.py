"""RecBole 1.2.1's KD_DAGFM and distilrec on MovieLens 100K: the same rows, the same split, the same fields.

    python benchmarks/ctr/kd_dagfm.py [--recbole-seeds 2020 2021] [--envs DIR] [--work DIR]

RecBole trains its teacher, its student and the fine-tuned student with its own settings, and gives away its rows (its
split is drawn from its own seed, 2020). `distilrec run benchmarks/ctr/kd_dagfm.yaml` then works on these rows, and all
are compared on the test rows, which nothing was chosen by: AUC, and differences with intervals over users. RecBole's
package holds the data. What is finished is not run again. Writes benchmarks/results/kd-dagfm/result.json.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from distilrec.bundle.runtime import load
from distilrec.data.row_folder import load_rows
from distilrec.evaluation.row_significance import Sample, compare_samples, row_samples
from distilrec.files import read_json
from distilrec.types_rows import RowSplit

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from rivals import commit, environment, envs_folder, hardware, surroundings, write  # noqa: E402

RESULT = HERE.parent / "results" / "kd-dagfm" / "result.json"
PUBLISHED = {"teacher_training": 0.7791, "distillation": 0.7780, "finetuning": 0.7830}
ROLES, SHOWN = ("student", "control"), ("auc", "gauc", "log_loss", "calibration_error")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recbole-seeds", type=int, nargs="+", default=[2020])
    parser.add_argument("--envs", type=Path, default=envs_folder())
    parser.add_argument("--work", type=Path, help="where rows and runs go; default: in --envs")
    args = parser.parse_args()
    work = (args.work or args.envs / "work" / "kd-dagfm").resolve()
    work.mkdir(parents=True, exist_ok=True)
    theirs = [recbole(seed, args.envs.resolve(), work) for seed in args.recbole_seeds]
    rows, out = work / "rows.parquet", work / "run"
    if not rows.exists():
        pl.read_csv(work / "rows.csv", infer_schema_length=None).write_parquet(rows)
    if not (out / "report.json").exists():
        command = [str(Path(sys.executable).with_name("distilrec")), "run", str(HERE / "kd_dagfm.yaml"),
                   "--data", str(rows), "--out", str(out)]
        subprocess.run(command, check=True, env=surroundings(ours=True))
    report, split = read_json(out / "report.json"), load_rows(out / "data")
    seeds = report["protocol"]["seeds"]
    write(RESULT, {
        "command": "python benchmarks/ctr/kd_dagfm.py", "recipe": "benchmarks/ctr/kd_dagfm.yaml",
        "date": time.strftime("%Y-%m-%d", time.gmtime()), "commit": commit(), "hardware": hardware(), "seeds": seeds,
        "published_test_auc": PUBLISHED, "recbole": theirs, **compared(split, out, work, seeds, args.recbole_seeds),
        "distilrec": [
            {**{key: model[key] for key in ("name", "role", "parameters")},
             "test": {metric: model["metrics"]["test"][metric] for metric in SHOWN}} for model in report["models"]
        ],
    })
    print(RESULT.read_text(encoding="utf-8"))


def recbole(seed: int, envs: Path, work: Path) -> dict[str, Any]:
    """The three phases of one seed, made or read."""
    out = work / f"recbole-{seed}.json"
    if not out.exists():
        command = [str(environment("recbole", envs)), "-W", "ignore", str(HERE / "kd_dagfm_recbole.py"), "--work",
                   str(work), "--seed", str(seed), "--out", str(out), "--rows", str(work / "rows.csv")]
        subprocess.run(command, check=True, cwd=work, env=surroundings(ours=False))
    return json.loads(out.read_text(encoding="utf-8"))


def compared(split: RowSplit, out: Path, work: Path, seeds: list[int], recbole_seeds: list[int]) -> dict[str, Any]:
    """AUC of everyone on the test rows with intervals over users, and the differences that are claimed."""
    rows = split.rows("test")
    labels, groups = split.label_matrix(rows), split.groups[rows]
    encoded = {name: column[rows] for name, column in split.columns.items()}

    def auc(predictions: list[np.ndarray]) -> Sample:
        return row_samples(np.stack(predictions), labels, groups, split.heads)["auc"]

    samples = {role: auc([load(out / "students" / f"seed-{seed}" / f"{role}.bundle").scores(encoded) for seed in seeds])
               for role in ROLES}
    for phase in PUBLISHED:
        held = [np.load(work / f"recbole-{seed}-{phase}.npy")[:, None] for seed in recbole_seeds]
        samples[f"recbole {phase}"] = auc([np.log(p / (1 - p)) for p in held])
    told = {}
    for other in ("control", *(name for name in samples if name.startswith("recbole"))):
        found = compare_samples(samples["student"], samples[other])
        told[f"student - {other}"] = {"difference": round(found.difference, 5), "p": found.p_value,
                                      "interval": [round(end, 5) for end in found.interval]}
    return {
        "test_rows": len(rows), "test_users": len(np.unique(groups)), "differences": told,
        "test_auc": {name: {"value": round(one.value, 5), "interval": [round(end, 5) for end in one.interval()]}
                     for name, one in samples.items()},
    }


if __name__ == "__main__":
    main()
