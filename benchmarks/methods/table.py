"""Write docs/methods.md from benchmarks/results/methods/*.json.

    python benchmarks/methods/table.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import factorizations
import numpy as np
import sequences
import yaml

from distilrec.files import read_json

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "methods"
PAGE = ROOT / "docs" / "methods.md"
NAMES = {
    "citeulike": "CiteULike, split of Topology Distillation (KDD 2021)",
    "citeulike-annealed": "CiteULike, split of Topology Distillation (KDD 2021), a teacher of falling rate",
    "citeulike-sampled": "CiteULike, split of DE-RRD (CIKM 2020), one target a user",
    "scientific": "Amazon Scientific, the last event of each user",
}
TRIALS = {"mf": factorizations.METHODS, "sasrec": sequences.METHODS}
STUDENTS = {"mf": "factorization", "sasrec": "SASRec of one layer"}
HEAD = """# Every way to distill, on published splits

Written by `python benchmarks/methods/table.py` from `benchmarks/results/methods/`. Each method gets eight trials on one
seed, and the best of them by validation is trained on three seeds and tested once. A trial is a quarter as long as what
is tested; those of the students without a teacher are as long, so that nobody is compared with a control that was cut
short. "Beside alone" is the difference to the same student without a teacher, with the 95 % interval of a paired
bootstrap over users. Tail: the least popular items that hold the last 20 % of train events. What each method computes
says [losses.md](losses.md), what did not work [log.md](log.md).

