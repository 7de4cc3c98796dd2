"""What the benchmarks of rows leave behind: small JSON files with command, date, commit, hardware and seeds."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from distilrec.files import write_json

ROOT = Path(__file__).resolve().parents[2]


def keep(name: str, command: str, seeds: Sequence[int], documents: Mapping[str, Any], **facts: Any) -> Path:
    """Write documents {file name: JSON} and run.json to benchmarks/results/NAME; returns the folder."""
    target = ROOT / "benchmarks" / "results" / name
    target.mkdir(parents=True, exist_ok=True)
    for file, document in documents.items():
        write_json(target / file, document)
    write_json(target / "run.json", {
        "command": command, "date": time.strftime("%Y-%m-%d", time.gmtime()), "commit": commit(),
        "hardware": hardware(), "seeds": list(seeds), **facts})
    return target


def commit() -> str:
    return subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True,
                          check=True).stdout.strip()


def hardware() -> str:
    """The processor, how much of it this process may use, and how busy it is."""
    model = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = info.read_text(encoding="utf-8").splitlines()
        models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        model = models[0] if models else model
    return (f"{model}, {len(os.sched_getaffinity(0))} shared cores (load {os.getloadavg()[0]:.1f}), 1 thread, no GPU")
