"""A run with several unlike teachers that are weighed: a store of each, one of all, nothing to do the second time."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from distilrec import pipeline
from distilrec.data import load_split
from distilrec.errors import RecipeError
from distilrec.files import read_json
from distilrec.knowledge.store import KnowledgeStore
from distilrec.recipe_yaml import parse_recipe

pytestmark = pytest.mark.req("C9")

RECIPE = """
name: small shop
data: {shop: {users: 120, items: 60, events_per_user: 6.0, seed: 3}}
teacher:
  members:
  - {model: sasrec, settings: {dim: 8, layers: 1, max_length: 8}, train: {epochs: 1, batch_size: 64}}
  - {model: ease}
knowledge: {top_k: 6, weights: agreement}
student: {model: sasrec, settings: {dim: 4, layers: 1, max_length: 8}, train: {epochs: 1, batch_size: 64}}
evaluate: {baselines: [popularity]}
"""


def test_members_are_extracted_one_by_one_and_blended(tmp_path: Path) -> None:
    report = pipeline.run(parse_recipe(RECIPE), tmp_path, say=lambda line: None)
    assert [(model["name"], model["role"]) for model in report["models"]][:3] == [
        ("teacher", "teacher"), ("member 1: sasrec", "member"), ("member 2: ease", "member")]
    assert report["recipe"]["knowledge"]["weights"] == "agreement"
    (note,) = report.document["notes"]
    assert "mixture with weights: agreement" in note and "ease" in note
    (weights,) = report["lineage"]["teacher_weights"]
    assert [one["member"] for one in weights] == ["sasrec", "ease"]
    for kind in ("of_user", "of_item"):
        assert sum(one[kind] for one in weights) == pytest.approx(1.0, abs=1e-3)
    split, folder = load_split(tmp_path / "data"), tmp_path / "knowledge" / "seed-0"
    members = [KnowledgeStore(folder / f"member-{i}", split) for i in range(2)]
    mixed = KnowledgeStore(folder, split)
    assert mixed.manifest["identity"]["stores"] == [member.digest for member in members]
    assert mixed.manifest["teacher"]["blend"] == "agreement"
    assert [one["name"] for one in mixed.manifest["teacher"]["members"]] == ["sasrec", "ease"]
    assert mixed.signals["response"].width == 6
    assert mixed.vectors("item_vectors").shape == (split.n_items, 8)  # type: ignore[union-attr]
    assert report["lineage"]["knowledge"]["seed-0"] == mixed.digest
    said: list[str] = []
    pipeline.run(parse_recipe(RECIPE), tmp_path, say=said.append)
    for stage in ("prepare", "teach", "extract", "distill", "export", "evaluate"):
        assert any(line.startswith(f"{stage}: nothing to do") for line in said), stage
    # other weights: the members' stores stay, the blend is made anew; and the mean of them is a store by itself
    member = (folder / "member-0" / "manifest.json").stat().st_mtime_ns
    pipeline.run_stage("extract", parse_recipe(RECIPE, ["knowledge.weights=equal"]), tmp_path, say=said.append)
    assert read_json(folder / "manifest.json")["teacher"]["blend"] == "equal"
    assert (folder / "member-0" / "manifest.json").stat().st_mtime_ns == member
    pipeline.run_stage("extract", parse_recipe(RECIPE, ["knowledge.weights=mean"]), tmp_path, say=said.append)
    assert "blend" not in read_json(folder / "manifest.json")["teacher"]
    # other data: no store of the run stands in the way
    changed = parse_recipe(RECIPE, ["data.shop.seed=4"])
    pipeline.run_stage("prepare", changed, tmp_path, say=said.append)
    split = load_split(tmp_path / "data")
    for stale in (tmp_path / "teachers").rglob("model.json"):
        stale.unlink()
    pipeline.STAGES["extract"](changed, tmp_path, split, say=said.append)
    assert KnowledgeStore(folder / "member-1", split).manifest["split_digest"] == split.digest


@pytest.mark.parametrize("student", ["generations: 2", "interpolation: [0.5]"])
def test_what_a_second_training_cannot_repeat_is_refused_before_the_first(student: str, tmp_path: Path) -> None:
    rows = [(f"u{u}", f"i{(u * 3 + k) % 15}", "test" if k == 5 else "train") for u in range(12) for k in range(6)]
    pl.DataFrame(rows, schema=["user_id", "item_id", "split"], orient="row").write_parquet(tmp_path / "log.parquet")
    recipe = parse_recipe(f"name: x\nsplit: {{method: given}}\nteacher: {{model: als}}\nstudent: {{{student}}}\n",
                          data=tmp_path / "log.parquet")
    with pytest.raises(RecipeError, match="refit: false"):
        pipeline.run(recipe, tmp_path / "out", say=lambda line: None)
    assert not (tmp_path / "out" / "choosing").exists()
