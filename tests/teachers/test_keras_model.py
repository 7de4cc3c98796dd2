"""Keras 3 models on the torch backend as teachers."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distilrec.errors import DataError
from distilrec.teachers.keras_model import keras_teacher
from distilrec.teachers.matrix import matrix
from distilrec.types_rows import RowSplit

os.environ.setdefault("KERAS_BACKEND", "torch")
import keras

COLUMNS = ["encoded:price", "hot:colors"]  # 4 columns
# Keras's own conversion of torch tensors warns under NumPy 2
pytestmark = [pytest.mark.req("A2"), pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")]


@pytest.fixture(scope="module")
def model() -> Any:
    keras.utils.set_random_seed(1)
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, "relu"), keras.layers.Dropout(0.5),
                             keras.layers.Dense(1, "sigmoid")])


def test_a_file_answers_like_its_model(
    model: Any, clicks: RowSplit, everything: np.ndarray, tmp_path: Path
) -> None:
    model.save(tmp_path / "net.keras")
    share = keras.ops.convert_to_numpy(model(matrix(clicks, everything, COLUMNS)[0], training=False)).astype(float)
    for given in (model, tmp_path / "net.keras"):
        teacher = keras_teacher(given, clicks, space="probability", inputs=COLUMNS)
        assert teacher.predict(clicks, everything) == pytest.approx(np.log(share / (1 - share)), abs=1e-4)
        assert teacher.parameters == 4 * 3 + 3 + 3 + 1
    with pytest.raises(DataError, match="all 256 logits"):
        keras_teacher(model, clicks, space="logit", inputs=COLUMNS)


def test_named_inputs_and_outputs(both: RowSplit, everything: np.ndarray) -> None:
    item, price = keras.Input((), name="item", dtype="int32"), keras.Input((1,), name="price")
    hidden = keras.layers.Concatenate()([keras.layers.Embedding(9, 2)(item), price])
    heads = {"rating": keras.layers.Dense(1)(hidden), "click": keras.layers.Dense(1)(hidden)}
    net = keras.Model({"item": item, "price": price}, heads)
    inputs = {"item": "encoded:item", "price": "encoded:price"}
    teacher = keras_teacher(net, both, space={"click": "logit", "rating": "value"}, inputs=inputs, narrow_logits=True)
    said = net({"item": both.columns["item"], "price": both.columns["price"][:, None]})
    wanted = np.concatenate([keras.ops.convert_to_numpy(said[head]) for head in ("click", "rating")], axis=1)
    assert teacher.predict(both, everything) == pytest.approx(wanted, abs=1e-5)
    with pytest.raises(DataError, match="the model's inputs: item, price"):
        keras_teacher(net, both, space={"click": "logit", "rating": "value"}, inputs=COLUMNS)
    with pytest.raises(DataError, match="is given text"):
        keras_teacher(net, both, space={"click": "logit", "rating": "value"}, inputs={**inputs, "item": "item"})


def test_code_in_a_file_is_never_run(clicks: RowSplit, tmp_path: Path) -> None:
    net = keras.Sequential([keras.Input((4,)), keras.layers.Lambda(lambda x: x[:, :1])])
    net.save(tmp_path / "code.keras")
    with pytest.raises(DataError, match="Lambda"):
        keras_teacher(tmp_path / "code.keras", clicks, space="logit", inputs=COLUMNS)


def test_wrong_files_and_columns_are_refused(model: Any, clicks: RowSplit, tmp_path: Path) -> None:
    (tmp_path / "bad.keras").write_bytes(b"nothing")
    (tmp_path / "old.h5").write_bytes(b"")
    for given, inputs, text in [
        (tmp_path / "none.keras", COLUMNS, "does not exist"),
        (tmp_path / "bad.keras", COLUMNS, "cannot be read"),
        (tmp_path / "old.h5", COLUMNS, r"ends in \.h5"),
        (model, COLUMNS[:1], "cannot answer rows"),
        (model, None, "inputs: None"),
    ]:
        with pytest.raises(DataError, match=text):
            keras_teacher(given, clicks, space="probability", inputs=inputs)


def test_a_missing_number_is_no_whole_number(clicks: RowSplit) -> None:
    ids = keras.Input((1,), dtype="int32", name="price")
    embedded = keras.layers.Flatten()(keras.layers.Embedding(9, 1)(ids))
    with pytest.raises(DataError, match="missing or broken numbers"):
        keras_teacher(keras.Model(ids, embedded), clicks, space="logit", inputs={"price": "price"})
