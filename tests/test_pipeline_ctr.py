"""A public click log through the whole pipeline: that it runs and says what it did, not how well it predicts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import distilrec as dr
from distilrec import pipeline
from distilrec.data import load_rows
from distilrec.recipe_yaml import load_recipe, parse_recipe

pytestmark = pytest.mark.data

NUMBERS, CATEGORIES = [f"I{n}" for n in range(1, 14)], [f"C{n}" for n in range(1, 27)]
CRITEO = f"""
name: criteo-smoke
task: predict
features:
  {{{", ".join(f"{name}: {{kind: number, log: true}}" for name in NUMBERS)},
   {", ".join(f"{name}: {{kind: category, min_count: 5}}" for name in CATEGORIES)}}}
labels: {{click: label}}
split: {{method: given}}
teacher:
  members:
    - {{model: dcnv2, settings: {{dim: 4, hidden: [16]}}, train: {{epochs: 1, batch_size: 512}}}}
    - {{model: deepfm, settings: {{dim: 4, hidden: [16]}}, train: {{epochs: 1, batch_size: 512}}}}
student: {{model: fm, settings: {{dim: 2}}, train: {{epochs: 1, batch_size: 512}}}}
evaluate: {{baselines: [base_rate]}}
"""


def test_criteo_runs_from_the_table_to_a_served_student(data_root: Path, tmp_path: Path) -> None:
    recipe = parse_recipe(CRITEO, [f"data.path={data_root / 'criteo-8k'}"])
    report = pipeline.run(recipe, tmp_path, say=lambda _: None)
    assert report["dataset"]["parts"] == {"train": 7200, "valid": 409, "test": 391}
    values = {model["name"]: model["metrics"]["test"]["auc"]["mean"] for model in report["models"]}
    assert list(values) == ["teacher", "member 1: dcnv2", "member 2: deepfm", "student", "control", "base_rate"]
    assert all(np.isfinite(list(values.values())))
    split = load_rows(tmp_path / "data")
    raw = split.raw.select(NUMBERS + CATEGORIES).take(split.rows("test")[:20]).to_pylist()  # with gaps in them
    answers = dr.load(tmp_path / "bundle").predict(raw)["click"]
    assert ((answers > 0) & (answers < 1)).all()


@pytest.mark.parametrize(("name", "folder", "rows", "test_rows"), [
    ("ads-ctr", "frappe-nfm", 86_582, None), ("movielens-ctr", "ml-1m-collm", 51_623, 7331),
])
def test_the_recipes_read_their_tables(
    name: str, folder: str, rows: int, test_rows: int | None, data_root: Path, tmp_path: Path
) -> None:
    file = Path(__file__).resolve().parent.parent / "recipes" / f"{name}.yaml"
    recipe = load_recipe(file, data=data_root / folder)
    split = pipeline.stage_prepare(recipe, tmp_path, say=lambda _: None)
    assert len(split) == rows
    assert test_rows is None or split.n_rows("test") == test_rows
    if name == "ads-ctr":  # a positive and the negatives that were drawn for it stand on one side
        by = list(recipe.split["by"])
        context: Any = pl.from_arrow(split.raw.select(by))
        sides = context.with_columns(part=pl.Series(split.parts)).group_by(by).agg(pl.col("part").n_unique())
        assert (sides["part"] == 1).all()
        assert split.n_rows("test") == pytest.approx(0.2 * rows, rel=0.02)
