"""Teacher and student together in whole runs: in report, terminal and page; with validation of their own or carved."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

import distilrec as dr
from core_world import quick, walk_split
from distilrec import pipeline
from distilrec.data import load_split
from distilrec.errors import DataError, RecipeError
from distilrec.evaluation.fusion import learn_weights
from distilrec.evaluation.schema import read_report
from distilrec.models.trained import Trained
from distilrec.recipe_yaml import parse_recipe
from distilrec.stages_rank import teacher_of
from distilrec.training.train import train
from distilrec.types import Histories
from rows_world import table

pytestmark = pytest.mark.req("A6")

RECIPE = """
name: together
data: {shop: {users: 120, items: 80, events_per_user: 10.0, seed: 3}}
teacher: {model: hstu, settings: {dim: 16, layers: 1, max_length: 12},
          train: {epochs: 4, batch_size: 64, learning_rate: 0.01, negatives: full}}
knowledge: {top_k: 20}
student: {model: sasrec, settings: {dim: 4, layers: 1, max_length: 12},
          train: {epochs: 4, batch_size: 64, learning_rate: 0.01, negatives: full}}
evaluate: {fusion: [weighted, rrf, learned], cascade: [10, 80], baselines: [popularity]}
"""
NAMES = ["fusion-weighted", "fusion-rrf", "fusion-learned", "cascade-10", "cascade-80"]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_a_run_measures_them_beside_teacher_and_student(tmp_path: Path) -> None:
    recipe, said = parse_recipe(RECIPE), []
    pipeline.run(recipe, tmp_path, say=said.append)
    report = read_report(tmp_path / "report.json")
    models = {one["name"]: one for one in report["models"]}
    assert [n for n, one in models.items() if one["role"] == "fusion"] == NAMES
    ndcg = {name: one["metrics"]["test"]["ndcg@10"]["mean"] for name, one in models.items()}
    assert ndcg["cascade-80"] == pytest.approx(ndcg["teacher"], abs=1e-6), "all items re-ranked: the teacher's own list"
    assert models["teacher"]["latency_ms"]["p50"] > models["student"]["latency_ms"]["p50"]
    for name in NAMES:
        assert models[name]["latency_ms"]["p50"] > models["student"]["latency_ms"]["p50"]
        assert models[name]["parameters"] == models["teacher"]["parameters"] + models["student"]["parameters"]
        assert any(name in line for line in said), "in the terminal"
        assert name in (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
        assert {"a": "student", "b": name} in [{k: c[k] for k in ("a", "b")} for c in report["comparisons"]]
    split = load_split(tmp_path / "data")
    pair = [teacher_of(recipe, tmp_path, split, 0), Trained.load(tmp_path / "students/seed-0/student", split)]
    assert report["lineage"]["fusion_weights"]["fusion-learned"] == [learn_weights(pair, split).tolist()]


def test_where_validation_was_carved_from_train_the_models_of_then_choose_the_weights(tmp_path: Path) -> None:
    """After the second training validation is part of train, and would praise whoever learned it by heart."""
    split = walk_split(users=60)
    rows = [{"user_id": f"u{user}", "item_id": f"i{item}", "timestamp": 100 + place,
             "split": "test" if start + place == stop - 1 else "train"}
            for user, (start, _, _, stop) in enumerate(split.bounds)
            for place, item in enumerate(split.items[start:stop])]
    pl.DataFrame(rows).write_parquet(tmp_path / "log.parquet")
    recipe = parse_recipe(RECIPE.replace("{shop: {users: 120, items: 80, events_per_user: 10.0, seed: 3}}",
                                         f"{{path: {tmp_path / 'log.parquet'}}}\nsplit: {{method: given}}"),
                          ["evaluate.fusion=[learned]", "evaluate.cascade=[]"])
    out = tmp_path / "run"
    pipeline.run(recipe, out, say=lambda line: None)
    carved = load_split(out / "data")
    place = out / "choosing"
    pair = [teacher_of(recipe, place, carved, 0), Trained.load(place / "students/seed-0/student", carved)]
    assert carved.n_events("valid")
    found = read_report(out / "report.json")["lineage"]["fusion_weights"]["fusion-learned"]
    assert found == [learn_weights(pair, carved).tolist()]


def test_in_python(tmp_path: Path) -> None:
    split = walk_split()
    model = {"dim": 16, "dropout": 0.0, "max_length": 8, "bias": True}
    teacher = train("hstu", split, model, quick(epochs=10, score_scale=2.0))
    student = train("sasrec", split, {**model, "dim": 4, "layers": 1}, quick(epochs=5))
    bundle = dr.export(student, tmp_path / "bundle", split)
    histories = Histories.of([[1, 2, 3], [5], list(range(9))])
    top = bundle.recommend_ids(histories, histories, 6).items
    some = dr.cascade(bundle, teacher, depth=6).recommend_ids(histories, histories, 6)
    scores = teacher.scores(histories)
    for row in range(3):
        assert some.items[row].tolist() == sorted(top[row].tolist(), key=lambda i: -scores[row, i])
        np.testing.assert_allclose(some.scores[row], scores[row, some.items[row]], rtol=1e-4, atol=1e-5)
    both = [dr.fuse([teacher, one]).recommend_ids(histories, histories, 10).items for one in (student, bundle)]
    assert np.array_equal(*both), "a bundle gives the scores of its model"
    report = dr.evaluate(split, teacher=teacher, student=bundle, baselines=[], fusion=["learned"], cascade=[5])
    assert [one["name"] for one in report["models"]] == ["teacher", "student", "fusion-learned", "cascade-5"]
    with pytest.raises(DataError, match="teacher and student"):
        dr.evaluate(split, student=student, cascade=[5])


@pytest.mark.parametrize(("override", "told"), [
    ("evaluate.fusion=[rff]", "did you mean 'rrf'"), ("evaluate.cascade=[0]", "evaluate.cascade"),
    ("evaluate.cascade=[5, 5]", "each once"), ("evaluate.candidates={sampled: 20}", "sampled candidates"),
])
def test_a_recipe_that_cannot_be_measured_is_refused_before_training(override: str, told: str) -> None:
    with pytest.raises(RecipeError) as error:
        parse_recipe(RECIPE, [override])
    assert told in str(error.value)


def test_of_rows_it_is_refused() -> None:
    with pytest.raises(RecipeError, match="of the task rank"):
        dr.evaluate(table(), fusion=["rrf"])
