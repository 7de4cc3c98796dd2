"""Encoding of raw values: one row as many rows, missing and unknown as zero, wrong types refused."""

from __future__ import annotations

import math
import zlib
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distilrec.errors import DataError
from distilrec.features import CROSSED, ID_KINDS, RAGGED_KINDS, Feature, category_keys, encode, words

WORDS = ("a", "b", "3", "true", "ä")
SCALAR = st.one_of(
    st.none(), st.sampled_from(WORDS), st.text(max_size=4), st.integers(-5, 5), st.booleans(),
    st.floats(allow_infinity=False, width=32),
)
NUMBER = st.one_of(st.none(), st.integers(-1000, 1000), st.booleans(), st.floats(-1e6, 1e6), st.just(math.nan))
LIST = st.one_of(st.none(), st.lists(SCALAR, max_size=6))
VOCABULARY = {"size": len(WORDS) + 1, "vocabulary": WORDS}

CATEGORY = Feature("c", "category", **VOCABULARY)
HASHED = Feature("h", "category", size=4, hashed=True)
BUCKETS = Feature("b", "category", size=5, edges=(-1.0, 0.0, 2.5))
NUMBERS = Feature("n", "number", mean=2.0, scale=4.0)
LOG = Feature("l", "number", mean=1.0, scale=2.0, log=True)
SET = Feature("s", "list", max_length=3, **VOCABULARY)
SEQUENCE = Feature("q", "sequence", of="c", max_length=3, **VOCABULARY)
TEXT = Feature("t", "text", max_length=3, **VOCABULARY)
VECTOR = Feature("v", "vector", dim=2)
CASES = [
    (CATEGORY, SCALAR), (HASHED, SCALAR), (BUCKETS, NUMBER), (NUMBERS, NUMBER), (LOG, NUMBER), (SET, LIST),
    (SEQUENCE, LIST), (TEXT, st.one_of(st.none(), st.text(max_size=12))),
    (VECTOR, st.one_of(st.none(), st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=2))),
]


@pytest.mark.parametrize(("feature", "values"), CASES, ids=[one.name for one, _ in CASES])
@given(data=st.data())
@settings(max_examples=60, deadline=None)
def test_one_row_is_encoded_as_many_are(feature, values, data):
    rows = data.draw(st.lists(values, max_size=6))
    many = encode(feature, [rows])
    assert len(many) == len(rows)
    assert many.dtype == (np.int32 if feature.kind in ID_KINDS else np.float32)
    if feature.kind in ID_KINDS:
        assert many.size == 0 or (many.min() >= (-1 if feature.kind in RAGGED_KINDS else 0) and
                                  many.max() < feature.size)
    else:
        assert np.isfinite(many).all()
    for row, value in enumerate(rows):
        one = encode(feature, [[value]])[0]
        if feature.kind in RAGGED_KINDS:
            assert one.shape[0] <= many.shape[1]
            one = np.concatenate([one, np.full(many.shape[1] - len(one), -1)])
        np.testing.assert_array_equal(one, many[row])


@given(st.lists(SCALAR, max_size=6), st.lists(SCALAR, max_size=6))
def test_a_cross_is_missing_as_soon_as_one_part_is(left, right):
    n = min(len(left), len(right))
    keys = category_keys([left[:n], right[:n]])
    for key, a, b in zip(keys, category_keys([left[:n]]), category_keys([right[:n]]), strict=True):
        assert key == (None if a is None or b is None else f"{a}{CROSSED}{b}")


@pytest.mark.parametrize("feature", [CATEGORY, HASHED, BUCKETS])
@pytest.mark.parametrize("missing", [None, math.nan])
def test_missing_categories_are_zero(feature, missing):
    assert encode(feature, [[missing]]).tolist() == [0]


def test_categories():
    assert encode(CATEGORY, [["a", "ä", "zzz", "", None, 3, 3.0, np.int64(3), "3", True, 3.5]]).tolist() == [
        1, 5, 0, 0, 0, 3, 3, 3, 3, 4, 0,
    ]
    crossed = Feature("x", "category", ("u", "v"), size=2, vocabulary=(f"a{CROSSED}1",))
    assert encode(crossed, [["a", "a", None, "b"], [1, None, 1, 1]]).tolist() == [1, 0, 0, 0]


