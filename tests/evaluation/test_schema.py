"""The validator sees every fault at once, names its place, and lets nothing half right be written or read."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest

from distilrec.errors import DataError
from distilrec.evaluation.schema import read_report, validate_report, write_report


@pytest.fixture
def report(make_report) -> dict:
    return make_report()


def test_round_trip(report: dict, tmp_path: Path) -> None:
    path = write_report(report, tmp_path / "out" / "report.json")
    assert read_report(path) == report
    assert [p.name for p in path.parent.iterdir()] == ["report.json"], "no temporary file stays"


def faults_of(report: dict) -> str:
    with pytest.raises(DataError) as error:
        validate_report(report)
    return str(error.value)


@pytest.mark.parametrize(("place", "value", "expected"), [
    (["models", 0, "role"], "pupil", 'report.models[0].role is \'pupil\', expected "baseline" or'),
    (["models", 1, "parameters"], 1.5, "report.models[1].parameters is 1.5, expected a whole number or null"),
    (["models", 1, "parameters"], True, "report.models[1].parameters is True"),
    (["models", 0, "metrics", "test", "ndcg@10", "mean"], float("nan"), "mean is nan, expected a finite number"),
    (["models", 0, "metrics", "test", "NDCG 10"], {}, "key 'NDCG 10', expected a metric name"),
    (["models", 0, "latency_ms"], {"p50": 1.0}, "report.models[0].latency_ms.p99 is missing"),
    (["models", 0, "verdict"], "maybe", "report.models[0].verdict is 'maybe'"),
    (["models", 0, "verdict"], ["distill"], "report.models[0].verdict is ['distill']"),
    (["models", 0, "paramters"], 3, "unknown key 'paramters', did you mean 'parameters'?"),
    (["protocol", "selection"], "test", "report.protocol.selection is 'test', expected \"validation\""),
    (["protocol", "seeds"], "0", "report.protocol.seeds is '0', expected a list"),
    (["schema"], 2, "report.schema is 2, expected 1"),
    (["lineage"], None, "report.lineage is None, expected an object"),
    (["comparisons", 0, "a"], "ghost", "report.comparisons[0].a is 'ghost', which is no model"),
    (["comparisons", 0, "interval"], [0.2, 0.1], "interval is [0.2, 0.1], expected [low, high]"),
    (["comparisons", 0, "p_value"], 1.5, "p_value is 1.5, expected 0 to 1"),
    (["models", 1, "name"], "big", "2 models named 'big'"),
    (["metric"], "mrr@10", "lacks the main metric 'mrr@10'"),
])
def test_each_fault_names_its_place(report: dict, place: list, value: object, expected: str) -> None:
    broken = copy.deepcopy(report)
    target = broken
    for step in place[:-1]:
        target = target[step]
    target[place[-1]] = value
    assert expected in faults_of(broken)


def test_all_faults_at_once(report: dict) -> None:
    del report["dataset"]["digest"], report["models"][2]["groups"]
    report["protocol"]["k"] = ["10"]
    text = faults_of(report)
    assert "3 fault(s)" in text
    assert "report.dataset.digest is missing" in text and "report.models[2].groups is missing" in text
    assert "report.protocol.k[0] is '10'" in text


def test_nothing_faulty_is_written(report: dict, tmp_path: Path) -> None:
    report["models"][0]["role"] = "pupil"
    with pytest.raises(DataError):
        write_report(report, tmp_path / "report.json")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("content", "expected"), [
    ('{"schema": 2}', "has schema 2"), ("[]", "has schema None"), ("{", "is not JSON"), (b"\xff\xfe{}", "is not JSON"),
    (json.dumps({"schema": 1}), "fault"),
])
def test_unreadable_files(tmp_path: Path, content: str | bytes, expected: str) -> None:
    path = tmp_path / "report.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=expected):
        read_report(path)
    with pytest.raises(DataError, match="no report at"):
        read_report(tmp_path / "other.json")


def test_a_report_of_rows_has_no_candidates_and_its_own_entries(report: dict) -> None:
    for key in ("candidates", "k", "seen"):
        del report["protocol"][key]
    assert "report.protocol.candidates is missing" in faults_of(report), "a ranking must say what was ranked"
    report["task"] = "predict"
    validate_report(report)
    model = report["models"][0]
    bins = [{"prediction": 0.2, "label": 0.25, "rows": 40}]
    model |= {"calibration": {"click": bins}, "thresholds": {"click": [0.3]}}
    model["metrics"]["test"]["Long view.log_loss"] = {"mean": None, "std": None, "per_seed": [None], "interval": [0, 1]}
    model["latency_ms"]["of_100"] = {"p50": 1.0, "p99": 2.0, "cpu_p50": 1.0, "cpu_p99": 2.0}
    report |= {"notes": ["one"]}
    report["comparisons"][0] |= {"gain": 0.01, "gain_interval": [0.0, 0.02]}
    validate_report(report)
    bins[0]["rows"], report["notes"] = 1.5, "one"
    assert "calibration.click[0].rows is 1.5" in faults_of(report) and "report.notes is 'one'" in faults_of(report)
