"""What the benchmarks leave behind: small JSON files with command, date, commit, hardware and seeds."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from distilrec.files import write_json
from rivals import commit, hardware

__all__ = ["ROOT", "commit", "hardware", "keep"]

ROOT = Path(__file__).resolve().parents[1]


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
