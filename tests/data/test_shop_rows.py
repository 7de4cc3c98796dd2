"""Tables of the shop: what a row says was known before, and the labels are what happened."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

from distilrec.data import prepare_rows, shop_spec, shop_table, simulate_shop
from distilrec.data.shop_rows import NUMBERS, SHOP_TABLES
from distilrec.data.shop_text import TAGS
from distilrec.errors import DataError


@pytest.fixture(scope="module")
def shop():
    return simulate_shop(users=300, items=200, events_per_user=12.0)


@pytest.fixture(scope="module")
def tables(shop):
    return {kind: shop_table(shop, kind) for kind in SHOP_TABLES}


def clicks_of(shop, user, before):
    own = shop.interactions.filter((pl.col("user_id") == user) & (pl.col("timestamp") < before))
    return own.filter(pl.col("event") == "click"), own.filter(pl.col("event") == "purchase")


def test_labels_are_what_happened(shop, tables):
    table, seen = tables["impressions"], shop.impressions
    assert table.height == seen.height
    np.testing.assert_array_equal(table["click"], seen["clicked"].cast(pl.Int8))
    np.testing.assert_array_equal(table["purchase"], seen["purchased"].cast(pl.Int8))
    bought = shop.interactions.filter(pl.col("event") == "purchase")
    assert table["rating"].drop_nulls().sort().to_list() == bought["rating"].drop_nulls().sort().to_list()
    assert table.filter(pl.col("rating").is_not_null())["purchase"].min() == 1
    assert (table["log_dwell"].is_not_null() == seen["clicked"]).all()
    dwell = shop.interactions.filter(pl.col("event") == "click")["dwell"].sort().to_numpy()
    np.testing.assert_allclose(np.exp(table["log_dwell"].drop_nulls().sort().to_numpy()), dwell, rtol=1e-4)


def test_history_is_from_the_pages_before(shop, tables):
    table, numeric = tables["impressions"], tables["numeric"]
    content = {row["item_id"]: row for row in shop.items.to_dicts()}
    for place in np.random.default_rng(0).choice(table.height, 60, replace=False):
        row, numbers = table.row(int(place), named=True), numeric.row(int(place), named=True)
        clicks, purchases = clicks_of(shop, row["user_id"], row["timestamp"])
        items = clicks["item_id"].to_list()
        assert row["recent"] == items[-10:]
        assert row["previous"] == (items[-1] if items else None)
        assert (row["clicks_before"], row["purchases_before"]) == (len(items), purchases.height)
        for name in ("category", "brand", "collection"):
            assert numbers[f"{name}_clicks"] == sum(content[item][name] == row[name] for item in items)
        same = bool(items) and content[items[-1]]["collection"] == row["collection"]
        assert numbers["same_collection"] == same
        seen = shop.impressions.filter(
            (pl.col("item_id") == row["item_id"]) & (pl.col("timestamp") < row["timestamp"])
        ).height
        clicked = shop.interactions.filter(
            (pl.col("item_id") == row["item_id"]) & (pl.col("timestamp") < row["timestamp"])
            & (pl.col("event") == "click")
        ).height
        assert (numbers["item_views"], numbers["item_clicks"]) == (seen, clicked)
        if items:
            usual = np.mean([math.log(content[item]["price"]) for item in items])
            assert numbers["price_to_usual"] == pytest.approx(math.log(row["price"]) - usual)
            assert numbers["seconds_since_click"] == row["timestamp"] - clicks["timestamp"][-1] > 0
        else:
            assert numbers["price_to_usual"] is None and numbers["seconds_since_click"] is None


def test_content_is_joined(shop, tables):
    row = tables["impressions"].row(777, named=True)
    item = shop.items.filter(pl.col("item_id") == row["item_id"]).row(0, named=True)
    user = shop.users.filter(pl.col("user_id") == row["user_id"]).row(0, named=True)
    assert all(row[name] == item[name] for name in ("title", "price", "brand")) and row["item_tags"] == item["tags"]
    assert all(row[name] == user[name] for name in ("age", "region", "budget"))


def test_reviews_know_the_reviews_before(shop, tables):
    table = tables["reviews"]
    assert table.height == shop.reviews.height and set(table["tags"].explode().drop_nulls()) <= set(TAGS)
    for row in table.filter(pl.col("past_tags").list.len() > 0).head(20).to_dicts():
        before = shop.reviews.filter(
            (pl.col("user_id") == row["user_id"]) & (pl.col("timestamp") < row["timestamp"])
        )
        assert row["past_tags"] == sorted(set(before["tags"].explode().drop_nulls()))
    first = table.group_by("user_id", maintain_order=True).first()
    assert first["past_tags"].list.len().sum() == 0


@pytest.mark.parametrize("kind", SHOP_TABLES)
def test_rows_keep_the_first(shop, tables, kind):
    assert shop_table(shop, kind, rows=25).equals(tables[kind].head(25))


@pytest.mark.parametrize("kind", SHOP_TABLES)
def test_a_table_is_prepared_and_nothing_in_it_is_a_label(tables, kind):
    spec = shop_spec(kind)
    columns = {one if isinstance(one, str) else one.get("column", head) for head, one in spec["labels"].items()}
    assert not columns & set(spec["features"])
    assert not {"review", "click", "purchase", "log_dwell", "tags"} & set(spec["features"])
    split = prepare_rows(tables[kind], **spec)
    assert len(split) == tables[kind].height and split.groups is not None
    if kind == "reviews":
        assert split.heads[0].classes == tuple(sorted(TAGS))
    if kind == "impressions":
        assert [(head.name, head.kind, head.after) for head in split.heads] == [
            ("click", "binary", None), ("purchase", "binary", "click"), ("rating", "number", None),
            ("dwell", "number", None),
        ]


def test_numbers_carry_signal_but_no_number_tells_the_label(tables):
    split = prepare_rows(tables["numeric"], **shop_spec("numeric"), split="time")
    assert tuple(split.features) == NUMBERS
    inputs = np.stack([split.columns[name] for name in NUMBERS], 1)
    clicked = split.labels["click"][:, 0]
    train, test = split.rows("train"), split.rows("test")
    scores = LogisticRegression(max_iter=300).fit(inputs[train], clicked[train]).decision_function(inputs[test])
    assert 0.75 < roc_auc_score(clicked[test], scores) < 0.88
    for place in range(len(NUMBERS)):
        alone = roc_auc_score(clicked[test], inputs[test, place])
        assert max(alone, 1 - alone) < 0.82


@pytest.mark.parametrize(("kind", "rows", "said"), [
    ("impresions", None, "did you mean 'impressions'"), ("reviews", 0, "rows=0"), ("numeric", True, "rows=True"),
])
def test_refused(shop, kind, rows, said):
    with pytest.raises(DataError, match=said):
        shop_table(shop, kind, rows)
