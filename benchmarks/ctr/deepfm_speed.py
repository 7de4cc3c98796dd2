"""Training speed of DeepFM: distilrec beside RecBole 1.2.1, on the same table, with the same sizes and batches.

    python benchmarks/ctr/deepfm_speed.py [--cases frappe-128 ...] [--rounds 3] [--epochs 4] [--envs DIR] [--work DIR]

Data: DISTILREC_DATA/frappe-nfm (5 thousand ids), a million impressions of the simulated shop (30 thousand ids), and a
made table of a million ids, as users, cookies and queries have in logs of advertising. There distilrec is also trained
with lazy_adam, which updates only the ids of a batch; RecBole has nothing like it. With the widest layers it is also
trained in bfloat16. Every round trains each library once, in a process of its own, one after the other, so that a busy
machine hurts both. The first epoch of a process warms up; what is told is the median of all the others. Writes
benchmarks/results/deepfm-speed/result.json after every process; what is finished is not measured again unless --again
is given.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import polars as pl

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from rivals import commit, environment, envs_folder, hardware, surroundings, write  # noqa: E402

RESULT = HERE.parent / "results" / "deepfm-speed" / "result.json"
_SMALL, _WIDE = [128, 128, 128], [400, 400]  # RecBole's default layers, and what benchmarks of click models use
CASES: dict[str, dict[str, Any]] = {
    "frappe-128": {"table": "frappe", "hidden": _SMALL, "batch": 2048},  # RecBole's default batch
    "frappe-128-batch256": {"table": "frappe", "hidden": _SMALL, "batch": 256},  # ours
    "frappe-400": {"table": "frappe", "hidden": _WIDE, "batch": 2048, "also": ["distilrec-bf16"]},
    "ids-128": {"table": "ids", "hidden": _SMALL, "batch": 2048, "also": ["distilrec-lazy"]},
    "shop-128": {"table": "shop", "hidden": _SMALL, "batch": 2048},
}
OURS = {"distilrec": [], "distilrec-lazy": ["--lazy"], "distilrec-bf16": ["--bf16"]}  # with our options
LIBRARIES = (*OURS, "recbole")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=list(CASES), default=list(CASES))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--envs", type=Path, default=envs_folder())
    parser.add_argument("--work", type=Path, help="where tables and checkpoints go; default: in --envs")
    parser.add_argument("--again", action="store_true")
    args = parser.parse_args()
    work = (args.work or args.envs / "work" / "deepfm").resolve()
    other = environment("recbole", args.envs.resolve())
    document = json.loads(RESULT.read_text(encoding="utf-8")) if RESULT.exists() else {"cases": {}}
    document |= {"command": "python benchmarks/ctr/deepfm_speed.py", "date": time.strftime("%Y-%m-%d", time.gmtime()),
                 "commit": commit(), "hardware": hardware(),
                 "same": "Adam 1e-3, embedding width 16, dropout .2, one thread, float32"}
    for name in args.cases:
        case = CASES[name]
        if args.again or name not in document["cases"]:
            document["cases"][name] = {**case, "runs": []}
        held = document["cases"][name]
        for seed in range(args.rounds):
            for library in LIBRARIES:
                done = any(run["library"] == library and run["seed"] == seed for run in held["runs"])
                if done or library not in ("distilrec", "recbole", *case.get("also", ())):
                    continue
                out = work / f"{name}-{library}-{seed}.json"
                start = [other, "deepfm_recbole.py"] if library == "recbole" else [sys.executable, "deepfm_ours.py"]
                command = [str(start[0]), str(HERE / start[1]), "--table", str(table(case["table"], work)), "--hidden",
                           *map(str, case["hidden"]), "--batch", str(case["batch"]),
                           "--epochs", str(args.epochs), "--seed", str(seed), "--work", str(work / library),
                           "--out", str(out), *OURS.get(library, [])]
                (work / library).mkdir(parents=True, exist_ok=True)
                subprocess.run(command, check=True, cwd=work / library, env=surroundings(ours=library != "recbole"))
                made = {"library": library, "seed": seed, "commit": document["commit"]}
                held["runs"].append({**made, **json.loads(out.read_text(encoding="utf-8"))})
                held["summary"] = summary(held["runs"])
                document["seeds"] = sorted({run["seed"] for one in document["cases"].values() for run in one["runs"]})
                write(RESULT, document)
        print(name, json.dumps(held["summary"]), flush=True)


def table(name: str, work: Path) -> Path:
    """CSV: categories, a label of 0 and 1, and a split of 98 : 1 : 1, drawn once."""
    path = work / f"{name}.csv"
    if path.exists():
        return path
    if name == "frappe":
        frame = pl.read_parquet(Path(os.environ["DISTILREC_DATA"]) / "frappe-nfm" / "ctr.parquet").drop("split")
    elif name == "ids":
        frame = many_ids()
    else:
        from distilrec.data.shop_rows import shop_table
        from distilrec.data.simulate import simulate_shop

        columns = ["user_id", "item_id", "position", "region", "device", "favorite", "category", "brand", "collection",
                   "material", "color", "previous"]
        shop = simulate_shop(users=20_000, items=8_000, events_per_user=4.0, seed=1)
        frame = shop_table(shop, "impressions", 1_000_000).select(*columns, label="click")
    frame = frame.with_columns(pl.exclude("label").cast(pl.String).fill_null("none"))
    parts = pl.Series("split", ["train"] * 98 + ["valid", "test"])
    places = pl.int_range(frame.height, eager=True).shuffle(seed=0) % 100
    work.mkdir(parents=True, exist_ok=True)
    frame.with_columns(split=parts.gather(places)).write_csv(path)
    return path


def many_ids(rows: int = 200_000) -> pl.DataFrame:
    """Ten columns: six of which about three rows in four have an id that is new, four of few ids."""
    rng = np.random.default_rng(0)
    wide = {f"id{place}": rng.integers(0, 4 * rows, rows) for place in range(6)}
    narrow = {f"kind{place}": rng.integers(0, 10 ** (place + 1), rows) for place in range(4)}
    return pl.DataFrame({**wide, **narrow, "label": (rng.random(rows) < 0.2).astype(np.int8)})


def summary(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """Rows trained per second by library, medians over the epochs after each process's first, and the ratios."""
    told: dict[str, Any] = {}
    for library in LIBRARIES:
        of = [run for run in runs if run["library"] == library]
        if not of:
            continue
        epochs = [epoch for run in of for epoch in run["epochs"][1:]]
        told[library] = {
            "rows_per_cpu_second": round(median(of[0]["rows"] / epoch["cpu_seconds"] for epoch in epochs)),
            "rows_per_second": round(median(of[0]["rows"] / epoch["seconds"] for epoch in epochs)),
            "valid_auc": round(median(run["valid_auc"] for run in of), 4), "parameters": of[0]["parameters"],
        }
    for library in told.keys() - {"recbole"} if "recbole" in told else ():
        for unit in ("rows_per_cpu_second", "rows_per_second"):
            told[library][f"times_recbole_{unit}"] = round(told[library][unit] / told["recbole"][unit], 2)
    return told


if __name__ == "__main__":
    main()
