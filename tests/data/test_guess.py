from __future__ import annotations

import polars as pl
import pytest

from distilrec.data import prepare
from distilrec.data.guess import guess
from distilrec.errors import DataError


def test_a_shop_log_beside_its_products(tmp_path):
    pl.DataFrame(
        {
            "CustomerID": ["a", "a", "b", "a"],
            "SKU": [1, 2, 1, 3],
            "type": ["lamp", "sofa", "lamp", "bed"],
            "price": [9.5, 3.25, 9.5, 7.0],
            "Created_At": ["2020-01-01", "2020-01-02", "2020-01-03", "2020-01-04"],
            "order": ["x17", "x18", "x19", "x20"],
        }
    ).write_csv(tmp_path / "orders.csv")
    pl.DataFrame({"SKU": [1], "product_name": ["Lamp"], "description": ["warm"]}).write_csv(tmp_path / "products.csv")
    found = guess(tmp_path / "orders.csv")
    assert found["columns"] == {"user_id": "CustomerID", "item_id": "SKU", "timestamp": "Created_At", "event": "type"}
    assert found["items"] == str(tmp_path / "products.csv")
    assert found["text"] == ["product_name"]
    assert found["split"] == "leave-last-out"
    assert found["layout"] is None
    split = prepare(
        found["interactions"],
        **{k: found[k] for k in ("items", "users", "layout", "columns", "text", "split", "clean")},
    )
    assert split.dataset.item_texts() == ["Lamp", None, None]
    assert guess(tmp_path) == found  # the folder has one file that is no table of items


def test_known_layouts_need_no_columns(tmp_path):
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,2,3.5,1112486027\n")
    (tmp_path / "movies.csv").write_text("movieId,title,genres\n2,Two,Drama\n")
    found = guess(tmp_path)
    assert (found["layout"], found["columns"], found["text"]) == ("movielens-latest", {}, ["title"])


def test_content_decides_where_names_mislead(tmp_path):
    pl.DataFrame(
        {
            "uid": [1, 1, 2],
            "item": [1, 2, 1],
            "time": ["noon", "night", "dawn"],
            "score": ["good", "bad", "good"],
            "set": ["red", "blue", "red"],
        }
    ).write_csv(tmp_path / "t.csv")
    found = guess(tmp_path / "t.csv")
    assert found["columns"] == {"user_id": "uid", "item_id": "item"}
    assert found["split"] == "random"
    assert any("no order in time" in note for note in found["notes"])


def test_parts_are_used_when_given(tmp_path):
    pl.DataFrame({"user": [1, 1], "item": [1, 2], "split": ["train", "test"]}).write_parquet(tmp_path / "t.parquet")
    assert guess(tmp_path / "t.parquet")["split"] == "given"


def test_a_core_is_proposed_where_it_keeps_most(tmp_path):
    pl.DataFrame({"user_id": [1] * 9 + [2], "item_id": range(10), "timestamp": range(10)}).write_parquet(
        tmp_path / "t.parquet"
    )
    assert guess(tmp_path / "t.parquet")["clean"] == {"user_core": 5, "item_core": 5}


def test_nothing_to_guess(tmp_path):
    pl.DataFrame({"x": [1], "y": [2]}).write_csv(tmp_path / "t.csv")
    with pytest.raises(DataError, match="looks like user_id or item_id; it has x, y"):
        guess(tmp_path / "t.csv")
