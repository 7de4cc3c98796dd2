"""The script that writes measured results into the README and the docs."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import rows_world
from distilrec.api_rows import fit_row_baseline
from distilrec.errors import DataError
from distilrec.evaluation import words
from distilrec.evaluation.contest import Contestant, Report, contest
from distilrec.evaluation.row_contest import RowContestant, row_contest
from distilrec.models.base_rate import BaseRate
from distilrec.models.item_knn import ItemKNN
from distilrec.models.popularity import Popularity
from distilrec.teachers.row_ensemble import RowEnsemble
from distilrec.types import Split
from distilrec.types_rows import Head

RUN = {"command": "distilrec run tiny", "date": "2026-01-02", "commit": "0123456789abcdef", "hardware": "2 cores",
       "seeds": [0, 1], "recipe": "tiny"}


@pytest.fixture(scope="module")
def script() -> ModuleType:
    path = Path(__file__).resolve().parents[2] / "benchmarks" / "results_table.py"
    spec = importlib.util.spec_from_file_location("results_table_under_test", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def report(tiny_split: Callable[..., Split]) -> Report:
    """A small run with rankers that need no training: what they are called is all that matters here."""
    split = tiny_split(users=30, items=12, events=6)
    return contest(
        [Contestant("teacher", "teacher", [ItemKNN.fit(split)]),
         Contestant("student", "student", [ItemKNN.fit(split, decay=0.5), ItemKNN.fit(split, decay=0.9)]),
         Contestant("control", "control", [Popularity.fit(split)])],
        split, seeds=[0, 1],
    )


def write(folder: Path, report: Report, **changes: Any) -> None:
    folder.mkdir(parents=True)
    (folder / "report.json").write_text(json.dumps(report.document), encoding="utf-8")
    (folder / "run.json").write_text(json.dumps(RUN | changes), encoding="utf-8")


def test_without_results_it_says_so(script: ModuleType, tmp_path: Path) -> None:
    assert script.render(tmp_path / "nothing") == "No benchmark has been run yet."


def test_a_result_shows_every_model_the_verdict_and_where_it_comes_from(
    script: ModuleType, tmp_path: Path, report: Report
) -> None:
    write(tmp_path / "tiny", report)
    text = script.render(tmp_path)
    means = {}
    for model in report["models"]:
        value = model["metrics"]["test"]["ndcg@10"]
        means[model["name"]] = value["mean"]
        shown = f"{value['mean']:.4f} ± {value['std']:.4f} | {model['parameters']:,}"
        assert f"| {model['name']} | {model['role']} | {shown} |" in text
    gain = means["student"] - means["control"]
    assert f"student − control = {'+' if gain > 0 else '−'}{abs(gain):.4f} " in text
    assert f"{100 * means['student'] / means['teacher']:.1f}% of the teacher" in text
    assert "`distilrec run tiny`, 2026-01-02, commit 0123456789ab, 2 cores." in text
    assert "30 users, 12 items, 180 interactions; leave-last-out, full ranking, 2 seeds." in text


def test_a_result_of_rows_shows_the_members_of_the_teacher_and_how_well_it_is_calibrated(
    script: ModuleType, tmp_path: Path
) -> None:
    split = rows_world.table(600, heads=(Head("click"),))
    members: list[Any] = [BaseRate.fit(split), fit_row_baseline("logistic", split)]
    whole = RowEnsemble(members, name="teacher")
    models = [("teacher", "teacher", whole), ("member 1: base", "member", members[0]),
              ("student", "student", members[1]), ("control", "control", members[0])]
    report = row_contest([RowContestant(name, role, [one] * 2) for name, role, one in models], split, metric="auc",
                         seeds=[0, 1], resamples=50)
    write(tmp_path / "tiny", report)
    text = script.render(tmp_path)
    assert "| model | role | AUC | GAUC | UAUC | log loss ↓ | calibration error ↓ | parameters | size | p50 |" in text
    test = report["models"][1]["metrics"]["test"]
    assert f"| member 1: base | member | 0.5000 ± 0.0000 | {test['gauc']['mean']:.4f}" in text
    assert f"600 rows, {report['dataset']['users']} groups; {split.method}, 2 seeds." in text
    gain = report["models"][0]["metrics"]["test"]["auc"]["mean"] - 0.5
    assert f"AUC teacher − member 1: base {words.human_signed(gain)} (" in text
    assert "calibration error student − teacher " in text
    assert "of the teacher above guessing" in text
    assert "users" not in text


def test_the_front_page_gets_one_line_a_run(script: ModuleType, tmp_path: Path) -> None:
    assert script.summary(tmp_path / "nothing") == "No benchmark has been run yet."
    lines = script.summary(Path(__file__).parents[2] / "benchmarks" / "results").splitlines()
    assert lines[0].startswith("| run | metric | teacher | student | control |")
    beauty = next(line for line in lines if line.startswith("| amazon-beauty"))
    assert "3 seeds" in beauty
    assert beauty.endswith("| distill |")
    assert all(line.count("|") == lines[0].count("|") for line in lines)


def test_only_what_stands_between_the_markers_is_replaced(script: ModuleType) -> None:
    text = f"before\n{script.BEGIN}\nold\n{script.END}\nafter\n"
    once = script.replaced(text, "new", Path("page"))
    assert once == f"before\n{script.BEGIN}\nnew\n{script.END}\nafter\n"
    assert script.replaced(once, "new", Path("page")) == once


@pytest.mark.parametrize("text", ["no marker", "{BEGIN}", "{END}{BEGIN}", "{BEGIN}{END}{BEGIN}"])
def test_a_page_without_both_markers_in_order_is_refused(script: ModuleType, text: str) -> None:
    with pytest.raises(DataError, match="once each"):
        script.replaced(text.format(BEGIN=script.BEGIN, END=script.END), "new", Path("page"))


@pytest.mark.parametrize(("changes", "message"), [({"seeds": [0]}, r"seeds \[0\]"), ({"commit": 7}, "commit"),
                                                  ({"hardware": None}, "hardware")])
def test_a_result_that_does_not_say_how_it_was_made_is_refused(
    script: ModuleType, tmp_path: Path, report: Report, changes: dict[str, Any], message: str
) -> None:
    write(tmp_path / "tiny", report, **changes)
    with pytest.raises(DataError, match=message):
        script.render(tmp_path)


def test_a_report_without_its_run_is_refused(script: ModuleType, tmp_path: Path, report: Report) -> None:
    write(tmp_path / "tiny", report)
    (tmp_path / "tiny" / "run.json").unlink()
    with pytest.raises(DataError, match=r"run\.json is missing"):
        script.render(tmp_path)
