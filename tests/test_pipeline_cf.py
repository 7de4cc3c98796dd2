"""Collaborative filtering as a run: a log without order, a given split, teachers fitted in one pass."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest

from distilrec.files import read_json
from distilrec.pipeline import run
from distilrec.recipe_yaml import parse_recipe

RECIPE = """
name: unordered
split: {method: given}
teacher:
  members:
  - {model: als, settings: {dim: 4, temperature: 0.3}}
  - {model: lightgcn, settings: {dim: 4}, train: {epochs: 2}}
knowledge: {top_k: 8}
student: {model: mf, settings: {dim: 3}, train: {epochs: 3, batch_size: 16, learning_rate: 0.03}, losses: {kl: 1.0}}
evaluate: {metric: recall@5, k: [5], baselines: [user_knn, ease, bpr]}
"""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """Users like the items of their own parity; there is no time, and no order."""
    rng = np.random.default_rng(0)
    rows = []
    for user in range(24):
        liked = rng.permutation(np.arange(user % 2, 20, 2))
        rows += [(f"u{user}", f"i{item}", part) for item, part in zip(liked, ["train"] * 7 + ["valid", "test", "test"],
                                                                      strict=True)]
    frame = pl.DataFrame(rows, schema=["user_id", "item_id", "split"], orient="row").sample(fraction=1.0, shuffle=True,
                                                                                            seed=1)
    (tmp_path / "log").mkdir()
    frame.write_parquet(tmp_path / "log" / "interactions.parquet")
    return tmp_path / "log"


def test_from_an_unordered_log_to_a_report_and_nothing_to_do_the_second_time(log: Path, tmp_path: Path) -> None:
    recipe, said = parse_recipe(RECIPE, data=log), []
    report = run(recipe, tmp_path / "out", say=said.append)
    assert any("168 train + 24 valid + 48 test" in line for line in said), "nothing is dropped for want of order"
    names = {model["name"]: model["role"] for model in report["models"]}
    assert names == {"teacher": "teacher", "member 1: als": "member", "member 2: lightgcn": "member",
                     "student": "student", "control": "control", "user_knn": "baseline", "ease": "baseline",
                     "bpr": "baseline"}
    for place, kind in (("member-0", "als"), ("member-1", "lightgcn")):
        folder = tmp_path / "out" / "teachers" / "seed-0" / place
        assert read_json(folder / "model.json")["architecture"] == kind
    again: list[str] = []
    run(recipe, tmp_path / "out", say=again.append)
    for stage in ("prepare", "teach", "extract", "distill", "export", "evaluate"):
        assert any(line.startswith(f"{stage}: nothing to do") for line in again), stage
