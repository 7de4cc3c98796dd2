"""A report from arrays to file: numbers, comparisons, rules, and what is refused."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from distilrec.errors import DataError
from distilrec.evaluation.metrics import evaluate_groups, evaluate_lists
from distilrec.evaluation.rank import recommend
from distilrec.evaluation.report import build_report, dataset_facts, measure
from distilrec.evaluation.schema import read_report
from distilrec.evaluation.significance import compare


def entry(report: dict, name: str) -> dict:
    return next(model for model in report["models"] if model["name"] == name)


def test_numbers_and_rules(make_report, make_models) -> None:
    models = make_models()
    report = make_report(models)
    teacher, student, control = models[:3]
    stats = entry(report, "small")["metrics"]["test"]["ndcg@10"]
    per_seed = student.test["ndcg@10"].mean(axis=1)
    assert stats["per_seed"] == pytest.approx(per_seed)
    assert stats["mean"] == pytest.approx(per_seed.mean())
    assert stats["std"] == pytest.approx(abs(per_seed[1] - per_seed[0]) / 2**0.5)
    assert entry(report, "popular")["metrics"]["test"]["ndcg@10"]["std"] is None, "one seed has no spread"
    s, c, t = (m.test["ndcg@10"].mean() for m in (student, control, teacher))
    assert entry(report, "small")["gap_closed"] == pytest.approx((s - c) / (t - c))
    assert entry(report, "small")["verdict"] == "distill"
    assert entry(report, "small")["control"] == "alone"
    assert entry(report, "small")["compression_ratio"] == 10.0
    assert entry(report, "small")["metrics"]["valid"]["ndcg@10"]["mean"] == 0.36
    assert entry(report, "small")["metrics"]["test"]["coverage@10"]["mean"] == 0.4
    assert len(entry(report, "small")["curves"]) == 6
    tail = entry(report, "small")["groups"]["tail"]["ndcg@10"]["mean"]
    # users without tail targets are left out
    assert tail == pytest.approx(student.test["ndcg@10"][:, ::5].mean())
    for name in ("big", "alone", "popular"):
        assert entry(report, name)["verdict"] is None and entry(report, name)["gap_closed"] is None


def test_comparisons_and_their_order(make_report, make_models) -> None:
    models = make_models()
    report = make_report(models)
    pairs = [(c["a"], c["b"], c["metric"]) for c in report["comparisons"]]
    assert pairs == [
        ("small", "alone", "ndcg@10"), ("small", "alone", "recall@10"), ("small", "big", "ndcg@10"),
        ("big", "alone", "ndcg@10"), ("small", "popular", "ndcg@10"),
    ]
    first = report["comparisons"][0]
    expected = compare(models[1].test["ndcg@10"], models[2].test["ndcg@10"], resamples=500)
    assert first["difference"] == expected.difference and first["interval"] == list(expected.interval)
    assert first["relative"] == expected.relative and first["n"] == 400
    more = make_report(models, metrics=["recall@10"])["comparisons"]
    assert [(c["a"], c["b"]) for c in more if c["metric"] == "recall@10"] == [
        ("small", "alone"), ("small", "big"), ("big", "alone"), ("small", "popular")]


def test_no_gap_when_the_teacher_does_not_lead(make_report, make_models) -> None:
    models = make_models()
    models[0] = dataclasses.replace(models[0], test=models[2].test)  # a teacher exactly as good as the control
    student = entry(make_report(models), "small")
    assert student["gap_closed"] is None and student["verdict"] == "distill"


def test_strongest_control_on_validation_decides(make_report, make_models) -> None:
    models = make_models()
    strong = dataclasses.replace(models[2], name="strong", valid={"ndcg@10": [0.9, 0.9]}, test=models[1].test)
    student = entry(make_report([*models, strong]), "small")
    assert (student["control"], student["verdict"]) == ("strong", "do not distill")
    models[1] = dataclasses.replace(models[1], control="alone")
    assert entry(make_report([*models, strong]), "small")["verdict"] == "distill"
    models[1] = dataclasses.replace(models[1], control="other")
    with pytest.raises(DataError, match="names control 'other'"):
        make_report([*models, strong])


def test_without_control_there_is_no_verdict(make_report, make_models) -> None:
    report = make_report([m for m in make_models() if m.role != "control"])
    assert entry(report, "small")["verdict"] is None and entry(report, "small")["gap_closed"] is None


def test_refuses_unequal_users_roles_and_metrics(make_report, make_models) -> None:
    models = make_models()
    with pytest.raises(DataError, match="different users: 'big' on 400, 'small' on 399"):
        cut = {name: values[:, 1:] for name, values in models[1].test.items()}
        make_report([models[0], dataclasses.replace(models[1], test=cut)])
    with pytest.raises(DataError, match="role 'pupil'"):
        make_report([dataclasses.replace(models[0], role="pupil")])
    with pytest.raises(DataError, match="not measured by 'ndcg@20'"):
        make_report(models, metric="ndcg@20")


def test_from_rankers_to_file(make_random_split, table_ranker, tmp_path: Path) -> None:
    """The whole way on a small world; every number of the file is found again by hand."""
    split = make_random_split(80, 60, seed=2)
    rng = np.random.default_rng(0)
    roles = {"big": "teacher", "small": "student", "alone": "control"}
    tables = {name: rng.random((2, 80, 60)).astype(np.float32) for name in roles}
    lists = {name: [recommend(table_ranker(one), split, "test", 20) for one in tables[name]] for name in roles}
    valid = {"ndcg@10": [0.1, 0.2]}
    models = [measure(name, roles[name], lists[name], split, parameters=100, valid=valid) for name in lists]
    report = build_report(
        task="rank", recipe=None, dataset=dataset_facts(split), models=models, metric="ndcg@10", lineage={},
        protocol={"split": split.method, "candidates": "full", "selection": "validation", "seeds": [0, 1],
                  "k": [10, 20], "seen": "drop"},
    )
    path = tmp_path / "report.json"
    path.write_text(json.dumps(report))
    again = read_report(path)
    assert again == report and again["dataset"]["interactions"] == len(split.items)
    values = evaluate_lists(lists["small"][1], split, "test")
    for metric, each in values.items():
        assert entry(again, "small")["metrics"]["test"][metric]["per_seed"][1] == pytest.approx(each.mean())
    groups = evaluate_groups(lists["small"][0], split, "test")
    assert entry(again, "small")["groups"]["tail"]["recall@20"]["per_seed"][0] == pytest.approx(
        np.nanmean(groups["tail"]["recall@20"]))
    assert {"coverage@10", "novelty@10", "diversity@10", "gini@20"} <= set(entry(again, "small")["metrics"]["test"])
    with pytest.raises(DataError, match="no recommendations"):
        measure("none", "student", [], split)
