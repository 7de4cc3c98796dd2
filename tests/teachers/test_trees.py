"""Boosted trees trained on a table: what they read, what they find, what they save."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import lightgbm as lgb
import numpy as np
import pytest

import rows_world
from distilrec.errors import DataError, RecipeError
from distilrec.teachers.trees import Trees, fit_trees
from distilrec.types_rows import Head, RowSplit

QUICK = {"rounds": 60, "patience": 10, "leaves": 7, "learning_rate": 0.15, "min_rows": 10}


@pytest.fixture(scope="module")
def split() -> RowSplit:
    return rows_world.table(2000)


@pytest.fixture(scope="module")
def trees(split: RowSplit) -> Trees:
    return fit_trees(split, QUICK)


def auc(scores: np.ndarray, labels: np.ndarray) -> float:
    ranks = np.argsort(np.argsort(scores)) + 1
    positive = labels > 0
    n = positive.sum()
    return float((ranks[positive].sum() - n * (n + 1) / 2) / (n * (len(labels) - n)))


@pytest.mark.req("B2")
def test_they_find_what_the_table_was_made_of(trees: Trees, split: RowSplit) -> None:
    rows = split.rows("test")
    got, labels = trees.predict(split, rows), split.label_matrix(rows)
    assert got.shape == (400, 5)
    assert auc(got[:, 0], labels[:, 0]) > 0.7  # the truth itself is at .79 or so
    assert auc(got[:, 3], labels[:, 3]) > 0.99
    rated = ~np.isnan(labels[:, 2])
    error = np.sqrt(np.mean((got[rated, 2] - labels[rated, 2]) ** 2))
    assert error < 0.75 * labels[rated, 2].std()
    share = 1 / (1 + np.exp(-got[:, 1].astype(float)))  # both happening, over all rows
    assert share.mean() == pytest.approx(split.labels["buy"][split.rows("train")].mean(), abs=0.03)


def test_they_stop_early_and_say_where(trees: Trees) -> None:
    steps = trees.training["trees"]
    assert set(steps) == {"click", "buy", "rating", "tags.new", "tags.cheap"}
    assert all(1 <= count <= 60 for count in steps.values())
    assert min(steps.values()) < 60


@pytest.mark.req("C3")
def test_importance_by_feature_sums_to_1_and_names_the_right_ones(trees: Trees, split: RowSplit) -> None:
    shares = trees.importance()
    assert set(shares) == set(split.features)
    assert sum(shares.values()) == pytest.approx(1.0)
    assert set(list(shares)[:2]) == {"item", "price"}
    assert list(shares.values()) == sorted(shares.values(), reverse=True)


def test_what_is_read_and_what_is_shortened_is_said(trees: Trees, split: RowSplit) -> None:
    assert trees.sources == ("encoded:user", "encoded:item", "price", "hot:colors", "count:past", "count:title",
                             "encoded:picture")
    assert trees.columns[3:6] == ("colors=red", "colors=green", "colors=blue")
    assert set(trees.notes) == {"past", "title"}
    assert "a sequence of 8 values" in trees.notes["past"]
    bucket = dataclasses.replace(split.features["price"], name="bucket", kind="category", columns=("price",),
                                 edges=(5.0, 10.0), size=4)
    wide = dataclasses.replace(split, features={**split.features, "bucket": bucket},
                               columns={**split.columns, "bucket": np.ones(2000, np.int32)})
    few = fit_trees(wide, {**QUICK, "rounds": 2}, features=["price", "bucket", "item"])
    assert few.sources == ("price", "encoded:item")
    assert few.notes == {"bucket": "left out: the same column as 'price'"}


@pytest.mark.req("A2")
def test_saved_trees_answer_the_same_and_are_plain_lightgbm(trees: Trees, split: RowSplit, tmp_path: Path) -> None:
    folder = trees.save(tmp_path / "trees")
    again = Trees.load(folder)
    rows = split.rows("test")
    assert (again.predict(split, rows) == trees.predict(split, rows)).all()
    assert again.digest == trees.digest
    assert again.parameters == trees.parameters > 100
    assert again.importance() == trees.importance()
    assert lgb.Booster(model_file=folder / "output_0.txt").num_feature() == len(trees.columns)
    changed = (folder / "output_0.txt").read_text().replace("leaf_value=", "leaf_value=9", 1)
    (folder / "output_0.txt").write_text(changed)
    with pytest.raises(DataError, match="have changed since they were written"):
        Trees.load(folder)
    (folder / "output_0.txt").unlink()
    with pytest.raises(DataError, match="cannot be read as trees"):
        Trees.load(folder)


def test_the_same_seed_gives_the_same_trees(split: RowSplit) -> None:
    some = {**QUICK, "rounds": 5, "row_share": 0.5, "column_share": 0.5}
    digests = [fit_trees(split, some, features=["item", "price"], seed=seed).digest for seed in (0, 0, 1)]
    assert digests[0] == digests[1] != digests[2]


def test_weights_of_rows_count(split: RowSplit) -> None:
    heavy = dataclasses.replace(split, weights=np.where(split.labels["click"][:, 0] > 0, 10, 1).astype(np.float32))
    some, rows = {**QUICK, "rounds": 5}, split.rows("valid")
    plain, weighted = (fit_trees(one, some).predict(split, rows)[:, 0].mean() for one in (split, heavy))
    assert weighted > plain + 0.5


def test_a_tag_that_train_rows_never_show_is_a_constant_and_says_so(split: RowSplit, tmp_path: Path) -> None:
    tags = split.labels["tags"].copy()
    tags[:, 0] = 0
    rare = dataclasses.replace(split, labels={**split.labels, "tags": tags})
    made = fit_trees(rare, {**QUICK, "rounds": 2})
    assert "answered by a constant" in made.notes["tags.new"]
    wanted = np.log(0.5 / 1401 / (1 - 0.5 / 1401))  # 1400 train rows
    assert made.predict(rare, np.arange(3))[:, 3] == pytest.approx([wanted] * 3)
    again = Trees.load(made.save(tmp_path / "rare"))
    assert (again.predict(rare, np.arange(3)) == made.predict(rare, np.arange(3))).all()


def test_a_head_with_one_class_cannot_be_learned() -> None:
    split = rows_world.table(200, heads=(Head("click"),))
    ones = dataclasses.replace(split, labels={"click": np.ones((200, 1), np.float32)})
    with pytest.raises(DataError, match="'click' cannot be learned: 140 train rows with 1 different labels"):
        fit_trees(ones, QUICK)
    unseen = rows_world.table(200, heads=(Head("rating", "number"),))
    unseen.labels["rating"][unseen.rows("valid")] = np.nan
    with pytest.raises(DataError, match="'rating' cannot be learned.*0 validation rows"):
        fit_trees(unseen, QUICK)


def test_unknown_settings_features_and_tables_are_refused(trees: Trees, split: RowSplit) -> None:
    with pytest.raises(RecipeError, match="did you mean 'leaves'"):
        fit_trees(split, {"leafs": 3})
    with pytest.raises(RecipeError, match="did you mean 'price'"):
        fit_trees(split, QUICK, features=["prices"])
    with pytest.raises(DataError, match="the table asks for other heads"):
        trees.predict(rows_world.table(20, heads=(Head("click"),)), np.arange(3))
    smaller = dataclasses.replace(split.features["colors"], size=3, vocabulary=("red", "green"))
    with pytest.raises(DataError, match="are not those of trees"):
        trees.predict(dataclasses.replace(split, features={**split.features, "colors": smaller},
                                          columns={**split.columns, "colors": split.columns["colors"].clip(-1, 2)}),
                      np.arange(3))
