"""Borders between rooms, sizes, and what importing costs."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIGHT = [
    "distilrec", "distilrec.types", "distilrec.errors", "distilrec.files", "distilrec.numerics",
    "distilrec.recipe", "distilrec.recipe_yaml",
    "distilrec.data.entry", "distilrec.data.text", "distilrec.evaluation.contest", "distilrec.bundle.runtime",
    "distilrec.bundle.offline", "distilrec.serving.app", "distilrec.cli", "distilrec.cli_views",
    "distilrec.cli_inspect",
]


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT).stdout


def sizes(*roots: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "scripts/check_sizes.py", *roots]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)


def test_importing_is_cheap() -> None:
    code = "import time, distilrec; print(time.process_time())"
    assert min(float(python(code)) for _ in range(3)) < 0.3


def test_no_light_module_loads_torch() -> None:
    code = ("import sys, importlib\n"
            f"for name in {LIGHT!r}:\n"
            "    importlib.import_module(name)\n"
            "    if {'torch', 'transformers'} & set(sys.modules): print(name); break\n")
    assert python(code) == ""


def test_the_rooms_keep_their_borders() -> None:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout[-3000:]


def test_files_and_functions_are_short() -> None:
    done = sizes()
    assert done.returncode == 0, done.stdout


def test_the_size_check_sees_what_is_too_long(tmp_path: Path) -> None:
    (tmp_path / "long.py").write_text("def f():\n" + "    x = 1\n" * 80 + "y = 2\n" * 300)
    done = sizes(str(tmp_path))
    assert done.returncode == 1
    assert "381 lines" in done.stdout
    assert "f has 81 lines" in done.stdout


def test_the_constraints_pin_every_dependency() -> None:
    import re
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    groups = [project["dependencies"], *project["optional-dependencies"].values()]
    wanted = {re.split(r"[<>=\[]", line)[0] for group in groups for line in group} - {"distilrec"}
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if not line.startswith("#")]
    assert lines[0] == "torch==2.13.0"
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[0-9][A-Za-z0-9.]*", line) for line in lines)
    assert wanted <= {line.partition("==")[0] for line in lines}
