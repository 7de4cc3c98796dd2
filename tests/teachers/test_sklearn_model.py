"""Fitted estimators of scikit-learn as teachers, in memory and as files."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import polars as pl
import pytest
import skops.io
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.multioutput import MultiOutputClassifier
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import FunctionTransformer, OneHotEncoder

import rows_world
from distilrec.errors import DataError
from distilrec.teachers.matrix import matrix
from distilrec.teachers.sklearn_model import sklearn_teacher
from distilrec.types_rows import Head, RowSplit

COLUMNS = ["encoded:price", "encoded:item", "hot:colors"]
pytestmark = pytest.mark.req("A2")


def frame_of(split: RowSplit) -> Any:
    return pl.from_arrow(split.raw)


@pytest.fixture(scope="module")
def pipeline(clicks: RowSplit) -> Pipeline:
    """Raw columns, chosen by name: an encoder of items, numbers with their gaps filled."""
    steps = make_pipeline(
        ColumnTransformer([("item", OneHotEncoder(handle_unknown="ignore"), ["item"]),
                           ("price", SimpleImputer(), ["price"])]),
        LogisticRegression(),
    )
    return steps.fit(frame_of(clicks).select("item", "price"), clicks.labels["click"].ravel())


@pytest.fixture(scope="module")
def on_matrix(clicks: RowSplit, everything: np.ndarray) -> LogisticRegression:
    return LogisticRegression().fit(matrix(clicks, everything, COLUMNS)[0], clicks.labels["click"].ravel())


def test_a_pipeline_reads_the_raw_columns_that_it_was_fitted_on(
    pipeline: Pipeline, clicks: RowSplit, everything: np.ndarray
) -> None:
    teacher = sklearn_teacher(pipeline, clicks, space="probability")
    wanted = pipeline.decision_function(frame_of(clicks).select("item", "price"))
    assert teacher.predict(clicks, everything).ravel() == pytest.approx(wanted, abs=1e-4)
    by_logit = sklearn_teacher(pipeline, clicks, space="logit")
    assert by_logit.predict(clicks, everything).ravel() == pytest.approx(wanted, abs=1e-4)
    coefficients = pipeline[-1].coef_.size
    assert coefficients < teacher.parameters < coefficients + 60


def test_objects_of_numpy_for_a_pipeline_that_chooses_by_place(clicks: RowSplit, everything: np.ndarray) -> None:
    table = frame_of(clicks).select("item", "title").to_numpy()
    steps = make_pipeline(ColumnTransformer([("one", OneHotEncoder(handle_unknown="ignore"), [0, 1])]),
                          LogisticRegression()).fit(table, clicks.labels["click"].ravel())
    teacher = sklearn_teacher(steps, clicks, space="probability", rows="numpy", inputs=["item", "title"])
    assert teacher.predict(clicks, everything).ravel() == pytest.approx(steps.decision_function(table), abs=1e-4)


@pytest.mark.parametrize("kind", [RandomForestClassifier, HistGradientBoostingClassifier])
def test_trees_on_a_matrix(kind: Any, clicks: RowSplit, everything: np.ndarray) -> None:
    table = matrix(clicks, everything, COLUMNS)[0]
    forest = kind(max_depth=3, random_state=0).fit(table, clicks.labels["click"].ravel())
    teacher = sklearn_teacher(forest, clicks, space="probability", inputs=COLUMNS)
    share = np.clip(forest.predict_proba(table)[:, 1], 1e-7, 1 - 1e-7)
    assert teacher.predict(clicks, everything).ravel() == pytest.approx(np.log(share / (1 - share)), abs=1e-3)
    assert teacher.parameters > 300


def test_a_model_for_every_head(both: RowSplit, everything: np.ndarray, on_matrix: LogisticRegression) -> None:
    table = matrix(both, everything, COLUMNS)[0]
    rating = np.nan_to_num(both.labels["rating"].ravel(), nan=3.0)
    line = LinearRegression().fit(table, rating)
    models = {"click": on_matrix, "rating": line}
    teacher = sklearn_teacher(models, both, space={"click": "probability", "rating": "value"}, inputs=COLUMNS)
    wanted = np.stack([on_matrix.decision_function(table), line.predict(table)], 1)
    assert teacher.predict(both, everything) == pytest.approx(wanted, abs=1e-3)
    with pytest.raises(DataError, match="one model for heads of different spaces"):
        sklearn_teacher(on_matrix, both, space={"click": "probability", "rating": "value"}, inputs=COLUMNS)
    with pytest.raises(DataError, match="models are given for click"):
        sklearn_teacher({"click": on_matrix}, both, space={"click": "logit", "rating": "value"}, inputs=COLUMNS)


def test_tags_of_one_model_with_many_outputs() -> None:
    split = rows_world.table(200, heads=(Head("tags", "tags", ("new", "cheap")),))
    rows = np.arange(len(split))
    table, target = matrix(split, rows, COLUMNS)[0], split.labels["tags"].astype(int)
    indicator = OneVsRestClassifier(LogisticRegression()).fit(table, target)
    listed = MultiOutputClassifier(LogisticRegression()).fit(table, target)
    one = sklearn_teacher(indicator, split, space="probability", inputs=COLUMNS).predict(split, rows)
    two = sklearn_teacher(listed, split, space="probability", inputs=COLUMNS).predict(split, rows)
    assert one == pytest.approx(two, abs=1e-3)
    edge = 12  # where float32 probabilities still tell logits apart
    assert one.clip(-edge, edge) == pytest.approx(indicator.decision_function(table).clip(-edge, edge), abs=0.05)
    exclusive = LogisticRegression().fit(table, target[:, 0])
    with pytest.raises(DataError, match="rows sum to 1: classes of one head"):
        sklearn_teacher(exclusive, split, space="probability", inputs=COLUMNS)


def test_which_class_means_yes_is_never_guessed(clicks: RowSplit, everything: np.ndarray) -> None:
    table = matrix(clicks, everything, COLUMNS)[0]
    words = np.where(clicks.labels["click"].ravel() > 0, "buys", "leaves")
    model = LogisticRegression().fit(table, words)
    with pytest.raises(DataError, match="'buys' and 'leaves', and which of them means yes is not said"):
        sklearn_teacher(model, clicks, space="probability", inputs=COLUMNS)
    with pytest.raises(DataError, match="'buy' is none of them"):
        sklearn_teacher(model, clicks, space="probability", inputs=COLUMNS, positive="buy")
    for space in ("probability", "logit"):  # the decision function is that of the second class: turned around
        teacher = sklearn_teacher(model, clicks, space=space, inputs=COLUMNS, positive="buys")
        assert teacher.predict(clicks, everything).ravel() == pytest.approx(-model.decision_function(table), abs=1e-4)
    three = LogisticRegression().fit(table, np.arange(len(table)) % 3)
    with pytest.raises(DataError, match="knows 3 classes"):
        sklearn_teacher(three, clicks, space="probability", inputs=COLUMNS)


def test_a_joblib_file_is_read_only_with_trust(pipeline: Pipeline, clicks: RowSplit, tmp_path: Path) -> None:
    path = tmp_path / "model.joblib"
    joblib.dump(pipeline, path)
    with pytest.raises(DataError, match=re.compile("runs whatever code the file holds.*trust=True", re.S)):
        sklearn_teacher(path, clicks, space="probability")
    teacher = sklearn_teacher(path, clicks, space="probability", trust=True)
    assert teacher.name == "model"
    assert teacher.predict(clicks, np.arange(9)) == pytest.approx(
        sklearn_teacher(pipeline, clicks, space="probability").predict(clicks, np.arange(9)))


class Trap:
    """Writes a file as soon as it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self.path,)


