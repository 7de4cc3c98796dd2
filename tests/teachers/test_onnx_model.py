"""ONNX files of torch, scikit-learn and LightGBM as teachers."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np
import onnx
import pytest
import torch
from onnxmltools import convert_lightgbm
from onnxmltools.convert.common.data_types import FloatTensorType
from skl2onnx import to_onnx
from skl2onnx.common.data_types import StringTensorType
from sklearn.compose import ColumnTransformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

from distilrec.errors import DataError
from distilrec.teachers.matrix import matrix
from distilrec.teachers.onnx_model import onnx_teacher
from distilrec.types_rows import RowSplit

COLUMNS = ["encoded:price", "hot:colors", "encoded:picture"]  # 7 columns
pytestmark = [pytest.mark.req("A2"), pytest.mark.filterwarnings("ignore")]


@pytest.fixture(scope="module")
def net() -> torch.nn.Module:
    torch.manual_seed(3)
    return torch.nn.Sequential(torch.nn.Linear(7, 5), torch.nn.ReLU(), torch.nn.Linear(5, 1)).eval()


@pytest.fixture(scope="module")
def of_torch(net: torch.nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "net.onnx"
    torch.onnx.export(net, (torch.zeros(2, 7),), str(path), input_names=["x"], output_names=["score"], dynamo=True,
                      dynamic_shapes={"input": {0: torch.export.Dim("n")}}, verbose=False)
    return path


@pytest.fixture(scope="module")
def pipeline(clicks: RowSplit) -> tuple[Any, np.ndarray]:
    """A scikit-learn pipeline over the raw item and the title, fitted on objects."""
    raw = [[one or "" for one in clicks.raw.column(name).to_pylist()] for name in ("item", "title")]
    table = np.array(raw, dtype=object).T
    steps = make_pipeline(ColumnTransformer([("one", OneHotEncoder(handle_unknown="ignore"), [0, 1])]),
                          LogisticRegression())
    steps.fit(table, clicks.labels["click"].ravel())
    return steps, table


def written(path: Path, graph: str) -> None:
    """A graph in the text form of ONNX, as a file."""
    onnx.save(onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["": 17]>\n{graph}'), str(path))


def sklearn_file(pipeline: Any, folder: Path, zipmap: bool) -> Path:
    types = [("item", StringTensorType([None, 1])), ("title", StringTensorType([None, 1]))]
    graph = to_onnx(pipeline[0], initial_types=types, options={"zipmap": zipmap}, target_opset=15)
    path = folder / f"zipmap_{zipmap}.onnx"
    path.write_bytes(graph.SerializeToString())
    return path


def test_a_graph_of_torch_over_a_matrix(
    of_torch: Path, net: torch.nn.Module, clicks: RowSplit, everything: np.ndarray
) -> None:
    teacher = onnx_teacher(of_torch, clicks, space="logit", inputs=COLUMNS)
    table = matrix(clicks, everything, COLUMNS)[0]
    with torch.inference_mode():
        assert teacher.predict(clicks, everything) == pytest.approx(net(torch.from_numpy(table)).numpy(), abs=1e-5)
    assert teacher.parameters == 7 * 5 + 5 + 5 + 1
    named = onnx_teacher(of_torch, clicks, space="logit", inputs={"x": COLUMNS}, output="score[0]")
    assert (named.predict(clicks, everything) == teacher.predict(clicks, everything)).all()


def test_a_graph_with_several_named_inputs(clicks: RowSplit, everything: np.ndarray, tmp_path: Path) -> None:
    written(tmp_path / "two.onnx", """two (int64[n] item, float[n] price) => (float[n, 1] score)
        <float[9] table = {0, 0.5, 1, -1.5, 2, -2.5, 3, 4, -4}> {
            own = Gather(table, item)
            both = Add(own, price)
            axis = Constant<value = int64[1] {1}>()
            score = Unsqueeze(both, axis)
        }""")
    inputs = {"price": "encoded:price", "item": "encoded:item"}
    teacher = onnx_teacher(tmp_path / "two.onnx", clicks, space="logit", inputs=inputs)
    table = np.array([0, 0.5, 1, -1.5, 2, -2.5, 3, 4, -4])
    wanted = table[clicks.columns["item"]] + clicks.columns["price"]
    assert teacher.parameters == 9 + 1
    assert teacher.predict(clicks, everything).ravel() == pytest.approx(wanted, abs=1e-5)
    with pytest.raises(DataError, match="(?s)no input 'prise', did you mean 'price'.*'price' is not mapped"):
        onnx_teacher(tmp_path / "two.onnx", clicks, space="logit", inputs={"prise": "encoded:price", "item": "item"})
    with pytest.raises(DataError, match="a graph with 2 inputs"):
        onnx_teacher(tmp_path / "two.onnx", clicks, space="logit", inputs=["price"])
    with pytest.raises(DataError, match="holds text"):  # by name: the raw columns item and price
        onnx_teacher(tmp_path / "two.onnx", clicks, space="logit")
    with pytest.raises(DataError, match="missing or broken numbers"):
        onnx_teacher(tmp_path / "two.onnx", clicks, space="logit", inputs={"item": "price", "price": "price"})


@pytest.mark.parametrize("zipmap", [False, True])
def test_a_pipeline_of_scikit_learn_reads_raw_columns_by_name(
    zipmap: bool, pipeline: Any, clicks: RowSplit, everything: np.ndarray, tmp_path: Path
) -> None:
    path = sklearn_file(pipeline, tmp_path, zipmap)
    output = "output_probability[1]" if zipmap else "probabilities[1]"
    teacher = onnx_teacher(path, clicks, space="probability", output=output)
    wanted = pipeline[0].predict_log_proba(pipeline[1])
    assert teacher.predict(clicks, everything).ravel() == pytest.approx(wanted[:, 1] - wanted[:, 0], abs=1e-3)
    assert teacher.parameters > 20


def test_which_output_of_a_converted_classifier_is_meant_must_be_said(
    pipeline: Any, clicks: RowSplit, tmp_path: Path
) -> None:
    plain, zipped = sklearn_file(pipeline, tmp_path, False), sklearn_file(pipeline, tmp_path, True)
    for path, output, text in [
        (plain, None, "2 outputs, and which one to read is not said.*NAME\\[1\\]"),
        (plain, "probabilities", r"array of shape \[256, 2\]"),
        (plain, "probability", "did you mean 'probabilities'"),
        (plain, "probabilities[7]", "column 7 of output 'probabilities'"),
        (zipped, "output_probability", "ZipMap.*keys 0, 1.*which of them is meant is not said.*'zipmap': False"),
        (zipped, "output_probability[yes]", "yes is none of them"),
        (plain, {"buy": "probabilities[1]"}, "outputs are given for buy"),
    ]:
        with pytest.raises(DataError, match=re.compile(text, re.S)):
            onnx_teacher(path, clicks, space="probability", output=output)
    with pytest.raises(DataError, match="all 256 logits.*lie in"):
        onnx_teacher(plain, clicks, space="logit", output="probabilities[1]")


def test_a_model_of_lightgbm(clicks: RowSplit, everything: np.ndarray, tmp_path: Path) -> None:
    table = matrix(clicks, everything, COLUMNS)[0]
    booster = lgb.train({"objective": "binary", "num_leaves": 7, "verbosity": -1, "num_threads": 1},
                        lgb.Dataset(table, label=clicks.labels["click"].ravel()), 5)
    graph = convert_lightgbm(booster, initial_types=[("input", FloatTensorType([None, 7]))], zipmap=False,
                             target_opset=15)
    path = tmp_path / "trees.onnx"
    path.write_bytes(graph.SerializeToString())
    teacher = onnx_teacher(path, clicks, space="probability", inputs=COLUMNS, output="probabilities[1]")
    wanted = booster.predict(table, raw_score=True)
    assert teacher.predict(clicks, everything).ravel() == pytest.approx(wanted, abs=1e-3)
    assert teacher.parameters > 50


def test_outputs_by_head(both: RowSplit, everything: np.ndarray, tmp_path: Path) -> None:
    written(tmp_path / "two.onnx", """two (float[n, 7] x) => (float[n] stars, float[n, 1] tap) {
            one = Constant<value = int64[1] {1}>()
            stars = ReduceSum<keepdims = 0>(x, one)
            zero = Constant<value = int64[1] {0}>()
            tap = Slice(x, zero, one, one)
        }""")
    teacher = onnx_teacher(tmp_path / "two.onnx", both, inputs=COLUMNS, output={"click": "tap", "rating": "stars"},
                           space={"click": "logit", "rating": "value"})
    table = matrix(both, everything, COLUMNS)[0]
    assert teacher.predict(both, everything) == pytest.approx(np.stack([table[:, 0], table.sum(1)], 1), abs=1e-4)


def test_files_that_are_missing_or_no_onnx(clicks: RowSplit, of_torch: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.onnx").write_bytes(b"no graph")
    (tmp_path / "model.pb").write_bytes(b"")
    for path, text in [("none.onnx", "does not exist"), ("bad.onnx", "cannot be read as ONNX"),
                       ("model.pb", "ends in")]:
        with pytest.raises(DataError, match=text):
            onnx_teacher(tmp_path / path, clicks, space="logit", inputs=COLUMNS)
    with pytest.raises(DataError, match="cannot answer rows"):
        onnx_teacher(of_torch, clicks, space="logit", inputs=COLUMNS[:2])
    with pytest.raises(DataError, match="inputs x of the graph are is not said"):
        onnx_teacher(of_torch, clicks, space="logit")


def test_a_graph_that_reorders_rows_is_found(clicks: RowSplit, tmp_path: Path) -> None:
    written(tmp_path / "sorts.onnx", """sorts (float[n, 1] x) => (float[n, 1] s) {
            n = Shape<end = 1>(x)
            s, i = TopK<axis = 0>(x, n)
        }""")
    with pytest.raises(DataError, match="another order"):
        onnx_teacher(tmp_path / "sorts.onnx", clicks, space="logit", inputs=["encoded:price"])


def test_the_scaler_of_a_pipeline_is_counted(clicks: RowSplit, everything: np.ndarray, tmp_path: Path) -> None:
    table = matrix(clicks, everything, COLUMNS)[0]
    steps = make_pipeline(StandardScaler(), LogisticRegression()).fit(table, clicks.labels["click"].ravel())
    path = tmp_path / "scaled.onnx"
    path.write_bytes(to_onnx(steps, table[:1], options={"zipmap": False}, target_opset=15).SerializeToString())
    teacher = onnx_teacher(path, clicks, space="probability", inputs=COLUMNS, output="probabilities[1]")
    assert 7 * 3 + 1 <= teacher.parameters <= 7 * 4 + 8


def test_whole_numbers_beyond_an_input_are_refused(clicks: RowSplit, tmp_path: Path) -> None:
    written(tmp_path / "small.onnx", """one (int32[n] stamp) => (float[n] score) {
            score = Cast<to = 1>(stamp)
        }""")
    late = replace(clicks, raw=clicks.raw.append_column("stamp", [np.full(len(clicks), 2**40)]))
    with pytest.raises(DataError, match="holds 1099511627776 to 1099511627776"):
        onnx_teacher(tmp_path / "small.onnx", late, space="logit", inputs={"stamp": "stamp"})
