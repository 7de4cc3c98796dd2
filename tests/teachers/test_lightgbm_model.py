"""LightGBM models made elsewhere as teachers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np
import pytest

from distilrec.errors import DataError
from distilrec.teachers.lightgbm_model import count_numbers, lightgbm_teacher
from distilrec.teachers.matrix import matrix
from distilrec.types_rows import RowSplit

COLUMNS = ["price", "encoded:item", "hot:colors"]  # 5 columns
SMALL = {"num_leaves": 5, "min_data_in_leaf": 10, "verbosity": -1, "num_threads": 1}
pytestmark = pytest.mark.req("A2")


def booster_of(split: RowSplit, target: np.ndarray, objective: str = "binary", **given: Any) -> lgb.Booster:
    table = matrix(split, np.arange(len(split)), COLUMNS, np.float64)[0]
    known = ~np.isnan(target)
    data = lgb.Dataset(table[known], label=target[known], categorical_feature=[1], **given)
    return lgb.train({**SMALL, "objective": objective}, data, 6)


@pytest.fixture(scope="module")
def booster(clicks: RowSplit) -> lgb.Booster:
    return booster_of(clicks, clicks.labels["click"].ravel())


def test_a_file_answers_raw_scores_or_probabilities_as_is_stated(
    booster: lgb.Booster, clicks: RowSplit, everything: np.ndarray, tmp_path: Path
) -> None:
    booster.save_model(tmp_path / "click.txt")
    table = matrix(clicks, everything, COLUMNS, np.float64)[0]
    wanted = booster.predict(table, raw_score=True)
    for space in ("logit", "probability"):
        teacher = lightgbm_teacher(tmp_path / "click.txt", clicks, space=space, inputs=COLUMNS)
        assert teacher.name == "click"
        assert teacher.predict(clicks, everything).ravel() == pytest.approx(wanted, abs=1e-5)
    same = lightgbm_teacher(booster, clicks, space="logit", inputs=COLUMNS)
    assert same.predict(clicks, everything).ravel() == pytest.approx(wanted, abs=1e-6)


def test_columns_are_found_by_the_model_s_own_names(clicks: RowSplit, everything: np.ndarray) -> None:
    price = clicks.raw.column("price").to_numpy()[:, None]
    data = lgb.Dataset(price, label=clicks.labels["click"].ravel(), feature_name=["price"])
    own = lgb.train({**SMALL, "objective": "binary"}, data, 3)
    teacher = lightgbm_teacher(own, clicks, space="logit")
    assert teacher.predict(clicks, everything).ravel() == pytest.approx(own.predict(price, raw_score=True), abs=1e-6)


def test_a_model_for_every_output(both: RowSplit, everything: np.ndarray) -> None:
    models = {"click": booster_of(both, both.labels["click"].ravel()),
              "rating": booster_of(both, both.labels["rating"].ravel(), "regression")}
    teacher = lightgbm_teacher(models, both, space={"click": "probability", "rating": "value"}, inputs=COLUMNS)
    table = matrix(both, everything, COLUMNS, np.float64)[0]
    wanted = np.stack([models["click"].predict(table, raw_score=True), models["rating"].predict(table)], 1)
    assert teacher.predict(both, everything) == pytest.approx(wanted, abs=1e-5)


def test_an_estimator_of_lightgbm_is_unwrapped(clicks: RowSplit, everything: np.ndarray) -> None:
    table = matrix(clicks, everything, COLUMNS, np.float64)[0]
    wrapped = lgb.LGBMClassifier(n_estimators=3, num_leaves=4, verbose=-1, n_jobs=1)
    wrapped.fit(table, clicks.labels["click"].ravel())
    teacher = lightgbm_teacher(wrapped, clicks, space="logit", inputs=COLUMNS)
    assert teacher.predict(clicks, everything).ravel() == pytest.approx(
        wrapped.predict_proba(table, raw_score=True), abs=1e-6)


def test_numbers_are_counted_by_split_leaf_and_category_set(booster: lgb.Booster) -> None:
    trees = booster.dump_model()["tree_info"]
    leaves = sum(tree["num_leaves"] for tree in trees)
    splits = leaves - len(trees)
    sets = sum(1 for tree in trees for _ in range(tree["num_cat"]))  # 9 items: one word a set
    assert sets > 0
    assert count_numbers(booster.model_to_string()) == leaves + 2 * splits + sets


def test_wrong_files_and_columns_are_refused(booster: lgb.Booster, clicks: RowSplit, tmp_path: Path) -> None:
    (tmp_path / "bad.txt").write_text("something else")
    (tmp_path / "cut.txt").write_text("tree\nversion=v4\n")
    whole = booster.model_to_string()
    (tmp_path / "half.txt").write_text(whole[: len(whole) // 2])
    (tmp_path / "longer.txt").write_text(whole.replace("leaf_value=", "leaf_value=9", 1))
    (tmp_path / "model.pkl").write_bytes(b"\x80\x04\xff\xfe")
    for model, inputs, text in [
        (tmp_path / "none.txt", COLUMNS, "does not exist"),
        (tmp_path / "bad.txt", COLUMNS, "begins with 'something else'"),
        *((tmp_path / f"{name}.txt", COLUMNS, "cut off or was changed") for name in ("cut", "half", "longer")),
        (tmp_path / "model.pkl", COLUMNS, "is no text"),
        (3, COLUMNS, "a int where a LightGBM model belongs"),
        (booster, None, "5 of the model's 5 columns are no raw columns.*Column_0"),
        (booster, COLUMNS[:2], "inputs give 2 columns, and the model reads 5"),
        (booster, ["prise", *COLUMNS[1:]], "did you mean 'price'"),
        ({"buy": booster}, COLUMNS, "models are given for buy"),
    ]:
        with pytest.raises(DataError, match=text):
            lightgbm_teacher(model, clicks, space="logit", inputs=inputs)
    with pytest.raises(DataError, match="is not said"):
        lightgbm_teacher(booster, clicks, inputs=COLUMNS)
