"""One suite for whatever teaches rows: a new row of ROW_TEACHERS is tested by standing there."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np
import polars as pl
import pytest
import torch
from sklearn.linear_model import LogisticRegression

import rows_world
from distilrec.errors import DataError, RecipeError
from distilrec.teachers import OUTSIDE, ROW_TEACHERS, outside_settings, parse_outside, row_teacher
from distilrec.teachers.matrix import matrix
from distilrec.teachers.row_ensemble import RowEnsemble
from distilrec.types_rows import Head, Predictor, RowSplit

COLUMNS = ["encoded:price", "hot:colors"]  # 4 columns
pytestmark = [pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")]
Maker = Callable[[RowSplit, Path, float], Any]


@pytest.fixture(scope="module")
def split() -> RowSplit:
    return rows_world.table(300, heads=(Head("click"),))


@pytest.fixture(scope="module", autouse=True)
def row_nets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A Python module `row_nets` with a linear net whose weights are all the same."""
    folder = tmp_path_factory.mktemp("code")
    (folder / "row_nets.py").write_text(
        "import torch\ndef net(weight):\n    made = torch.nn.Linear(4, 1)\n"
        "    torch.nn.init.constant_(made.weight, weight)\n    torch.nn.init.constant_(made.bias, -1.0)\n"
        "    return made\n")
    sys.path.insert(0, str(folder))
    yield
    sys.path.remove(str(folder))
    sys.modules.pop("row_nets", None)


def linear(weight: float) -> torch.nn.Module:
    made = torch.nn.Linear(4, 1)
    torch.nn.init.constant_(made.weight, weight)
    torch.nn.init.constant_(made.bias, -1.0)
    return made.eval()


def of_trees(split: RowSplit, folder: Path, weight: float) -> Any:
    return row_teacher("trees")(split, {"rounds": 5, "learning_rate": weight})


def of_ensemble(split: RowSplit, folder: Path, weight: float) -> Any:
    return RowEnsemble([of_trees(split, folder, 0.3), of_torch(split, folder, 0.4)], weights=[1, weight])


def of_onnx(split: RowSplit, folder: Path, weight: float) -> Any:
    path = folder / f"{weight}.onnx"
    if not path.exists():
        torch.onnx.export(linear(weight), (torch.zeros(2, 4),), str(path), input_names=["x"], verbose=False,
                          dynamo=True, dynamic_shapes={"input": {0: torch.export.Dim("n")}}, external_data=False)
    return row_teacher("onnx")(path, split, space="logit", inputs=COLUMNS)


def of_sklearn(split: RowSplit, folder: Path, weight: float) -> Any:
    table = matrix(split, np.arange(len(split)), COLUMNS)[0]
    model = LogisticRegression(C=weight).fit(table, split.labels["click"].ravel())
    return row_teacher("sklearn")(model, split, space="probability", inputs=COLUMNS)


def of_lightgbm(split: RowSplit, folder: Path, weight: float) -> Any:
    table = matrix(split, np.arange(len(split)), COLUMNS)[0]
    booster = lgb.train({"objective": "binary", "verbosity": -1, "num_threads": 1, "learning_rate": weight},
                        lgb.Dataset(table, label=split.labels["click"].ravel()), 4)
    booster.save_model(folder / "click.txt")
    return row_teacher("lightgbm")(folder / "click.txt", split, space="probability", inputs=COLUMNS)


def of_keras(split: RowSplit, folder: Path, weight: float) -> Any:
    os.environ.setdefault("KERAS_BACKEND", "torch")
    import keras

    path = folder / f"{weight}.keras"
    if not path.exists():  # a file holds the time of its writing
        keras.Sequential([keras.Input((4,)), keras.layers.Dense(
            1, "sigmoid", kernel_initializer=keras.initializers.Constant(weight))]).save(path)
    return row_teacher("keras")(path, split, space="probability", inputs=COLUMNS)


def of_torch(split: RowSplit, folder: Path, weight: float) -> Any:
    return row_teacher("torch")("row_nets:net", split, space="logit", inputs=COLUMNS, settings={"weight": weight},
                                trust=True)