def test_without_trust_no_code_of_a_file_runs(clicks: RowSplit, tmp_path: Path) -> None:
    joblib.dump(Trap(tmp_path / "ran"), tmp_path / "trap.joblib")
    with pytest.raises(DataError, match="pickle"):
        sklearn_teacher(tmp_path / "trap.joblib", clicks, space="probability")
    assert not (tmp_path / "ran").exists()


def test_a_skops_file_needs_trust_only_for_unknown_types(
    on_matrix: LogisticRegression, clicks: RowSplit, everything: np.ndarray, tmp_path: Path
) -> None:
    skops.io.dump(on_matrix, tmp_path / "plain.skops")
    plain = sklearn_teacher(tmp_path / "plain.skops", clicks, space="probability", inputs=COLUMNS)
    assert plain.predict(clicks, everything).shape == (300, 1)
    odd = make_pipeline(FunctionTransformer(rows_world.raw_columns), on_matrix)
    skops.io.dump(odd, tmp_path / "odd.skops")
    with pytest.raises(DataError, match=re.compile("rows_world.raw_columns.*trust=True", re.S)):
        sklearn_teacher(tmp_path / "odd.skops", clicks, space="probability", inputs=COLUMNS)


def test_what_a_model_cannot_do_is_said(
    pipeline: Pipeline, on_matrix: LogisticRegression, clicks: RowSplit, tmp_path: Path
) -> None:
    (tmp_path / "bad.joblib").write_bytes(b"nothing")
    (tmp_path / "bad.skops").write_bytes(b"nothing")
    renamed = clicks.raw.rename_columns(["thing" if one == "item" else one for one in clicks.raw.column_names])
    for model, given, text in [
        (LinearRegression(), {"inputs": COLUMNS}, "LinearRegression has no predict_proba"),
        (on_matrix, {}, "columns that the model was fitted on are not known"),
        (on_matrix, {"inputs": [*COLUMNS, "encoded:picture"]}, "cannot answer rows .*features"),
        (on_matrix, {"inputs": ["price", *COLUMNS[1:]]}, "cannot answer rows .*NaN"),
        (pipeline, {"rows": "panda"}, "did you mean 'pandas'"),
        (tmp_path / "none.joblib", {"trust": True}, "does not exist"),
        (tmp_path / "bad.joblib", {"trust": True}, "cannot be read"),
        (tmp_path / "bad.skops", {}, "cannot be read"),
        (tmp_path / "model.h5", {}, "does not exist"),
    ]:
        with pytest.raises(DataError, match=text):
            sklearn_teacher(model, clicks, space="probability", **given)
    other = RowSplit(clicks.name, clicks.method, clicks.features, clicks.columns, clicks.heads, clicks.labels,
                     clicks.parts, renamed)
    with pytest.raises(DataError, match="no raw column 'item'"):
        sklearn_teacher(pipeline, other, space="probability")


def test_the_yes_of_zero_and_one_is_one_in_whatever_order(
    on_matrix: LogisticRegression, clicks: RowSplit, everything: np.ndarray
) -> None:
    class Turned:
        classes_ = np.array([1, 0])

        def predict_proba(self, table: np.ndarray) -> np.ndarray:
            return on_matrix.predict_proba(table)[:, ::-1]

    plain, turned = (sklearn_teacher(one, clicks, space="probability", inputs=COLUMNS) for one in (on_matrix, Turned()))
    assert turned.predict(clicks, everything) == pytest.approx(plain.predict(clicks, everything))
