"""A whole contest on a made table: every number of the report is found again, whatever answered."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pytest

import rows_world
from distilrec.errors import DataError
from distilrec.evaluation.pointwise import choose_thresholds, evaluate_rows, probability
from distilrec.evaluation.row_contest import RowContestant, row_contest
from distilrec.evaluation.row_slices import slices_of
from distilrec.evaluation.schema import read_report
from distilrec.types_rows import Head, RowSplit

pytest_plugins = ["row_bundle_world"]  # row_bundle, row_split: not in conftest.py, which must not load torch


class Noisy:
    """The labels themselves, in logits, under noise: how good it is is known."""

    def __init__(self, noise: float, seed: int = 0, parameters: int = 100) -> None:
        self.name, self.parameters, self.noise, self.seed = f"noise-{noise}", parameters, noise, seed
        self.asked: list[int] = []

    def predict(self, split: RowSplit, rows: np.ndarray) -> np.ndarray:
        self.asked.append(len(rows))
        labels = np.nan_to_num(split.label_matrix(np.arange(len(split))), nan=0.5)
        noise = np.random.default_rng(self.seed).normal(0, self.noise, labels.shape)
        return (2 * labels - 1 + noise)[rows].astype(np.float32)


def contestants(seeds: Sequence[int] = (0, 1)) -> list[RowContestant]:
    def trained(noise: float, size: int) -> list[Noisy]:
        return [Noisy(noise, seed, size) for seed in seeds]
    curve = [{"seed": 0, "step": 10 * i, "seconds": float(i), "loss": 0.5, "valid": 0.6 + 0.1 * i} for i in (1, 2)]
    return [
        RowContestant("big", "teacher", trained(0.8, 9000), train_seconds=20.0),
        RowContestant("small", "student", trained(1.1, 300), train_seconds=3.0, curves=curve),
        RowContestant("alone", "control", trained(2.0, 300)),
        RowContestant("base", "baseline", [Noisy(9.0, 5, 1)]),
    ]


@pytest.fixture(scope="module")
def split() -> RowSplit:
    return rows_world.table(1200)


@pytest.fixture(scope="module")
def report(split: RowSplit):
    return row_contest(contestants(), split, metric="click.auc", seeds=(0, 1), slices=("colors", "price", "item"),
                       resamples=300, recipe={"name": "made"})


def entry(report, name: str) -> dict:
    return next(model for model in report["models"] if model["name"] == name)


def test_numbers_are_those_of_evaluate_rows(report, split: RowSplit) -> None:
    valid, test = split.rows("valid"), split.rows("test")
    small = entry(report, "small")
    for seed in (0, 1):
        model = Noisy(1.1, seed)
        cuts = choose_thresholds(model.predict(split, valid), split.label_matrix(valid), split.heads)
        labels, groups = split.label_matrix(test), split.groups[test]
        truth = evaluate_rows(model.predict(split, test), labels, groups, split.heads, cuts)
        own = {name: stats["per_seed"][seed] for name, stats in small["metrics"]["test"].items()}
        assert own == pytest.approx(truth)
        inside = np.array(["red" in one for one in split.raw.column("colors").take(pa.array(test)).to_pylist()])
        part = evaluate_rows(model.predict(split, test[inside]), split.label_matrix(test[inside]),
                             split.groups[test[inside]], split.heads, cuts)
        in_slice = small["groups"]["colors=red"]
        assert in_slice["rating.rmse"]["per_seed"][seed] == pytest.approx(part["rating.rmse"])
    assert report["dataset"]["slices"]["colors=red"] == inside.sum()
    low, high = small["metrics"]["test"]["click.auc"]["interval"]
    assert low < small["metrics"]["test"]["click.auc"]["mean"] < high
    assert len(entry(report, "base")["metrics"]["test"]["click.auc"]["per_seed"]) == 2, "it stands for both seeds"
    assert small["compression_ratio"] == 30.0 and small["bytes"] is None and small["latency_ms"] is None
    assert 0 < small["thresholds"]["click"][0] < 1 and len(small["thresholds"]["tags"]) == 2


def test_verdict_and_comparisons_of_every_kind(report) -> None:
    assert report.verdict == "distill"
    small = entry(report, "small")
    assert small["control"] == "alone" and 0 < small["gap_closed"] < 1
    names = set(small["metrics"]["test"])
    for pair in (("small", "alone"), ("small", "big"), ("big", "alone")):
        assert {c["metric"] for c in report["comparisons"] if (c["a"], c["b"]) == pair} == names, pair
    found = {c["metric"]: c for c in report["comparisons"] if (c["a"], c["b"]) == ("small", "alone")}
    auc, loss = found["click.auc"], found["click.log_loss"]
    control = entry(report, "alone")["metrics"]["test"]["click.auc"]["mean"]
    assert auc["gain"] == pytest.approx(auc["difference"] / (control - 0.5))
    assert loss["difference"] < 0 < loss["gain"] and loss["gain_interval"][0] > 0
    assert "gain" not in found["tags.micro_f1"]
    assert auc["test"] == "paired bootstrap over groups, 300 resamples"


def test_facts_curves_and_notes(report, split: RowSplit) -> None:
    dataset = report["dataset"]
    test = split.rows("test")
    assert (dataset["interactions"], dataset["items"], dataset["unit"]) == (1200, 0, "groups")
    assert dataset["heads"]["click"]["base_rate"] == pytest.approx(split.labels["click"][test].mean())
    assert dataset["heads"]["rating"]["observed"] == (~np.isnan(split.labels["rating"][test])).sum()
    assert list(dataset["heads"]["tags"]["classes"]) == ["new", "cheap"]
    curve = entry(report, "small")["calibration"]["click"]
    assert sum(one["rows"] for one in curve) == pytest.approx(len(test), abs=15)
    model = [Noisy(1.1, seed).predict(split, test)[:, 0] for seed in (0, 1)]
    mean = np.average([one["prediction"] for one in curve], weights=[one["rows"] for one in curve])
    assert mean == pytest.approx(probability(np.stack(model)).mean(), abs=0.01)
    assert {"tags: new", "tags: cheap", "price=(missing)", "item=(unknown)"} <= set(entry(report, "big")["groups"])
    assert entry(report, "big")["groups"]["tags: new"]["tags.f1"]["mean"] > 0.5


def test_report_is_written_read_and_reads_the_test_part_once(report, split: RowSplit, tmp_path) -> None:
    files = report.save(tmp_path)
    assert read_report(files["report"]) == report.document
    model = Noisy(1.0)
    row_contest([RowContestant("m", "student", [model])], split, metric="rating.rmse", resamples=20)
    assert model.asked == [split.n_rows("valid"), split.n_rows("test")]


def test_a_loss_as_main_metric_chooses_the_lowest_teacher_and_control(split: RowSplit) -> None:
    models = [*contestants(), RowContestant("worse", "control", [Noisy(4.0)])]
    found = row_contest(models, split, metric="click.log_loss", seeds=(0, 1), resamples=200)
    assert entry(found, "small")["control"] == "alone" and found.verdict == "distill"
    assert 0 < entry(found, "small")["gap_closed"] < 1


def test_one_class_gives_notes_and_no_verdict() -> None:
    split = rows_world.table(400, heads=(Head("click"),))
    split.labels["click"][split.rows("test")] = 0.0
    found = row_contest(contestants(), split, metric="auc", seeds=(0, 1), resamples=50)
    measured = entry(found, "small")["metrics"]["test"]
    assert found.verdict is None and measured["auc"]["mean"] is None
    assert "log_loss" in measured and "gauc" not in measured
    assert any("auc, gauc, uauc, normalized_entropy" in note for note in found["notes"])
    assert "leave out" in " ".join(found["notes"])
    split.labels["click"][:] = np.nan
    assert row_contest(contestants(), split, metric="auc", seeds=(0, 1), resamples=50).verdict is None


def test_no_validation_rows_and_no_groups() -> None:
    whole = rows_world.table(400, heads=(Head("tags", "tags", ("new", "cheap")),))
    split = RowSplit(whole.name, "given", whole.features, whole.columns, whole.heads, whole.labels,
                     np.where(whole.parts == 1, 0, whole.parts).astype(np.int8), whole.raw)
    found = row_contest(contestants(), split, metric="micro_f1", seeds=(0, 1), resamples=200)
    assert found["task"] == "tag" and found["protocol"]["k"] == [1, 3, 5]
    assert found["comparisons"][0]["test"] == "paired bootstrap over rows, 200 resamples"
    assert found["comparisons"][0]["n"] == split.n_rows("test")
    assert entry(found, "small")["thresholds"] == {"tags": [0.5]}
    assert any("no validation rows" in note for note in found["notes"])


def test_slices(split: RowSplit) -> None:
    rows = split.rows("test")
    found = slices_of(split, rows, ["colors", "price", "item", "user"])
    raw = split.raw.column("item").take(pa.array(rows)).to_pylist()
    assert found["item=(unknown)"].tolist() == [one == "i8" for one in raw]
    assert sum(name.startswith("item=") for name in found) == 9, "the 8 most frequent, and the unknown ones"
    quarters = [inside for name, inside in found.items() if name.startswith("price=")]
    assert len(quarters) == 5 and (np.sum(quarters, axis=0) == 1).all(), "every row is in one quarter, or missing"
    assert "group=(new)" not in found, "every group of this table has train rows, or none has"
    with pytest.raises(DataError, match="slice 'pricee' is no column, did you mean 'price'"):
        slices_of(split, rows, ["pricee"])


def test_refusals(split: RowSplit) -> None:
    with pytest.raises(DataError, match=r"main metric 'click\.acu', did you mean 'click\.auc'"):
        row_contest(contestants(), split, metric="click.acu", seeds=(0, 1))
    with pytest.raises(DataError, match="calibration_ratio"):
        row_contest(contestants(), split, metric="click.calibration_ratio", seeds=(0, 1))
    with pytest.raises(DataError, match="'big' has 2 instances"):
        row_contest(contestants(), split, metric="click.auc", seeds=(0, 1, 2))
    broken = Noisy(1.0)
    broken.predict = lambda split, rows: np.full((len(rows), 5), np.inf, np.float32)  # type: ignore[method-assign]
    with pytest.raises(DataError, match="'broken': prediction inf in row 0"):
        row_contest([RowContestant("broken", "student", [broken])], split, metric="click.auc")


def test_bundles_are_measured_themselves(row_bundle, row_split: RowSplit) -> None:
    """By their own scores, size and answers to raw rows; rows without a required field cannot be asked."""
    found = row_contest([RowContestant("s", "student", [row_bundle])], row_split, metric="click.log_loss",
                        resamples=20, requests=30)
    rows = row_split.rows("test")
    truth = evaluate_rows(row_bundle.scores({name: column[rows] for name, column in row_split.columns.items()}),
                          row_split.label_matrix(rows), row_split.groups[rows], row_split.heads)
    own = entry(found, "s")
    assert own["metrics"]["test"]["click.log_loss"]["mean"] == pytest.approx(truth["click.log_loss"])
    assert own["parameters"] == row_bundle.parameters and own["bytes"] > row_bundle.bytes
    one, hundred = own["latency_ms"], own["latency_ms"]["of_100"]
    assert 0 < one["p50"] <= one["p99"] and one["p50"] < hundred["p50"] <= hundred["p99"]
    assert not any("latency" in note for note in found["notes"])
    other = rows_world.table(300, heads=rows_world.HEADS[:2])
    with pytest.raises(DataError, match="bundle of 's' has other heads than the table"):
        row_contest([RowContestant("s", "student", [row_bundle])], other, metric="click.auc")


def test_a_bundle_that_refuses_the_rows_leaves_a_note(row_bundle, row_split: RowSplit) -> None:
    split = rows_world.table(300)
    split = dataclasses.replace(split, raw=split.raw.set_column(
        split.raw.column_names.index("price"), "price", pa.array(["cheap"] * 300)))
    found = row_contest([RowContestant("s", "student", [row_bundle])], split, metric="click.auc", resamples=20)
    assert entry(found, "s")["latency_ms"] is None
    assert any("latency of s was not measured" in note and "'cheap'" in note for note in found["notes"])


def test_rows_of_a_report_count_by_their_weight(split: RowSplit) -> None:
    weights = np.random.default_rng(1).integers(1, 10, len(split)).astype(np.float32)
    weighted = dataclasses.replace(split, weights=weights)
    one = RowContestant("small", "student", [Noisy(1.1)])
    report = row_contest([one], weighted, metric="click.log_loss", slices=("colors",), resamples=50)
    without = "click.gauc, click.uauc, buy.gauc, buy.uauc"
    assert report["protocol"]["weights"] == f"rows count by their weight, but for {without}"
    valid, test = split.rows("valid"), split.rows("test")
    model, labels = Noisy(1.1), split.label_matrix(test)
    cuts = choose_thresholds(model.predict(split, valid), split.label_matrix(valid), split.heads,
                             weights=weights[valid])
    truth = evaluate_rows(model.predict(split, test), labels, split.groups[test], split.heads, cuts,
                          weights=weights[test])
    told = entry(report, "small")
    assert {name: stats["mean"] for name, stats in told["metrics"]["test"].items()} == pytest.approx(truth)
    for name, stats in told["metrics"]["test"].items():
        if stats.get("interval") and name.endswith(("log_loss", "calibration_error", "rmse")):
            assert stats["interval"][0] <= stats["mean"] <= stats["interval"][1], name
    heads = report["dataset"]["heads"]
    assert heads["click"]["base_rate"] == pytest.approx(np.average(labels[:, 0], weights=weights[test]))
    assert heads["tags"]["classes"]["cheap"] == pytest.approx(np.average(labels[:, 4], weights=weights[test]))
    inside = np.array(["red" in c for c in split.raw.column("colors").take(pa.array(test)).to_pylist()])
    part = evaluate_rows(model.predict(split, test[inside]), labels[inside], split.groups[test[inside]], split.heads,
                         cuts, weights=weights[test[inside]])
    assert told["groups"]["colors=red"]["rating.rmse"]["mean"] == pytest.approx(part["rating.rmse"])
    plain = row_contest([one], split, metric="click.log_loss", resamples=50)
    assert "weights" not in plain["protocol"]