What to take from it: begin with `kl` beside cross-entropy (`student: {losses: {cross_entropy: 0.5, kl: 0.5}, train:
{temperature: 0.3}}`) and choose share, temperature and weight decay on validation. No other loss was better than it by
more than its spread over seeds; of the other losses of the list RCE-KD and RRD come close (CD at width 20 only), and
at width 20 RRD brings most for the tail. A second teacher, even a worse one, helps the tail much and the whole little.
Losses of the inside (hints, relations, topologies, attention, gradients) give a small student that is trained well
little or nothing; DE's experts at width 20 are the exception. At width 10 they lie below the student alone, but part
of that is their trials: beside the plain loss a term is tried at weight decays of 0.15 and 0.25, which suit width 20,
and the student alone chose 0.1 at width 10. A start from the teacher gains nothing by itself. Belief by agreement or
by a label gate costs nothing and helps where the teacher errs. The last column has
what validation chose, in the words of a recipe: losses, starts and trust stand under `student`, the others under
`student.train` or `student.settings`.
"""


def main() -> None:
    PAGE.write_text(page([read_json(path) for path in sorted(RESULTS.glob("*.json"))]), encoding="utf-8")


def page(documents: list[dict[str, Any]]) -> str:
    """The whole page; tests hold the committed one against it."""
    tables = [_methods(one) for one in documents if "teacher" in one]
    costs = [_costs(one) for one in documents if "costs" in one]
    wrong = [_wrong(one) for one in documents if "noise" in one]
    fusions = [_fusions(one) for one in documents if "fusions" in one]
    return "\n".join([HEAD, *tables, *fusions, *costs, *wrong])


def _methods(one: dict[str, Any]) -> str:
    teacher = one["teacher"]
    among = "" if one["candidates"] == "full" else f" among {one['candidates']} items"
    if (by := one.get("chosen_by", one["metric"])) != one["metric"]:
        among += f"; validation: {_name(by).lower()} of the whole catalog, soft labels of {one['top_k']} items"
    lines = [
        f"## {NAMES[one['set']]}: {STUDENTS[one['student']]}, width {one['width']}, taught by {teacher['name']}", "",
        f"{_name(one['metric'])}{among}. Teacher: validation {teacher['valid']:.4f}, test {teacher['test']:.4f} "
        f"(tail {teacher['tail']:.4f}), {teacher['parameters']:,} parameters; "
        f"its knowledge takes {one['store_bytes_per_user']:,.0f} bytes a user. {_origin(one)}", "",
        "| method | what it is | validation | test | ± | beside alone | tail | beside alone | chosen |",
        "| --- | --- | ---: | ---: | ---: | --- | ---: | --- | --- |",
    ]
    rows = sorted(one["rows"], key=lambda row: -np.mean(row["test"]))
    for row in rows:
        lines.append("| " + " | ".join([
            row["method"], row["meaning"], f"{np.mean(row['valid']):.4f}", f"{np.mean(row['test']):.4f}",
            f"{np.std(row['test'], ddof=1):.4f}", _beside(row, "all"), f"{np.mean(row['tail']):.4f}",
            _beside(row, "tail"), _chosen(row["settings"]),
        ]) + " |")
    waiting = [name for name in TRIALS[one["student"]] if name not in {row["method"] for row in rows}]
    if waiting:
        lines += ["", f"Not measured here yet: {'; '.join(waiting)}."]
    return "\n".join([*lines, ""])


def _chosen(settings: dict[str, Any]) -> str:
    """As YAML on one line, in the words of a recipe."""
    settings = {"layers" if name == "layers_from" else name: value for name, value in settings.items()}
    return f"`{yaml.safe_dump(settings, default_flow_style=True, sort_keys=False, width=10_000).strip()}`"


def _beside(row: dict[str, Any], group: str) -> str:
    found = row.get(f"beside_control_{group}")
    if found is None:
        return "–"
    low, high = found["interval"]
    return f"{found['difference']:+.4f} ({low:+.4f} to {high:+.4f})"


def _costs(one: dict[str, Any]) -> str:
    data = NAMES[one["set"]].split(",")[0]
    lines = [f"## What a step costs: {data}, {STUDENTS[one['student']]}, width {one['width']}", "",
             f"CPU time of a training step beside one of the plain loss, K = {one['top_k']}, medians of "
             f"{one['rounds']} rounds in which all took turns; largest memory of the process, {one['base_mb']:.0f} MB "
             f"of which are the library and the data. {_origin(one)}", "",
             "| method | ms | × plain | MB |", "| --- | ---: | ---: | ---: |"]
    lines += [f"| {row['method']} | {row['step_ms']:.1f} | {row['times_plain']:.2f} | {row['peak_mb']:.0f} |"
              for row in sorted(one["costs"], key=lambda row: row["times_plain"])]
    return "\n".join([*lines, ""])


def _fusions(one: dict[str, Any]) -> str:
    lines = [f"## Teacher and student together: {NAMES[one['set']]}", "",
             f"{_name(one['metric'])} on test, and what a single request costs on one core (median). The student is "
             f"that of the row kl above (width {one['width']}), served from its bundle; the teacher, "
             f"{one['teacher_name']}, is asked by torch. `cascade-50`: the student retrieves, the teacher re-ranks the "
             f"first 50. {_origin(one)}", "",
             "| model | test | ± | ms | CPU ms |", "| --- | ---: | ---: | ---: | ---: |"]
    lines += [f"| {row['model']} | {row['test']:.4f} | {row['std']:.4f} | {row['ms']:.2f} | {row['cpu_ms']:.2f} |"
              for row in one["fusions"]]
    return "\n".join([*lines, ""])


def _wrong(one: dict[str, Any]) -> str:
    lines = ["## A teacher that is wrong", "",
             f"Recall@50 on CiteULike; the lists of some users are shuffled, random, or those of one another. "
             f"{_origin(one)}", "",
             "| the teacher's answers | believed | student | control | difference | lower end, relative |",
             "| --- | --- | ---: | ---: | --- | ---: |"]
    for row in one["rows"]:
        low, high = row["interval"]
        lines.append(f"| {row['teacher']} | {row['believed']} | {row['student']:.4f} | {row['control']:.4f} | "
                     f"{row['difference']:+.4f} ({low:+.4f} to {high:+.4f}) | "
                     f"{100 * row['lower_end_relative']:+.1f} % |")
    return "\n".join([*lines, ""])


def _origin(one: dict[str, Any]) -> str:
    return (f"`{one['command']}`, {one['date']}, commit {one['commit']}, {one['hardware']}, "
            f"seeds {', '.join(map(str, one['seeds']))}.")


def _name(metric: str) -> str:
    return metric[0].upper() + metric[1:]


if __name__ == "__main__":
    main()
