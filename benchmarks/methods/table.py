"""Write docs/methods.md from benchmarks/results/methods/*.json.

    python benchmarks/methods/table.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from distilrec.files import read_json

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "methods"
PAGE = ROOT / "docs" / "methods.md"
NAMES = {"citeulike": "CiteULike, split of Topology Distillation (KDD 2021)", "gowalla": "Gowalla, split of LightGCN"}
HEAD = """# Every way to distill, on published splits

Written by `python benchmarks/methods/table.py` from `benchmarks/results/methods/`. Each method gets the same number of
trials on one seed, then the best of them by validation runs on three seeds. "Beside alone" is the difference to the
same student without a teacher, which had as many trials, with the 95 % interval of a paired bootstrap over users. Tail:
the least popular items that hold the last 20 % of train events. What each method computes says [losses.md](losses.md).
"""


def main() -> None:
    PAGE.write_text(page([read_json(path) for path in sorted(RESULTS.glob("*.json"))]), encoding="utf-8")


def page(documents: list[dict[str, Any]]) -> str:
    """The whole page; tests hold the committed one against it."""
    tables = [_methods(one) for one in documents if "teacher" in one]
    wrong = [_wrong(one) for one in documents if "teacher" not in one]
    return "\n".join([HEAD, *tables, *wrong])


def _methods(one: dict[str, Any]) -> str:
    teacher = one["teacher"]
    lines = [
        f"## {NAMES[one['set']]}: factorization of width {one['width']}, taught by {teacher['name']}", "",
        f"{_name(one['metric'])}. Teacher: validation {teacher['valid']:.4f}, test {teacher['test']:.4f} "
        f"(tail {teacher['tail']:.4f}), {teacher['parameters']:,} parameters; "
        f"its knowledge takes {one['store_bytes_per_user']:,.0f} bytes a user. `{one['command']}`, {one['date']}, "
        f"commit {one['commit']}, {one['hardware']}, seeds {', '.join(map(str, one['seeds']))}.", "",
        "| method | what it is | validation | test | ± | beside alone | tail | beside alone | step |",
        "| --- | --- | ---: | ---: | ---: | --- | ---: | --- | ---: |",
    ]
    alone = next(row["cpu_seconds_per_epoch"] for row in one["rows"] if row["method"] == "alone")
    rows = sorted(one["rows"], key=lambda row: -np.mean(row["test"]))
    for row in rows:
        lines.append("| " + " | ".join([
            row["method"], row["meaning"], f"{np.mean(row['valid']):.4f}", f"{np.mean(row['test']):.4f}",
            f"{np.std(row['test'], ddof=1):.4f}", _beside(row, "all"), f"{np.mean(row['tail']):.4f}",
            _beside(row, "tail"), f"{row['cpu_seconds_per_epoch'] / alone:.1f} ×",
        ]) + " |")
    return "\n".join([*lines, ""])


def _beside(row: dict[str, Any], group: str) -> str:
    found = row.get(f"beside_control_{group}")
    if found is None:
        return "–"
    low, high = found["interval"]
    return f"{found['difference']:+.4f} ({low:+.4f} to {high:+.4f})"


def _wrong(one: dict[str, Any]) -> str:
    lines = ["## A teacher that is wrong", "",
             f"Recall@50 on CiteULike; some users' soft labels are those of other users. `{one['command']}`, "
             f"{one['date']}, commit {one['commit']}.", "",
             "| the teacher's answers | believed | student | control | difference | lower end, relative |",
             "| --- | --- | ---: | ---: | --- | ---: |"]
    for row in one["rows"]:
        low, high = row["interval"]
        lines.append(f"| {row['teacher']} | {row['believed']} | {row['student']:.4f} | {row['control']:.4f} | "
                     f"{row['difference']:+.4f} ({low:+.4f} to {high:+.4f}) | "
                     f"{100 * row['lower_end_relative']:+.1f} % |")
    return "\n".join([*lines, ""])


def _name(metric: str) -> str:
    return metric[0].upper() + metric[1:]


if __name__ == "__main__":
    main()