def test_hashes_are_crc32_of_the_text_and_true_is_not_one():
    expected = [1 + zlib.crc32(text) % 3 for text in (b"1", b"true", b"1", "ä".encode())]
    assert encode(HASHED, [[1, True, "1", "ä"]]).tolist() == expected
    wide = Feature("h", "category", size=10_001, hashed=True)
    one, true = encode(wide, [[1, True]]).tolist()  # equal and of one hash in Python
    assert one != true
    assert encode(wide, [[True, 1]]).tolist() == [true, one]


def test_buckets_count_the_edges_at_or_below():
    assert encode(BUCKETS, [[-2, -1, -0.5, 0, 2.4, 2.5, 9, None]]).tolist() == [1, 2, 2, 3, 3, 4, 4, 0]


def test_numbers_are_standardized_and_missing_is_the_mean():
    np.testing.assert_array_equal(encode(NUMBERS, [[2, 6.0, None, math.nan, True]]), np.float32([0, 1, 0, 0, -0.25]))
    np.testing.assert_array_equal(encode(NUMBERS, [np.array([2, 6], dtype=np.int8)]), np.float32([0, 1]))
    np.testing.assert_allclose(
        encode(LOG, [[-3, 0, 3]]), [(-math.log(4) - 1) / 2, -0.5, (math.log(4) - 1) / 2], rtol=1e-6
    )


def test_lists_keep_the_first_and_sequences_the_last():
    rows = [["a", "b", "3", "zzz"], [], None, [None, "b"]]
    assert encode(SET, [rows]).tolist() == [[1, 2, 3], [-1, -1, -1], [-1, -1, -1], [0, 2, -1]]
    assert encode(SEQUENCE, [rows]).tolist() == [[2, 3, 0], [-1, -1, -1], [-1, -1, -1], [0, 2, -1]]
    assert encode(SEQUENCE, [[[], None]]).tolist() == [[-1], [-1]]
    nothing = Feature("q", "sequence", of="c", max_length=0, **VOCABULARY)
    assert encode(nothing, [[["a", "b"]]]).tolist() == [[-1]]


def test_text_is_words():
    assert words("Ä b_c, D3-e!") == ["ä", "b", "c", "d3", "e"]
    assert encode(TEXT, [["A, b? who 3", ""]]).tolist() == [[1, 2, 0], [-1, -1, -1]]


def test_vectors():
    np.testing.assert_array_equal(encode(VECTOR, [[[1, 2], None, np.float64([3, 4])]]), [[1, 2], [0, 0], [3, 4]])


@pytest.mark.parametrize(("feature", "value"), [
    (NUMBERS, "5"), (NUMBERS, math.inf), (NUMBERS, 1e300), (NUMBERS, 10**400), (NUMBERS, [1]), (BUCKETS, "x"),
    (BUCKETS, -math.inf), (SET, "a|b"), (SET, 3), (SET, {"a": 1}), (SET, b"ab"), (TEXT, 3), (VECTOR, [1]),
    (VECTOR, ["1", "2"]), (VECTOR, [1, math.nan]), (VECTOR, [1, 1e300]), (VECTOR, [[1], [1, 2]]), (VECTOR, 1.0),
    (VECTOR, "ab"),
])
def test_wrong_values_name_feature_and_row(feature, value):
    fine = [1.0, 2.0] if feature.kind == "vector" else None
    with pytest.raises(DataError, match=rf"feature '{feature.name}', row 1") as caught:
        encode(feature, [[fine, value]])
    assert "expected" in str(caught.value)


@pytest.mark.parametrize("value", [["a"], ("a",), {"a": 1}, np.array(["a"])])
@pytest.mark.parametrize("feature", [CATEGORY, HASHED])
def test_a_list_is_no_category(feature, value):
    with pytest.raises(DataError, match="where one category value belongs"):
        encode(feature, [[value]])


@pytest.mark.parametrize("feature", [one for one, _ in CASES], ids=[one.name for one, _ in CASES])
def test_json_round_trip(feature):
    import json

    assert Feature.from_json(json.loads(json.dumps(feature.to_json()))) == feature


def test_a_whole_number_written_with_a_point_is_that_number():
    texts = ["3.0", "-12.0", "0.0", "007.0", "3.00", "1.5", "v1.0", ".0", "", None]
    assert category_keys([texts]) == ["3", "-12", "0", "007.0", "3.00", "1.5", "v1.0", ".0", None, None]
    assert category_keys([[*texts, 1]])[:-1] == category_keys([texts])
    assert category_keys([[Decimal("3.00"), Decimal("2.50"), Decimal(10**20)]]) == ["3", "2.5", str(10**20)]
