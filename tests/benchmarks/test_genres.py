"""The benchmark of genres: what a film's behavior says, and that folds are put together into one report."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np
import polars as pl
import pytest

FILE = Path(__file__).resolve().parents[2] / "benchmarks" / "rows" / "genres.py"


@pytest.fixture
def script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("genres", FILE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_films_of_one_public_lie_together(script: ModuleType) -> None:
    rng = np.random.default_rng(0)
    pairs = [(user, item) for user in range(60) for item in range(40)
             if rng.random() < (0.6 if (user < 30) == (item < 20) else 0.1)]
    seen = pl.DataFrame(pairs, schema=["user_id", "item_id"], orient="row")
    vectors = script.behavior(seen, np.arange(41), width=3)  # nobody watched the last film
    assert vectors.shape == (41, 3) and (vectors[40] == 0).all()
    np.testing.assert_allclose(np.square(vectors[:40]).mean(axis=1), 1)
    side = vectors[:40, 0] > 0  # the leading vector parts the two publics
    assert len(set(side[:20])) == len(set(side[20:])) == 1 and side[0] != side[20]
    np.testing.assert_array_equal(vectors, script.behavior(seen, np.arange(41), width=3))


def test_every_film_is_answered_once_and_nothing_is_done_twice(
    script: ModuleType, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    place = rng.normal(size=(200, 4))
    films = pl.DataFrame({
        "text": [f"film {n % 7}" for n in range(200)], "genres": [["drama"] if x > 0 else ["comedy", "war"]
                                                                  for x in place[:, 0]],
        "title": rng.normal(size=(200, 3)).astype(np.float32).tolist(), "behavior": place.astype(np.float32).tolist(),
        "watched": rng.integers(0, 99, 200),
    })
    for name, value in {"FOLDS": 2, "MEMBERS": 2, "DRAWS": 50, "TRIALS": script.TRIALS[:1],
                        "TRAIN": {**script.TRAIN, "epochs": 8, "batch_size": 16, "learning_rate": 0.02}}.items():
        monkeypatch.setattr(script, name, value)
    for fold in range(2):
        script.work(script.split_of(films, fold), fold, 0, tmp_path)
    made = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npz")}
    assert len(made) == 2 * len(script.ROLES)
    script.work(script.split_of(films, 0), 0, 0, tmp_path)
    assert made == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.npz")}
    report = script.report_of(films, [0], tmp_path)
    values = {model["name"]: model["metrics"]["test"]["micro_f1"]["mean"] for model in report["models"]}
    assert list(values) == list(script.ROLES)
    assert values["title and behavior"] > 0.85 > values["title"], "only behavior tells these genres"
    shown = {(one["a"], one["b"]): one for one in report["comparisons"] if one["metric"] == "micro_f1"}
    gain = shown["title and behavior", "title"]
    assert gain["difference"] == pytest.approx(values["title and behavior"] - values["title"])
    assert gain["interval"][0] > 0 and gain["n"] == 200
