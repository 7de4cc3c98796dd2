"""What both libraries get in the comparison of DeepFM's training speed: table, sizes, rounds (numpy, pandas)."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

from rivals import Clock

__all__ = ["DIM", "DROPOUT", "LABEL", "RATE", "arguments", "measure"]

DIM, DROPOUT, RATE, LABEL, SPLIT = 16, 0.2, 1e-3, "label", "split"


def arguments(description: str | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--table", type=Path, required=True, help="CSV: label, split, and categories")
    parser.add_argument("--hidden", type=int, nargs="+", required=True)
    parser.add_argument("--batch", type=int, required=True)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--lazy", action="store_true", help="update only the ids of a batch, where the library can")
    parser.add_argument("--bf16", action="store_true", help="bfloat16 products, where the library can")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, required=True, help="folder for what the library writes")
    parser.add_argument("--out", type=Path, required=True)
    return parser.parse_args()


def measure(
    args: argparse.Namespace, version: str, rows: int, parameters: int, epoch: Callable[[int], object],
    quality: Callable[[], float],
) -> None:
    """Train `args.epochs` epochs of `rows` rows and write the seconds of each, and the AUC on validation at the end."""
    clock, epochs = Clock(), []
    for number in range(args.epochs):
        clock.start()
        epoch(number)
        seconds, cpu = clock.stop()
        epochs.append({"seconds": round(seconds, 4), "cpu_seconds": round(cpu, 4), "load": os.getloadavg()[0]})
    document = {"version": version, "rows": rows, "parameters": parameters, "epochs": epochs,
                "valid_auc": round(quality(), 5)}
    args.out.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    sys.stdout.flush()
