"""Write the measured results into README.md (a line each) and docs/benchmarks.md (a table each).

    python benchmarks/results_table.py [--results DIR] [--check]

Reads DIR/*/report.json (the report of a run, unchanged) and DIR/*/run.json beside it ({"command", "date", "commit",
"hardware", "seeds", "recipe"}), and replaces what stands between `<!-- results:begin -->` and `<!-- results:end -->`.
With --check nothing is written, and the exit code is 1 if a table is out of date.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from distilrec.errors import DataError, DistilrecError, problem
from distilrec.evaluation import words
from distilrec.evaluation.schema import read_report
from distilrec.files import atomic_file

__all__ = ["BEGIN", "END", "EMPTY", "PAGES", "main", "render", "replaced", "summary"]

ROOT = Path(__file__).resolve().parent.parent
PAGES = (ROOT / "README.md", ROOT / "docs" / "benchmarks.md")
BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"
EMPTY = "No benchmark has been run yet."
_RUN = {"command": str, "date": str, "commit": str, "hardware": str, "seeds": list, "recipe": str}
_OF_ROWS = ("gauc", "uauc", "log_loss", "calibration_error")  # beside the main metric, where its head has them


def main(arguments: list[str] | None = None) -> int:
    """Rewrite the pages, or with --check compare them; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks" / "results")
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a table is out of date")
    options = parser.parse_args(arguments)
    try:
        stale = []
        for page in PAGES:
            table = (summary if page.name == "README.md" else render)(options.results)
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


def summary(results: Path) -> str:
    """Markdown of one table with a line for every result folder.

    Raises DataError as `render`.
    """
    folders = sorted(path.parent for path in results.glob("*/report.json"))
    lines = [line for folder in folders if (line := _summed_up(folder)) is not None]
    header = ["run", "metric", "teacher", "student", "control", "size of the student", "student − control", "verdict"]
    rule = ["---", "---", *["---:"] * 4, "---", "---"]
    return "\n".join(map(_line, [header, rule, *lines])) if lines else EMPTY


def _summed_up(folder: Path) -> list[str] | None:
    """One line; None where a run has no teacher, student and control."""
    report, made = read_report(folder / "report.json"), _run(folder / "run.json")
    metric, student = report["metric"], words.main_student(report)
    teacher = next(iter(words.of_role(report, "teacher")), None)
    decided = student and words.comparison_of(report, student["name"], student.get("control") or "", metric)
    if student is None or teacher is None or not decided:
        return None
    control = next(model for model in report["models"] if model["name"] == decided["b"])
    difference, low, high = map(words.human_signed, (decided["difference"], *decided["interval"]))
    sizes = student["parameters"], teacher["parameters"]
    share = "–" if None in sizes else f"{sizes[0] / sizes[1]:.1%} of the teacher"
    seeds = len(made["seeds"])
    return [
        f"{folder.name}, {seeds} seed{'s' if seeds != 1 else ''}", words.column_title(metric),
        *(_cell(one["metrics"]["test"][metric]) for one in (teacher, student, control)), share,
        f"{difference} ({low} to {high})", words.headline(report).lower(),
    ]


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
    data, protocol, metrics = report["dataset"], report["protocol"], _metrics(report)
    how = [protocol["split"], *_ranked(protocol), f"{len(made['seeds'])} seed{'s' if len(made['seeds']) != 1 else ''}"]
    head = f"**{data['name']}**: {', '.join(words.size_of(report))}; {', '.join(how)}."
    header = ["model", "role", *map(words.column_title, metrics), "parameters", "size", "p50"]
    rule = ["---", "---", *["---:"] * (len(header) - 2)]
    table = "\n".join(map(_line, [header, rule, *(_row(model, metrics) for model in report["models"])]))
    source = f"`{made['command']}`, {made['date']}, commit {made['commit'][:12]}, {made['hardware']}."
    return "\n\n".join([head, table, "\n".join([_verdict(report), *_of_the_teacher(report)]), source])


