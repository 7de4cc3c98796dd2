"""The benchmarks of the simulated shop: what is asked of policies, and that a graph made for timing is the model."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

from distilrec.data import prepare_rows, shop_spec, shop_table, simulate_shop
from distilrec.data.simulate import Shop
from distilrec.training.row_train import train_rows
from distilrec.training.settings import TrainSettings
from distilrec.types_rows import RowSplit


def script(name: str) -> ModuleType:
    folder = str(Path(__file__).resolve().parents[2] / "benchmarks" / "rows")
    sys.path.insert(0, folder)
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(folder)


@pytest.fixture(scope="module")
def shop() -> Shop:
    return simulate_shop(users=60, items=120, events_per_user=4.0, seed=2)


def table(shop: Shop, kind: str, method: str) -> RowSplit:
    spec = shop_spec(kind)
    return prepare_rows(shop_table(shop, kind), features=spec["features"], labels=spec["labels"], group=spec["group"],
                        split={"method": method, "parts": [0.7, 0.1, 0.2]}, name="shop")


def test_a_policy_is_asked_about_items_that_the_user_had_not_clicked(shop: Shop) -> None:
    ab = script("ab")
    split = table(shop, "impressions", "time")
    rows, pages = ab.pages_of(split, shop.items, 2)
    assert (split.parts[rows] == 2).all()
    assert np.unique(pages.users, return_counts=True)[1].max() <= 2
    clicks = shop.interactions.filter(event="click")
    when = {(u, i): t for u, i, t in clicks.select("user_id", "item_id", "timestamp").iter_rows()}
    for user, time, items in zip(pages.users, pages.times, pages.candidates, strict=True):
        assert all(when.get((user, item), np.inf) >= time for item in items)
    collection = dict(shop.items.select("item_id", "collection").iter_rows())
    page = int(np.flatnonzero(pages.previous)[0])
    found = [item for item in pages.candidates[page] if collection[item] == collection[pages.previous[page]]]
    assert found


def test_a_question_is_the_users_page_with_the_items_columns(shop: Shop) -> None:
    ab = script("ab")
    split = table(shop, "impressions", "time")
    rows, pages = ab.pages_of(split, shop.items, 1)
    asked = ab.questions(split, rows, pages)
    shape = pages.candidates.shape
    items = split.raw.column("item_id").to_numpy()
    for name in ("price", "collection", "item_tags"):
        own = dict(zip(items.tolist(), split.columns[name].tolist(), strict=True))
        assert [own[item] for item in pages.candidates.ravel().tolist()] == asked.columns[name].tolist()
    for name in ("user_id", "previous", "recent"):
        assert (asked.columns[name].reshape(*shape, -1) == split.columns[name][rows].reshape(shape[0], 1, -1)).all()
    first = split.columns["position"][split.raw.column("position").to_numpy() == 1][0]
    assert (asked.columns["position"] == first).all()


def test_the_matrix_graph_is_the_model(shop: Shop) -> None:
    trees = script("trees")
    split = table(shop, "numeric", "random")
    settings = TrainSettings(epochs=1, batch_size=256, learning_rate=0.01)
    student = train_rows("mlp", split, {"dim": 3, "hidden": [8, 4]}, settings, metric="auc")
    graph, rows = trees._mlp_graph(student), split.rows("test")
    asked = np.concatenate(trees._student_matrix(split, student, rows))
    assert np.isnan(asked).any()
    wanted = 1 / (1 + np.exp(-student.predict(split, rows)))
    np.testing.assert_allclose(graph.run(None, {"x": asked})[0], wanted, atol=2e-5)
