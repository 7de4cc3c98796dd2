"""A teacher that is named on the command line."""

from __future__ import annotations

import shlex
from pathlib import Path

import numpy as np
import onnx
import polars as pl
import pytest
from onnx import TensorProto, helper, numpy_helper
from typer.testing import CliRunner

from distilrec.cli import app
from distilrec.cli_guard import teacher_settings
from distilrec.data import load_rows
from distilrec.errors import RecipeError
from distilrec.knowledge.store import KnowledgeStore

pytestmark = pytest.mark.req("A2")

RECIPE = """
name: clicks
task: predict
data: {path: clicks.parquet}
features: {item: category, price: number}
labels: {click: click}
group: user
teacher: {members: [{model: dcnv2, settings: {dim: 4}}, {model: trees}]}
student: {model: mlp, settings: {dim: 2, hidden: [4]}, train: {epochs: 1}}
evaluate: {baselines: [base_rate]}
"""


def call(line: str) -> tuple[int, str]:
    result = CliRunner().invoke(app, shlex.split(line))
    return result.exit_code, result.output


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A table, a recipe whose teacher would be trained, and click.onnx with the logit 1 - price / 2."""
    rng = np.random.default_rng(0)
    price = rng.uniform(0, 4, 300)
    pl.DataFrame({
        "user": rng.integers(0, 30, 300), "item": rng.integers(0, 9, 300), "price": price,
        "click": (rng.random(300) < 1 / (1 + np.exp(price / 2 - 1))).astype(int),
    }).write_parquet(tmp_path / "clicks.parquet")
    weights = [numpy_helper.from_array(np.array([[-0.5]], np.float32), "w"),
               numpy_helper.from_array(np.array([1], np.float32), "b")]
    graph = helper.make_graph(
        [helper.make_node("Gemm", ["price", "w", "b"], ["logit"])], "click",
        [helper.make_tensor_value_info("price", TensorProto.FLOAT, ["n", 1])],
        [helper.make_tensor_value_info("logit", TensorProto.FLOAT, ["n", 1])], weights,
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=10)
    onnx.save(made, tmp_path / "click.onnx")
    (tmp_path / "clicks.yaml").write_text(RECIPE)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_an_outside_teacher_takes_the_place_of_the_recipes_own(folder: Path) -> None:
    code, said = call("prepare clicks.yaml --out run")
    assert code == 0, said
    code, said = call("extract clicks.yaml --out run --teacher onnx:click.onnx --space logit")
    assert code == 0, said
    split = load_rows(folder / "run" / "data")
    store = KnowledgeStore(folder / "run" / "knowledge" / "seed-0", split)
    rows = split.rows("train")
    price = split.raw.column("price").to_numpy()[rows]
    np.testing.assert_allclose(store.batch(rows)["response"][:, 0], 1 - price / 2, atol=1e-5)
    assert call("inspect run")[1].count("the teacher is a file") == 1

    # the stages that follow need it too
    assert "next: distilrec distill clicks.yaml --out run --teacher onnx:click.onnx --space logit\n" in said


def test_what_is_missing_is_asked_for_before_anything_runs(folder: Path) -> None:
    code, said = call("run clicks.yaml --out run --teacher onnx:click.onnx")
    assert code == 2
    assert "teacher.space: nothing\n  expected: probability, logit or value" in said
    assert not (folder / "run").exists()
    code, said = call("extract clicks.yaml --out run --teacher onxx:click.onnx --space logit")
    assert code == 2
    assert "did you mean 'onnx'" in said


def test_options_are_overrides_in_the_order_in_which_they_hold() -> None:
    assert teacher_settings("torch:shop.nets:net", "logit", True) == [
        'teacher={"model": "torch", "path": "shop.nets:net"}', 'teacher.space="logit"', "teacher.trust=true"]
    assert teacher_settings(None, None, False) == []
    with pytest.raises(RecipeError, match="names no outside teacher"):
        teacher_settings("click.onnx", "logit", False)
