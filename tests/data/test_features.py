"""Features fitted on train rows: vocabularies, edges, scales, faults; and encoding of frames as of single values."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distilrec.data import describe_features, fit_features
from distilrec.data.features import collision_rate, encode_frame, spec_faults
from distilrec.errors import DataError
from distilrec.features import CROSSED, Feature, encode
from rows_world import table

FRAME = pl.DataFrame({
    "user": ["b", "a", "a", None, "c", "z"],
    "item": [3, 1, 3, 2, None, 9],
    "price": [1.0, 3.0, None, 5.0, 3.0, 1000.0],
    "flat": [2, 2, 2, 2, 2, 5],
    "tags": [["x", "y"], ["y"], [], None, ["y", None], ["w"]],
    "past": [[], [3], [3, 1], None, [9, 9], [1]],
    "title": ["A big cup", "big", None, "", "Cup!", "odd"],
    "photo": [[1.0, 2.0], None, [0.0, 0.0], [1.0, 1.0], None, [5.0, 5.0]],
    "empty": pl.Series([None] * 6, dtype=pl.Float64),
})
TRAIN = np.arange(5)


def fit(name: str, given, **others) -> Feature:
    return fit_features({name: given, **others}, FRAME, TRAIN)[name]


def test_vocabulary_by_frequency_then_value_from_train_rows_only():
    assert fit("user", "category") == Feature("user", "category", size=4, vocabulary=("a", "b", "c"))
    assert fit("item", "category").vocabulary == ("3", "1", "2")
    assert fit("user", {"kind": "category", "min_count": 2}).vocabulary == ("a",)
    assert fit("item", {"kind": "category", "max_size": 2}).vocabulary == ("3", "1")
    assert fit("tags", "list") == Feature("tags", "list", size=3, vocabulary=("y", "x"), max_length=16)
    text = fit("words", {"kind": "text", "column": "title", "max_length": 4})
    assert text == Feature("words", "text", ("title",), size=4, vocabulary=("big", "cup", "a"), max_length=4)


def test_a_cross_is_a_category_of_both_values():
    cross = fit("both", {"cross": ["user", "item"]})
    assert cross.vocabulary == (f"a{CROSSED}1", f"a{CROSSED}3", f"b{CROSSED}3")
    assert encode_frame(cross, FRAME).tolist() == [3, 1, 2, 0, 0, 0]
    assert cross == fit("both", {"kind": "category", "columns": ["user", "item"]})


def test_numbers_are_measured_on_train_rows():
    price = fit("price", "number")
    assert (price.mean, price.scale) == (3.0, pytest.approx(np.std([1, 3, 5, 3])))
    logged = fit("price", {"kind": "number", "log": True})
    assert logged.mean == pytest.approx(np.log1p([1, 3, 5, 3]).mean())
    assert (fit("flat", "number").mean, fit("flat", "number").scale) == (2.0, 1.0)
    assert (fit("empty", "number").mean, fit("empty", "number").scale) == (0.0, 1.0)


def test_buckets_have_the_edges_of_train_quantiles():
    bucketed = fit("price", {"kind": "category", "buckets": 2})
    assert (bucketed.edges, bucketed.size) == ((3.0,), 3)
    assert encode_frame(bucketed, FRAME).tolist() == [1, 2, 0, 2, 2, 2]
    assert fit("price", {"kind": "category", "edges": [2, 10]}).edges == (2.0, 10.0)
    for name in ("flat", "empty"):  # one edge at least, for without any it would be a category of text
        assert len(fit(name, {"kind": "category", "buckets": 4}).edges) == 1


def test_a_sequence_has_the_vocabulary_of_its_category():
    past = fit("past", {"kind": "sequence", "of": "item", "max_length": 1, "required": True}, item="category")
    assert past.vocabulary == ("3", "1", "2") and past.of == "item" and past.required
    assert encode_frame(past, FRAME).tolist() == [[-1], [1], [2], [-1], [0], [2]]


def test_hashes_and_their_collisions():
    hashed = fit("user", {"kind": "category", "hash": 2})
    assert (hashed.size, hashed.hashed, hashed.vocabulary) == (3, True, ())
    ids = encode(hashed, [["a", "b", "c"]])
    shared = sum(ids.tolist().count(i) > 1 for i in ids)
    assert collision_rate(hashed, [["a", "b", "c", "a", None]]) == pytest.approx(shared / 3)
    assert collision_rate(Feature("u", "category", size=10**6, hashed=True), [["a", "b", "c"]]) == 0.0
    assert collision_rate(Feature("u", "category", size=2, hashed=True), [["a", "b", "c"]]) == 1.0


def test_vector():
    assert fit("photo", "vector").dim == 2
    with pytest.raises(DataError, match="no vector in any train row"):
        fit_features({"photo": "vector"}, FRAME, np.array([1, 4]))


VALUE = st.one_of(st.none(), st.sampled_from(["a", "b", "c", "", "zz"]))


@given(st.lists(st.tuples(VALUE, st.one_of(st.none(), st.integers(-3, 3)), st.one_of(st.none(), st.floats(width=32,
       allow_infinity=False, min_value=-100, max_value=100)), st.one_of(st.none(), st.lists(VALUE, max_size=5))),
       min_size=1, max_size=12))
@settings(max_examples=40, deadline=None)
def test_a_frame_is_encoded_as_its_values_are(rows):
    frame = pl.DataFrame(rows, schema={"c": pl.String, "i": pl.Int32, "f": pl.Float64, "l": pl.List(pl.String)},
                         orient="row")
    spec = {
        "c": "category", "i": "category", "f": "category", "n": {"kind": "number", "column": "f"}, "l": "list",
        "s": {"kind": "sequence", "of": "c", "column": "l", "max_length": 2}, "t": {"kind": "text", "column": "c"},
        "x": {"cross": ["c", "i", "f"]}, "h": {"kind": "category", "column": "c", "hash": 3},
        "b": {"kind": "category", "column": "f", "buckets": 3}, "lh": {"kind": "list", "column": "l", "hash": 2},
    }
    for feature in fit_features(spec, frame, np.arange(0, len(rows), 2)).values():
        expected = encode(feature, [frame[source].to_list() for source in feature.sources])
        found = encode_frame(feature, frame)
        assert found.dtype == expected.dtype
        np.testing.assert_array_equal(found, expected)


def test_all_faults_of_a_specification_at_once():
    spec = {
        "a": "categry", "b": {"kind": "number", "lg": True}, "c": {"kind": "category", "hash": 0, "buckets": 3},
        "d": {"kind": "sequence", "of": "e"}, "e": {"cross": ["x", "x"]}, "f": {"min_count": 2},
        "g": {"kind": "category", "edges": [2, 1]}, "h": 3, "i": {"kind": "number", "max_length": 3},
        "j": {"kind": "list", "available": "traning"}, "k": {"kind": "category", "hash": 3, "min_count": 2},
        "l": {"kind": "category", "columns": ["x", "y"], "buckets": 3}, "m": {"kind": "text", "required": 1},
        "n": {"kind": "category", "column": "x", "columns": ["y"]},
    }
    faults = {".".join(place): seen for place, seen, _ in spec_faults(spec)}
    assert "did you mean 'category'" in faults["a.kind"]
    assert "did you mean 'log'" in faults["b.lg"]
    assert "a setting of the kind list and sequence and text" in faults["i.max_length"]
    assert "did you mean 'training'" in faults["j.available"]
    assert set(faults) == {
        "a.kind", "b.lg", "c.hash", "d.of", "e.columns", "f.kind", "g.edges", "h", "i.max_length", "j.available",
        "k.min_count", "l.buckets", "m.required", "n.column",
    }
    with pytest.raises(DataError, match=f"^{len(list(spec_faults(spec)))} faults") as caught:
        fit_features(spec, FRAME, TRAIN)
    assert all(f"features.{place}: " in str(caught.value) for place in faults)
    for nothing in ({}, None, ["a"]):
        assert len(list(spec_faults(nothing))) == 1


def test_all_faults_of_the_columns_at_once():
    frame = FRAME.with_columns(
        mixed=pl.Series(["1", "2", "x", "y", "q", "w"]), uneven=pl.Series([[1.0], [1.0, 2.0], None, None, None, None]),
        when=pl.Series([0] * 6).cast(pl.Datetime), none=pl.Series([None] * 6),
    )
    spec = {
        "usr": "category", "mixed": "number", "uneven": "vector", "when": "category", "none": "number",
        "title": "list", "price": "text", "past": "category", "tags": "vector", "user": "vector",
        "both": {"cross": ["user", "itm"]},
    }
    with pytest.raises(DataError, match="^11 faults") as caught:
        fit_features(spec, frame, TRAIN)
    said = str(caught.value)
    assert "unknown column 'usr', did you mean 'user'?" in said
    assert "features.both: unknown column 'itm', did you mean 'item'?" in said
    assert "features.mixed: column 'mixed' holds text in 4 of 6 rows, such as 'x', 'y', 'q'" in said
    assert "of the lengths 1, 2" in said and "or text with a 'delimiter'" in said


def test_description():
    split = table(400)
    rows = {row["feature"]: row for row in describe_features(split)}
    assert list(rows) == list(split.features)
    test = split.rows("test")
    assert rows["item"]["unknown"]["test"] == pytest.approx((split.columns["item"][test] == 0).mean())
    prices = split.raw.column("price").take(test)
    assert rows["price"]["unknown"]["test"] == pytest.approx(prices.null_count / len(test))
    assert rows["picture"]["size"] == 3 and rows["user"]["size"] == 21 and rows["user"]["collision_rate"] is None
