"""Training speed of SASRec: distilrec beside RecBole and RecTools on Amazon Beauty.

    python benchmarks/speed/run.py --data FOLDER/amazon-beauty [--only recbole rectools ours] [--envs DIR] [--again]

Builds one virtual environment per library, trains each on one thread until validation NDCG@10 passes the goal, and
writes results/LIBRARY.json after every epoch. A finished result is kept and not run again unless --again is given.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent))
from rivals import environment, envs_folder, surroundings  # noqa: E402  (a file beside this folder, no package)

SCRIPTS = {"recbole": "with_recbole.py", "rectools": "with_rectools.py", "ours": "ours.py"}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of the shared layout; default $DISTILREC_DATA/amazon-beauty")
    parser.add_argument("--only", nargs="+", choices=sorted(SCRIPTS), default=list(SCRIPTS))
    parser.add_argument("--envs", type=Path, default=envs_folder())
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--goal", type=float, default=0.03, help="validation NDCG@10 at which a run ends")
    parser.add_argument("--cap", type=float, default=3600.0, help="seconds after which a run is cut off")
    parser.add_argument("--again", action="store_true", help="run even what is finished")
    args = parser.parse_args()
    if args.data is None:
        if "DISTILREC_DATA" not in os.environ:
            parser.error("name the data with --data, or set DISTILREC_DATA")
        args.data = Path(os.environ["DISTILREC_DATA"]) / "amazon-beauty"
    args.envs, args.results = Path(args.envs).resolve(), args.results.resolve()
    args.results.mkdir(parents=True, exist_ok=True)
    data = prepare(args.data, args.envs / "data")
    failed = [name for name in args.only if not run(name, data, args)]
    table(args.results)
    return 1 if failed else 0


def prepare(source: Path, folder: Path) -> Path:
    """The events as one .npz that every environment can read."""
    frame = pl.read_parquet(source / "interactions.parquet")
    time = "seq_pos" if "seq_pos" in frame.columns else "timestamp"
    frame = frame.sort("user_id", time, maintain_order=True)
    frame = frame.filter(pl.len().over("user_id") >= 3)
    items = frame["item_id"].rank("dense").to_numpy().astype(np.int64) - 1
    lengths = frame.group_by("user_id", maintain_order=True).len()["len"].to_numpy().astype(np.int64)
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{source.name}.npz"
    np.savez(path, items=items, offsets=np.concatenate([[0], np.cumsum(lengths)]), n_items=int(items.max()) + 1)
    return path


def run(name: str, data: Path, args: argparse.Namespace) -> bool:
    """Train one library in its own process; True if there is a finished result."""
    out = args.results / f"{name}.json"
    if not args.again and finished(out):
        print(f"{name}: finished before, kept ({out})")
        return True
    python = Path(sys.executable) if name == "ours" else environment(name, args.envs)
    work = args.envs / "work" / name
    work.mkdir(parents=True, exist_ok=True)
    command = [
        str(python), str(HERE / SCRIPTS[name]), "--data", str(data), "--out", str(out), "--work", str(work),
        "--goal", str(args.goal), "--cap", str(args.cap),
    ]
    # The cap is checked after an epoch; the time-out catches a library that never ends one.
    try:
        subprocess.run(command, env=surroundings(ours=name == "ours"), check=True, cwd=work, timeout=2 * args.cap)
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        print(f"{name}: {error}", file=sys.stderr)
    return finished(out)


def finished(out: Path) -> bool:
    return out.exists() and json.loads(out.read_text(encoding="utf-8"))["status"] in ("reached", "capped")


def table(results: Path) -> None:
    """Print what is known."""
    print(f"\n{'library':<12}{'version':<10}{'epochs':>7}{'s/epoch':>9}{'trained/s':>11}{'s to goal':>11}{'best':>8}")
    for path in sorted(results.glob("*.json")):
        each = json.loads(path.read_text(encoding="utf-8"))
        epochs = each["epochs"]
        seconds = np.mean([epoch["seconds"] for epoch in epochs])
        rate = sum(epoch["trained"] for epoch in epochs) / sum(epoch["seconds"] for epoch in epochs)
        reached = "-" if each["seconds_to_goal"] is None else f"{each['seconds_to_goal']:.0f}"
        best = max(epoch["ndcg@10"] for epoch in epochs)
        print(f"{each['library']:<12}{each['version']:<10}{len(epochs):>7}{seconds:>9.1f}{rate:>11.0f}{reached:>11}{best:>8.4f}")


if __name__ == "__main__":
    sys.exit(main())
