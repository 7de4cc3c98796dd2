"""Statistics over folds: equal to measuring the drawn units again, and no surer than folds that share data allow."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from distilrec.errors import DataError
from distilrec.evaluation import folds
from distilrec.evaluation.folds import Asked
from distilrec.evaluation.pointwise import evaluate_rows, row_statistics
from distilrec.types_rows import Head

HEADS = [Head("click"), Head("rating", "number")]


def told(seed: int, n: int = 60, users: int = 12) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(predictions [n, 2], labels, users); the last user has no row in an even fold."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(n, 2)).round(1).astype(np.float32)
    y = np.stack([rng.random(n) < 0.5, z[:, 1] + rng.normal(size=n)], axis=1).astype(np.float32)
    return z, y, rng.integers(0, users - (seed % 2 == 0), n)


def asked(z: np.ndarray, y: np.ndarray, units: np.ndarray) -> Asked:
    found = row_statistics(z, y, None, HEADS)
    return Asked({name: found[name] for name in ("click.auc", "click.log_loss", "rating.rmse")}, units)


def report(values: dict[str, float | None], parts: tuple[int, int, int] = (80, 10, 20), **other: Any) -> dict[str, Any]:
    """What is read of the report of a fold: models by name with their RMSE."""
    models = [{"name": name, "role": name, "parameters": 3, "bytes": None,
               "metrics": {"test": {"rmse": {"mean": value, "std": None, "per_seed": [value]}}}}
              for name, value in values.items()]
    return {"task": "predict", "metric": "rmse", "models": models, "protocol": {"seeds": [0]},
            "dataset": {"name": "made", "interactions": 110, "users": 9, "items": 0,
                        "parts": dict(zip(("train", "valid", "test"), parts, strict=True))},
            "comparisons": [{"a": "student", "b": "control", "metric": "rmse"}], **other}


def document(reports: list[dict[str, Any]]) -> dict[str, Any]:
    return folds.folds_document(reports, {}, recipe="r", protocol={"unit": "rows"}, lineage={})


def test_without_shared_training_rows_it_is_the_plain_t_test() -> None:
    d = [0.3, -0.1, 0.2, 0.25]
    (low, high), p = folds.corrected_t(d, 0.0)
    plain = stats.ttest_1samp(d, 0.0)
    assert p == pytest.approx(plain.pvalue)
    assert (low, high) == pytest.approx(tuple(plain.confidence_interval(0.95)))


def test_five_folds_count_like_two_independent_ones() -> None:
    # 1/5 + 1/4 instead of 1/5: an interval 1.5 times as wide
    d = [0.1, 0.2, 0.3, 0.2, 0.2]
    wide, plain = (np.ptp(folds.corrected_t(d, ratio)[0]) for ratio in (0.25, 0.0))
    assert wide / plain == pytest.approx(1.5)


def test_folds_that_agree_to_the_last_digit() -> None:
    assert folds.corrected_t([0.5, 0.5], 0.25) == ((0.5, 0.5), 0.0)
    assert folds.corrected_t([0.0, 0.0], 0.25) == ((0.0, 0.0), 1.0)
    with pytest.raises(DataError, match="at least two"):
        folds.corrected_t([0.5], 0.25)


def test_a_draw_is_the_mean_over_folds_of_the_metric_of_the_drawn_users() -> None:
    parts = [told(0), told(1)]
    samples = folds.fold_samples({"m": [[asked(*one)] for one in parts]}, unit="groups", resamples=6, seed=4)["m"]
    rng = np.random.default_rng(4)
    for r in range(6):
        drawn = rng.integers(0, 12, 12, dtype=np.int32)
        again = []
        for z, y, users in parts:
            rows = np.concatenate([np.flatnonzero(users == u) for u in drawn])
            again.append(evaluate_rows(z[rows], y[rows], None, HEADS))
        for name, one in samples.items():
            assert one.draws[r] == pytest.approx(np.mean([fold[name] for fold in again])), name
    whole = [evaluate_rows(z, y, None, HEADS) for z, y, _ in parts]
    assert samples["rating.rmse"].value == pytest.approx(np.mean([fold["rating.rmse"] for fold in whole]))
    assert samples["click.auc"].n == 12


def test_seeds_are_averaged_and_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    one, other = asked(*told(0)), asked(*told(2))
    whole = folds.fold_samples({"m": [[one, other], [one]]}, unit="rows", resamples=20)["m"]["rating.rmse"]
    first, second = (folds.fold_samples({"m": [[x]]}, unit="rows", resamples=20)["m"]["rating.rmse"].value
                     for x in (one, other))
    assert whole.value == pytest.approx(((first + second) / 2 + first) / 2)
    monkeypatch.setattr(folds, "_CHUNK", 130)
    small = folds.fold_samples({"m": [[one, other], [one]]}, unit="rows", resamples=20)["m"]["rating.rmse"]
    assert np.allclose(whole.draws, small.draws)


def test_models_are_asked_about_the_same_draws() -> None:
    z, y, users = told(3)
    models = {"a": [[asked(z, y, users)]], "b": [[asked(z, y, users)]]}
    samples = folds.fold_samples(models, unit="groups", resamples=50)
    assert np.array_equal(samples["a"]["click.auc"].draws, samples["b"]["click.auc"].draws)
    with pytest.raises(DataError, match="no rows"):
        folds.fold_samples({"a": [[asked(z[:0], y[:0], users[:0])]]}, unit="rows")


def test_the_document_by_hand(tmp_path: Path) -> None:
    made = document([report({"student": 0.9, "control": 1.0}), report({"student": 1.0, "control": 1.2})])
    student, (difference,) = made["models"][0]["metrics"]["rmse"], made["comparisons"]
    assert (student["mean"], student["std"]) == (pytest.approx(0.95), pytest.approx(np.sqrt(0.005)))
    assert difference["difference"] == pytest.approx(-0.15)
    assert difference["per_fold"] == pytest.approx([-0.1, -0.2])
    assert difference["of_units"] is None
    assert tuple(difference["of_training"]["interval"]) == pytest.approx(folds.corrected_t([-0.1, -0.2], 0.25)[0])
    assert made["protocol"]["test_rows_per_train_row"] == 0.25
    assert folds.read_folds(folds.write_folds(made, tmp_path / "crossval.json")) == made


def test_a_metric_that_one_fold_does_not_define() -> None:
    made = document([report({"student": 0.9, "control": 1.0}), report({"student": None, "control": 1.2})])
    assert made["models"][0]["metrics"]["rmse"] == {"mean": None, "std": None, "per_fold": [0.9, None]}
    assert made["comparisons"] == []


def test_folds_of_other_models_are_refused() -> None:
    with pytest.raises(DataError, match="fold 1 measured student by rmse"):
        document([report({"student": 0.9, "control": 1.0}), report({"student": 1.0})])


@pytest.mark.parametrize(("place", "value", "seen"), [
    ("folds", 1, "folds"), ("schema", 2, "schema"), ("metric", None, "metric"), ("extra", 1, "extra"),
])
def test_faults_of_a_document_are_named(place: str, value: Any, seen: str, tmp_path: Path) -> None:
    made = document([report({"student": 0.9, "control": 1.0}), report({"student": 1.0, "control": 1.2})])
    with pytest.raises(DataError, match=seen):
        folds.write_folds({**made, place: value}, tmp_path / "crossval.json")
    assert not (tmp_path / "crossval.json").exists()


def test_a_document_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cross-validate"):
        folds.read_folds(tmp_path / "crossval.json")


def test_draws_of_a_calibration_error_have_its_value_as_their_mean() -> None:
    def both(seed: int) -> Asked:
        z, y, units = told(seed, 400, 80)
        return Asked(row_statistics(z, y, None, HEADS), units)

    found = folds.fold_samples({"m": [[both(0)], [both(1)]]}, unit="groups", resamples=100)["m"]
    sample = found["click.calibration_error"]
    assert sample.draws.mean() == pytest.approx(sample.value)
    low, high = sample.interval()
    assert low <= sample.value <= high