def _metrics(report: Mapping[str, Any]) -> list[str]:
    """The columns of the table: the main metric, and in a report of rows its companions."""
    metric = report["metric"]
    heads = words.head_metrics(report).values() if words.is_rows(report) else ()
    own = next((names for names in heads if metric in names), [])
    return [metric, *(name for one in _OF_ROWS for name in own if name.rpartition(".")[2] == one and name != metric)]


def _ranked(protocol: Mapping[str, Any]) -> list[str]:
    """What was ranked; rows are not."""
    if "candidates" not in protocol:
        return []
    full = protocol["candidates"] == "full"
    return ["full ranking" if full else f"candidates {json.dumps(protocol['candidates'])}"]


def _row(model: Mapping[str, Any], metrics: Sequence[str]) -> list[str]:
    latency = model["latency_ms"]
    return [
        model["name"], model["role"], *(_cell(model["metrics"]["test"].get(metric)) for metric in metrics),
        "–" if model["parameters"] is None else f"{model['parameters']:,}",
        words.human_bytes(model["bytes"]), words.human_ms(latency["p50"] if latency else None),
    ]


def _cell(stats: Mapping[str, Any] | None) -> str:
    if stats is None or stats["mean"] is None:
        return "–"
    return f"{stats['mean']:.4f}" + ("" if stats["std"] is None else f" ± {stats['std']:.4f}")


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _verdict(report: Mapping[str, Any]) -> str:
    student = words.main_student(report)
    decided = student and words.comparison_of(report, student["name"], student.get("control") or "", report["metric"])
    if not student or not decided:
        return "No verdict: the run has no student with a control."
    difference, low, high = map(words.human_signed, (decided["difference"], *decided["interval"]))
    gap, metric = student["gap_closed"], report["metric"]
    kept = _kept(student, next(iter(words.of_role(report, "teacher")), None), metric, words.is_rows(report))
    closed = "" if gap is None else f"; gap closed {gap:.0%}"
    return (
        f"**{words.headline(report)}**: {student['name']} − {decided['b']} = {difference} (95 % interval {low} to "
        f"{high}, p {words.human_p(decided['p_value'])}, {decided['n']:,} {words.unit_of(report)}){kept}{closed}."
    )


def _kept(student: Mapping[str, Any], teacher: Mapping[str, Any] | None, metric: str, rows: bool) -> str:
    """What the student keeps of its teacher: of its metric, or in a report of rows of what is above guessing."""
    if teacher is None:
        return ""
    if not rows:
        return f"; {_mean(student, metric) / _mean(teacher, metric):.1%} of the teacher"
    share = words.kept_share(metric, _mean(student, metric), _mean(teacher, metric))
    return "" if share is None else f"; {share:.1%} of the teacher above guessing"


def _of_the_teacher(report: Mapping[str, Any]) -> list[str]:
    """In a report of rows: the student against its teacher, and the teacher against its members, with intervals."""
    if not words.is_rows(report):
        return []
    metric, head = report["metric"], report["metric"].rpartition(".")[0]
    error = f"{head}.calibration_error" if head else "calibration_error"
    teachers = [model["name"] for model in words.of_role(report, "teacher")]
    members = [model["name"] for model in words.of_role(report, "member")]
    students = [model["name"] for model in words.of_role(report, "student")]
    wanted = [(s, t, one) for s in students for t in teachers for one in (metric, error)]
    wanted += [(t, m, metric) for t in teachers for m in members]
    found = [words.comparison_of(report, *one) for one in wanted]
    told = [f"{words.human_metric(c['metric'])} {c['a']} − {c['b']} {words.human_signed(c['difference'])} "
            f"({words.human_signed(c['interval'][0])} to {words.human_signed(c['interval'][1])})" for c in found if c]
    return ["; ".join(told) + "."] if told else []


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