def of_file(split: RowSplit, folder: Path, weight: float) -> Any:
    rows = np.arange(len(split))
    pl.DataFrame({"row": rows[::-1], "click": np.cos(rows[::-1]) * weight}).write_parquet(folder / "scores.parquet")
    return row_teacher("file")(folder / "scores.parquet", split, space="logit")


MAKERS: dict[str, Maker] = {
    "trees": of_trees, "ensemble": of_ensemble, "onnx": of_onnx, "sklearn": of_sklearn, "lightgbm": of_lightgbm,
    "keras": of_keras, "torch": of_torch, "file": of_file,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files")


@pytest.fixture(scope="module")
def teachers(split: RowSplit, row_nets: None, folder: Path) -> dict[str, list[Any]]:
    """Of each kind a teacher, the same one again, and another one."""
    return {name: [maker(split, folder, weight) for weight in (0.5, 0.5, 0.25)] for name, maker in MAKERS.items()}


def test_every_row_of_the_table_is_among_them() -> None:
    assert set(MAKERS) == set(ROW_TEACHERS)


@pytest.mark.req("A2")
@pytest.mark.parametrize("name", MAKERS)
def test_answers_have_their_shape_and_are_finite(name: str, teachers: Any, split: RowSplit) -> None:
    teacher = teachers[name][0]
    assert isinstance(teacher, Predictor)
    rows = split.rows("valid")
    answers = teacher.predict(split, rows)
    assert answers.dtype == np.float32
    assert answers.shape == (len(rows), 1)
    assert np.isfinite(answers).all()
    assert answers.std() > 0
    assert teacher.predict(split, rows[:0]).shape == (0, 1)
    assert teacher.name


@pytest.mark.parametrize("name", MAKERS)
def test_answers_depend_on_the_row_alone(name: str, teachers: Any, split: RowSplit) -> None:
    teacher = teachers[name][0]
    rows = np.arange(len(split))
    whole = teacher.predict(split, rows)
    order = np.random.default_rng(2).permutation(rows)
    assert teacher.predict(split, order) == pytest.approx(whole[order], abs=1e-5)
    single = np.concatenate([teacher.predict(split, rows[place : place + 1]) for place in (0, 7, 299)])
    assert single == pytest.approx(whole[[0, 7, 299]], abs=1e-5)
    assert teacher.predict(split, np.array([4, 4])) == pytest.approx(whole[[4, 4]], abs=1e-5)


@pytest.mark.parametrize("name", MAKERS)
def test_the_digest_follows_the_model_and_numbers_are_counted(name: str, teachers: Any) -> None:
    one, same, other = teachers[name]
    assert len(one.digest) == 64
    assert one.digest == same.digest
    assert one.digest != other.digest
    assert isinstance(one.parameters, int)
    assert one.parameters > 0


@pytest.mark.parametrize("name", OUTSIDE)
def test_the_space_of_an_outside_teacher_must_be_stated(
    name: str, split: RowSplit, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher, make = row_teacher(name), MAKERS[name]

    def unstated(*args: Any, space: str, **given: Any) -> Any:
        return teacher(*args, **given)

    monkeypatch.setitem(globals(), "row_teacher", lambda _: unstated)
    with pytest.raises(DataError, match="is not said"):
        make(split, folder, 0.5)


@pytest.mark.parametrize("name", OUTSIDE)
def test_the_settings_of_an_outside_teacher_are_known(name: str) -> None:
    assert {"space", "name", "narrow_logits"} <= set(outside_settings(name))
    assert ("trust" in outside_settings(name)) == (name in ("sklearn", "torch"))


def test_teachers_are_named_on_one_line() -> None:
    assert parse_outside("onnx:models/click.onnx") == ("onnx", "models/click.onnx")
    assert parse_outside("torch:shop.nets:net") == ("torch", "shop.nets:net")
    for text, said in (("onx:a.onnx", "did you mean 'onnx'"), ("model.onnx", "names no outside teacher"),
                       ("keras:", "PATH"), ("trees:x", "names no outside")):
        with pytest.raises(RecipeError, match=said):
            parse_outside(text)
    with pytest.raises(RecipeError, match="did you mean 'sklearn'"):
        row_teacher("sklern")
