"""Labels by rule: binary, number and tags, what comes after what, and what is refused."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from distilrec.data.row_labels import label_faults, make_labels, numeric_labels, usable_rows
from distilrec.data.row_table import read_rows
from distilrec.errors import DataError
from distilrec.types_rows import Head

NAN = float("nan")


def make(columns, labels, train=None):
    table = usable_rows(read_rows(pl.DataFrame(columns)), labels)
    inside = np.ones(table.frame.height, dtype=bool) if train is None else np.array(train)
    return table, *make_labels(table.frame, labels, inside, table.counts)


@pytest.mark.parametrize(("column", "given", "expected"), [
    ([1, 0, 1], "y", [1, 0, 1]),
    ([True, False, True], "y", [1, 0, 1]),
    ([1.0, 0.0, 1.0], {"column": "y"}, [1, 0, 1]),
    ([5, 4, 3], {"column": "y", "positive": ">= 4"}, [1, 1, 0]),
    ([5, 4, 3], {"column": "y", "positive": "> 4"}, [1, 0, 0]),
    ([5.0, 4.5, 3.0], {"column": "y", "positive": "<4.5"}, [0, 0, 1]),
    ([1, -1, -1], {"column": "y", "positive": "== 1"}, [1, 0, 0]),
    ([True, False, True], {"column": "y", "positive": "== 0"}, [0, 1, 0]),
    (["buy", "view", "cart"], {"column": "y", "positive": "== buy"}, [1, 0, 0]),
    (["buy", "view", "cart"], {"column": "y", "positive": "!= 'view'"}, [1, 0, 1]),
    ([2, 3, 4], {"column": "y", "kind": "number"}, [2, 3, 4]),
])
def test_rules(column, given, expected):
    _, (head,), made = make({"y": column}, {"y": given})
    assert made["y"].dtype == np.float32 and made["y"].shape == (3, 1)
    assert made["y"][:, 0].tolist() == expected
    assert head.kind == ("number" if given == {"column": "y", "kind": "number"} else "binary")


def test_a_row_without_any_label_is_dropped_and_counted():
    table, _, made = make({"y": [1, None, 0], "row": [0, 1, 2]}, {"y": "y"})
    assert table.frame["row"].to_list() == [0, 2] and made["y"][:, 0].tolist() == [1, 0]
    assert table.counts == {"dropped: rows without a label": 1}
    table, _, made = make({"y": [1.0, NAN, None], "z": [None, 3.5, None]},
                          {"y": {"column": "y", "positive": ">= 1"}, "z": {"column": "z", "kind": "number"}})
    np.testing.assert_array_equal(made["y"][:, 0], [1, NAN])
    np.testing.assert_array_equal(made["z"][:, 0], np.float32([NAN, 3.5]))
    with pytest.raises(DataError, match="no row of .* has a label"):
        make({"y": pl.Series([None, None], dtype=pl.Int64)}, {"y": "y"})


def test_a_label_outside_zero_and_one():
    with pytest.raises(DataError) as caught:
        make({"y": [1, 0, 2, 3, 4, 5], "z": [0.5, 0, 1, 1, 1, 1]}, {"y": "y", "z": "z"})
    assert "4 of 6 labels of 'y' (column 'y'), such as 2, 3, 4" in str(caught.value)
    assert "1 of 6 labels of 'z' (column 'z'), such as 0.5" in str(caught.value)
    assert "positive: '>= 4'" in str(caught.value)
    with pytest.raises(DataError, match="2 of 2 labels of 'y'"):
        make({"y": ["yes", "no"]}, {"y": "y"})


def test_what_comes_after_is_zero_where_the_other_did_not_happen():
    labels = {"return": {"column": "r", "after": "buy"}, "click": "c", "buy": {"column": "b", "after": "click"}}
    _, heads, made = make(
        {"c": [0, 1, 1, 1, None], "b": [None, None, 1, 0, 1], "r": [None, None, 1, None, 0]}, labels
    )
    np.testing.assert_array_equal(made["buy"][:, 0], [0, NAN, 1, 0, 1])
    np.testing.assert_array_equal(made["return"][:, 0], [0, NAN, 1, 0, 0])
    assert heads == (Head("return", after="buy"), Head("click"), Head("buy", after="click"))


def test_what_comes_after_cannot_have_happened_alone():
    labels = {"click": "c", "buy": {"column": "b", "after": "click"}}
    table, _, made = make({"c": [0] + [1] * 39, "b": [1] * 40}, labels)
    assert table.bad["reason"].to_list() == ["b says that buy happened without click"]
    assert len(made["click"]) == len(made["buy"]) == table.frame.height == 39
    with pytest.raises(DataError, match="buy happened without click in 2 of 3 rows"):
        make({"c": [0, 0, 1], "b": [1, 1, 1]}, labels)


def test_tags():
    column = [["b", "a"], [], None, ["c", "b"], ["b"]]
    table, (head,), made = make({"t": column}, {"t": "t"})  # a list can be nothing else
    assert head == Head("t", "tags", ("a", "b", "c"))
    np.testing.assert_array_equal(made["t"], [[1, 1, 0], [0, 0, 0], [0, 1, 1], [0, 1, 0]])
    assert table.counts["dropped: rows without a label"] == 1
    table, (head,), made = make({"t": column}, {"t": {"column": "t", "classes": 2}})
    assert head.classes == ("a", "b") and table.counts["tags of t outside its classes"] == 1
    joined = ["b|a", "", None, "c | b", "b"]
    for labels in ({"kind": "tags"}, {"delimiter": "|"}, {"classes": ["c", "b", "z"]}):
        _, (head,), made = make({"t": joined}, {"t": labels})
    assert head.classes == ("c", "b", "z")
    np.testing.assert_array_equal(made["t"], [[0, 1, 0], [0, 0, 0], [1, 1, 0], [0, 1, 0]])
    with pytest.raises(DataError, match="holds no tag"):
        make({"t": pl.Series([[], None], dtype=pl.List(pl.String))}, {"t": {"kind": "tags"}})
    with pytest.raises(DataError, match="of type Int64"):
        make({"t": [1, 2]}, {"t": {"kind": "tags"}})


def test_classes_are_those_of_train_rows():
    column = [["b"], ["a", "b"], ["z", "a"], ["z"], ["z"]]
    train = [True, True, False, False, False]
    table, (head,), made = make({"t": column}, {"t": "t"}, train)
    assert head.classes == ("a", "b")
    np.testing.assert_array_equal(made["t"], [[0, 1], [1, 1], [1, 0], [0, 0], [0, 0]])
    assert table.counts == {"tags of t outside its classes, in valid and test": 3}
    table, (head,), _ = make({"t": column}, {"t": {"column": "t", "classes": 1}}, train)
    assert head.classes == ("b",), "the most frequent of train, not of all"
    assert table.counts == {"tags of t outside its classes": 1, "tags of t outside its classes, in valid and test": 4}
    assert make({"t": column}, {"t": {"classes": ["z"]}}, train)[1][0].classes == ("z",), "given ones stay"
    with pytest.raises(DataError, match="holds no tag in train rows"):
        make({"t": [[], ["a"]]}, {"t": "t"}, [True, False])


@pytest.mark.parametrize(("labels", "places"), [
    ({}, [""]), ({"y": 3}, ["y"]), ({"y": {"kind": "binry"}}, ["y.kind"]), ({"y": {"positiv": "> 3"}}, ["y.positiv"]),
    ({"y": {"positive": "4"}}, ["y.positive"]), ({"y": {"positive": "> four"}}, ["y.positive"]),
    ({"y": {"kind": "number", "positive": "> 4"}}, ["y.positive"]), ({"y": {"after": "z"}}, ["y.after"]),
    ({"y": {"after": "y"}}, ["y.after"]), ({"y": {"classes": []}}, ["y.classes"]),
    ({"y": {"classes": 0}}, ["y.classes"]), ({"y": {"kind": "tags", "classes": ["a", "a"]}}, ["y.classes"]),
    ({"y": {"after": "z"}, "z": {"after": "y"}}, ["y.after", "z.after"]),
    ({"y": {"after": "z"}, "z": {"kind": "number"}}, ["y.after"]), ({"y": {"column": ""}}, ["y.column"]),
])
def test_faults(labels, places):
    assert [".".join(place) for place, _, _ in label_faults(labels)] == places


def test_which_columns_are_numbers():
    labels = {"a": "x", "b": {"column": "y", "positive": "== buy"}, "c": {"column": "z", "kind": "number"},
              "d": {"column": "w", "kind": "tags"}, "e": {"column": "v", "positive": "> 3"}}
    assert list(label_faults(labels)) == []
    assert numeric_labels(labels) == ["x", "z", "v"]
