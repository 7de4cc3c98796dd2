from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distilrec.data.build import UNKNOWN_ORDER, build_dataset
from distilrec.errors import DataError


def frame(**columns):
    return pl.DataFrame(columns, strict=False)


LOG = frame(
    user_id=[10, 9, 10, 9], item_id=["b", "a", "c", "b"], timestamp=[5, 7, 4, None], rating=[1.0, 2.0, 3.0, None]
)


def test_ids_order_and_weights_by_hand():
    data = build_dataset("t", LOG)
    assert data.user_keys.tolist() == ["9", "10"]
    assert data.item_keys.tolist() == [
        "a",
        "b",
        "c",
    ]
    events = data.interactions
    assert events.user_ids.tolist() == [0, 0, 1, 1]
    assert events.item_ids.tolist() == [0, 1, 2, 1]
    assert events.timestamps.tolist() == [7, UNKNOWN_ORDER, 4, 5]
    assert events.weights.tolist() == [2.0, 1.0, 3.0, 1.0]
    assert [str(a.dtype) for a in (events.user_ids, events.item_ids, events.weights, events.timestamps)] == [
        "int32",
        "int32",
        "float32",
        "int64",
    ]


@given(st.permutations(list(range(12))))
def test_the_order_of_rows_does_not_matter_without_ties(order):
    log = frame(user_id=[n % 3 for n in range(12)], item_id=[n % 5 for n in range(12)], timestamp=list(range(12)))
    assert build_dataset("t", log[order]).digest == build_dataset("t", log).digest


def test_seq_pos_breaks_ties_of_time():
    log = frame(user_id=[1, 1, 1], item_id=[5, 6, 7], timestamp=[3, 3, 3], seq_pos=[2, 0, 1])
    assert build_dataset("t", log).item_keys[build_dataset("t", log).interactions.item_ids].tolist() == ["6", "7", "5"]


def test_item_table_is_aligned_and_counted():
    items = frame(item_id=["c", "z", "a"], title=["Sea", "Zoo", " "], price=[1, 2, 3])
    data = build_dataset("t", LOG, items)
    assert data.items.column("item_id").to_pylist() == ["a", "b", "c"]
    assert data.item_texts() == [None, None, "Sea"]
    assert data.items.column("price").to_pylist() == [3, None, 1]
    assert data.counts == {
        "items: not in the table": 1,
        "items: in the table, without events, left out": 1,
        "items: without text": 2,
    }


def test_cold_items_on_request():
    data = build_dataset("t", LOG, frame(item_id=["z", "a"], title=["Zoo", "A"]), keep_cold_items=True)
    assert data.item_keys.tolist() == ["a", "b", "c", "z"]
    assert data.item_texts() == ["A", None, None, "Zoo"]
    assert data.counts["items: in the table, without events, left out"] == 0


def test_keys_of_table_and_log_meet_as_text():
    log = frame(user_id=[1, 1], item_id=["1", "x"], timestamp=[1, 2])
    data = build_dataset("t", log, frame(item_id=[1], title=["one"]), frame(user_id=["1"], age=[30]))
    assert data.item_texts() == ["one", None]
    assert data.users.column("age").to_pylist() == [30]
    numeric = build_dataset("t", frame(user_id=[1], item_id=[2]), frame(item_id=["2", "x"], title=["two", "x"]))
    assert numeric.item_texts() == ["two"]


def test_duplicate_item_keys_are_counted_and_shown():
    items = frame(item_id=[4, 4, 1, 1, 2, 2, 3, 3, 3, 9], title=["t"] * 10)
    with pytest.raises(DataError, match=r"4 keys occur more than once in the column 'item_id': 4, 1, 2"):
        build_dataset("t", LOG, items)


def test_texts_are_joined_from_columns_and_lists():
    items = frame(
        item_id=["a", "b", "c"],
        title=["A", None, None],
        description=[["x", "y"], ["z"], []],
        tags=[[["q"], ["r", "s"]], None, None],
    )
    data = build_dataset("t", LOG, items, text=("title", "description", "tags"))
    assert data.item_texts() == ["A x y q r s", "z", None]
    with pytest.raises(DataError, match="lacks the column 'titel', did you mean 'title'"):
        build_dataset("t", LOG, items, text=("titel",))


def test_text_stands_in_for_title():
    assert build_dataset("t", LOG, frame(item_id=["a"], text=["hello"])).item_texts() == ["hello", None, None]
    both = build_dataset("t", LOG, frame(item_id=["a"], text=["long"], title=["short"]))
    assert both.item_texts()[0] == "short"
    assert both.items.column("text_column").to_pylist()[0] == "long"
    assert build_dataset("t", LOG, frame(item_id=["a"], brand=["x"])).counts["items: without text"] == 3


def test_no_rows():
    with pytest.raises(DataError, match="no interaction is left"):
        build_dataset("t", LOG.head(0))
