"""Files and functions that one can take in at a glance: fails on those that are too long."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

__all__ = ["check", "main"]

FILE_WARN, FILE_FAIL, FUNCTION_FAIL = 300, 350, 80
ROOT = Path(__file__).resolve().parent.parent


def check(file: Path) -> Iterator[tuple[bool, str]]:
    """(whether it fails, what was found) for one Python file; docstrings count like any other line."""
    text = file.read_text(encoding="utf-8")
    lines = len(text.splitlines())
    if lines > FILE_WARN:
        yield lines > FILE_FAIL, f"{lines} lines (aim at {FILE_WARN}, at most {FILE_FAIL})"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > FUNCTION_FAIL:
                yield True, f"line {node.lineno}: {node.name} has {length} lines (at most {FUNCTION_FAIL})"


def main(roots: Sequence[str]) -> int:
    """Check every file below `roots`; returns 1 if one fails."""
    failed = count = 0
    for root in roots:
        for file in sorted((ROOT / root).rglob("*.py")):
            count += 1
            for fails, text in check(file):
                failed += fails
                print(f"{'error' if fails else 'warning'}: {file}: {text}")
    print(f"sizes: {count} files, {failed} too long")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or ["src", "scripts"]))
