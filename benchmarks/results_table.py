"""Write the measured results into README.md and docs/benchmarks.md.

    python benchmarks/results_table.py [--results DIR] [--check]

Reads DIR/*/report.json (the report of a run, unchanged) and DIR/*/run.json beside it ({"command", "date", "commit",
"hardware", "seeds", "recipe"}), and replaces what stands between `<!-- results:begin -->` and `<!-- results:end -->`.
With --check nothing is written, and the exit code is 1 if a table is out of date.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from distilrec.errors import DataError, DistilrecError, problem
from distilrec.evaluation import words
from distilrec.evaluation.schema import read_report
from distilrec.files import atomic_file

__all__ = ["BEGIN", "END", "EMPTY", "PAGES", "main", "render", "replaced"]

ROOT = Path(__file__).resolve().parent.parent
PAGES = (ROOT / "README.md", ROOT / "docs" / "benchmarks.md")
BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
EMPTY = "No benchmark has been run yet."
_RUN = {"command": str, "date": str, "commit": str, "hardware": str, "seeds": list, "recipe": str}
_HEADER = "| model | role | {metric} | parameters | size | p50 |\n| --- | --- | ---: | ---: | ---: | ---: |"


def main(arguments: list[str] | None = None) -> int:
    """Rewrite the pages, or with --check compare them; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a table is out of date")
    options = parser.parse_args(arguments)
    try:
        table = render(options.results)
        stale = []
        for page in PAGES:
            text = page.read_text(encoding="utf-8")
            wanted = replaced(text, table, page)
            if wanted == text:
                continue
            stale.append(page)
            if not options.check:
                with atomic_file(page) as temporary:
                    temporary.write_text(wanted, encoding="utf-8")
    except DistilrecError as error:
        print(error, file=sys.stderr)
        return 2
    for page in stale:
        print(f"{'out of date' if options.check else 'written'}: {page.relative_to(ROOT)}")
    return 1 if options.check and stale else 0


def render(results: Path) -> str:
    """Markdown of every result folder, in the order of their names; says so where there is none.

    Raises DataError for a report or a run.json that is missing, faulty, or of other seeds.
    """
    folders = sorted(path.parent for path in results.glob("*/report.json"))
    return "\n\n".join(_section(folder) for folder in folders) or EMPTY


def replaced(text: str, table: str, page: Path) -> str:
    """`text` with `table` between the markers. Raises DataError unless each marker stands there once, in order."""
    if text.count(BEGIN) != 1 or text.count(END) != 1 or text.index(BEGIN) > text.index(END):
        raise DataError(problem(f"{page} does not hold {BEGIN} and {END} once each",
                                do="put them where the table goes"))
    before, rest = text.split(BEGIN)
    return f"{before}{BEGIN}\n{table}\n{END}{rest.split(END)[1]}"


def _section(folder: Path) -> str:
    report, made = read_report(folder / "report.json"), _run(folder / "run.json")
    trained = report["protocol"]["seeds"]
    if made["seeds"] != trained:
        raise DataError(problem(f"{folder}: run.json names seeds {made['seeds']}, the report {trained}", "the same",
                                "copy both files from one run"))
    metric, data, protocol = report["metric"], report["dataset"], report["protocol"]
    ranked = "full ranking" if protocol["candidates"] == "full" else f"candidates {json.dumps(protocol['candidates'])}"
    seeds = f"{len(made['seeds'])} seed{'s' if len(made['seeds']) != 1 else ''}"
    head = (f"**{data['name']}**: {data['users']:,} users, {data['items']:,} items, {data['interactions']:,} "
            f"interactions; {protocol['split']}, {ranked}, {seeds}.")
    rows = [_row(model, metric) for model in report["models"]]
    table = "\n".join([_HEADER.format(metric=words.human_metric(metric)), *rows])
    source = f"`{made['command']}`, {made['date']}, commit {made['commit'][:12]}, {made['hardware']}."
    return "\n\n".join([head, table, _verdict(report), source])


def _row(model: Mapping[str, Any], metric: str) -> str:
    stats, latency = model["metrics"]["test"][metric], model["latency_ms"]
    value = f"{stats['mean']:.4f}" + ("" if stats["std"] is None else f" ± {stats['std']:.4f}")
    cells = [
        model["name"], model["role"], value, "–" if model["parameters"] is None else f"{model['parameters']:,}",
        words.human_bytes(model["bytes"]), words.human_ms(latency["p50"] if latency else None),
    ]
    return "| " + " | ".join(cells) + " |"


def _verdict(report: Mapping[str, Any]) -> str:
    student = words.main_student(report)
    decided = student and words.comparison_of(report, student["name"], student.get("control") or "", report["metric"])
    if not student or not decided:
        return "No verdict: the run has no student with a control."
    difference, low, high = map(words.human_signed, (decided["difference"], *decided["interval"]))
    gap, metric = student["gap_closed"], report["metric"]
    teacher = next(iter(words.of_role(report, "teacher")), None)
    kept = "" if teacher is None else f"; {_mean(student, metric) / _mean(teacher, metric):.1%} of the teacher"
    closed = "" if gap is None else f"; gap closed {gap:.0%}"
    return (
        f"**{words.headline(report)}**: {student['name']} − {decided['b']} = {difference} (95 % interval {low} to "
        f"{high}, p {words.human_p(decided['p_value'])}, {decided['n']:,} users){kept}{closed}."
    )


def _mean(model: Mapping[str, Any], metric: str) -> float:
    return float(model["metrics"]["test"][metric]["mean"])


def _run(path: Path) -> dict[str, Any]:
    try:
        made = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DataError(problem(f"{path} is missing", ", ".join(_RUN), "write down how the report was made")) from None
    except json.JSONDecodeError as error:
        raise DataError(problem(f"{path} is not JSON: {error}", ", ".join(_RUN))) from None
    wrong = [key for key, kind in _RUN.items() if not isinstance(made, dict) or not isinstance(made.get(key), kind)]
    if wrong:
        raise DataError(problem(f"{path}: wrong or missing {', '.join(wrong)}", ", ".join(_RUN)))
    return made


if __name__ == "__main__":
    sys.exit(main())
