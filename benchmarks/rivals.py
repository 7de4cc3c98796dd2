"""What benchmarks beside other libraries share: environments, clock, hardware, results (standard library only)."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
import venv
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["HERE", "TORCH", "Clock", "commit", "envs_folder", "environment", "hardware", "processor", "surroundings",
           "write"]

HERE = Path(__file__).resolve().parent
TORCH = "torch==2.13.0"  # first and alone: what comes later must take this build
REQUIREMENTS = {
    "recbole": ["recbole==1.2.1", "setuptools<80", "numpy<2", "pandas<3", "scipy<1.14"],
    "rectools": ["rectools[torch]==0.19", "numpy<2"],
}


class Clock:
    """Wall and CPU seconds of this process since the last start."""

    def start(self) -> None:
        self.wall, self.cpu = time.perf_counter(), time.process_time()

    def stop(self) -> tuple[float, float]:
        return time.perf_counter() - self.wall, time.process_time() - self.cpu


def envs_folder() -> Path:
    """Where the environments of other libraries are: $DISTILREC_BENCH_ENVS, or benchmarks/.envs."""
    return Path(os.environ.get("DISTILREC_BENCH_ENVS", HERE / ".envs"))


def environment(name: str, folder: Path) -> Path:
    """Build (once) the library's virtual environment and return its python."""
    place = folder / name
    python, stamp = place / "bin" / "python", place / "installed.txt"
    wanted = "\n".join([TORCH, *REQUIREMENTS[name]]) + "\n"
    if stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return python
    print(f"{name}: building {place}")
    venv.create(place, with_pip=True)
    for packages in ([TORCH, "numpy<2", "setuptools<80"], [TORCH, *REQUIREMENTS[name]]):
        subprocess.run([str(python), "-m", "pip", "install", "-q", *packages], check=True)
    stamp.write_text(wanted, encoding="utf-8")
    return python


def surroundings(*, ours: bool) -> dict[str, str]:
    """Environment variables of a measured process: one thread; the shared helpers, and our sources, can be imported."""
    given = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    paths = [str(HERE), *([str(HERE.parent / "src")] if ours else []), *given]
    return {
        **os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD": "1",
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
    }


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def hardware() -> str:
    """The processor and how much of it this process may use."""
    return f"{processor()}, {len(os.sched_getaffinity(0))} shared cores, 1 thread, no GPU"


def commit() -> str:
    return subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=HERE, capture_output=True, text=True,
                          check=True).stdout.strip()


def write(path: Path, document: Mapping[str, Any]) -> None:
    """The file appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".part")
    temporary.write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    temporary.replace(path)
