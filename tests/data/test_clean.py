from __future__ import annotations

import math

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distilrec.data.clean import Cleaning, clean, cleaning
from distilrec.errors import DataError


def log(rows, columns=("user_id", "item_id", "timestamp")):
    return pl.DataFrame(rows, schema=list(columns), orient="row")


def kept(rows, columns=("user_id", "item_id", "timestamp"), **rules):
    frame, counts = clean(log(rows, columns), rules)
    return frame.rows(), counts


def test_exact_duplicates_keep_the_first():
    rows, counts = kept([(1, 1, 5), (1, 1, 5), (1, 1, 6), (2, 1, 5), (1, 1, 5)])
    assert rows == [(1, 1, 5), (1, 1, 6), (2, 1, 5)]
    assert counts == {"dropped: exact duplicates": 2}


def test_a_repeat_across_parts_is_no_duplicate():
    rows, _ = kept([(1, 1, "train"), (1, 1, "test"), (1, 1, "train")], ("user_id", "item_id", "split"))
    assert rows == [(1, 1, "train"), (1, 1, "test")]


NEAR = [(1, 1, 0), (1, 1, 8), (1, 2, 9), (1, 1, 16), (1, 1, 100), (2, 1, 17)]


@pytest.mark.parametrize(
    ("window", "keep", "expected"),
    [
        (10, "last", [(1, 2, 9), (1, 1, 16), (1, 1, 100), (2, 1, 17)]),
        (10, "first", [(1, 1, 0), (1, 2, 9), (1, 1, 100), (2, 1, 17)]),
        (7, "last", NEAR),
        (math.inf, "first", [(1, 1, 0), (1, 2, 9), (2, 1, 17)]),
        (math.inf, "last", [(1, 2, 9), (1, 1, 100), (2, 1, 17)]),
    ],
)
def test_near_duplicates(window, keep, expected):
    rows, counts = kept(NEAR, near_duplicates=window, keep=keep)
    assert rows == expected
    assert counts["dropped: near duplicates"] == len(NEAR) - len(expected)


def test_near_duplicates_do_not_depend_on_the_order_of_rows():
    rows, _ = kept(NEAR[::-1], near_duplicates=10, keep="first")
    assert rows == [(2, 1, 17), (1, 1, 100), (1, 2, 9), (1, 1, 0)]


def test_an_unknown_time_is_near_to_nothing():
    rows, _ = kept([(1, 1, None), (1, 1, 3), (1, 1, 4)], near_duplicates=10)
    assert rows == [(1, 1, None), (1, 1, 3)]


def test_the_first_event_of_a_burst_stays_with_its_time_and_rating_unless_the_last_is_asked_for():
    """Each event is near to the one before it, so the burst is one although its ends lie 16 seconds apart."""
    burst = [(1, 1, 100, 3.0), (1, 1, 108, 4.0), (1, 2, 110, 1.0), (1, 1, 116, 5.0)]
    names = ("user_id", "item_id", "timestamp", "rating")
    assert kept(burst, names, near_duplicates=10)[0] == [burst[0], burst[2]]
    assert kept(burst, names, near_duplicates=10, keep="last")[0] == [burst[2], burst[3]]
    assert kept(burst[::-1], names, near_duplicates=10)[0] == [burst[2], burst[0]], "by time, not by place"
    same = [(1, 1, 100, 3.0), (1, 1, 100, 4.0)]  # the same second: by place in the file
    assert kept(same, names, near_duplicates=0, exact_duplicates=False)[0] == same[:1]


def test_bots_one_shot_users_noise_and_label():
    day = 86_400
    events = [("bot", i, i) for i in range(4)] + [("slow", i, i * day) for i in range(4)] + [("once", 1, 1)]
    rows, counts = kept(events, max_events_per_day=3, drop_one_shot_users=True)
    assert {row[0] for row in rows} == {"slow"}
    assert counts["dropped: bots (events per day)"] == 4
    assert counts["dropped: one-shot users"] == 1
    rows, counts = kept(events, max_events_per_user=3)
    assert rows == [("once", 1, 1)]
    assert counts["dropped: bots (events in all)"] == 8
    rated = [(1, 1, 5.0), (1, 2, 3.0), (1, 3, None), (1, 4, 9.0)]
    rows, counts = kept(rated, ("user_id", "item_id", "rating"), min_rating=4, rating_range=[1, 5])
    assert rows == [(1, 1, 5.0)]
    assert counts == {"dropped: exact duplicates": 0, "dropped: rating out of range": 2, "dropped: rating too low": 1}
    rows, _ = kept([(1, 1, "click"), (1, 2, "buy"), (1, 3, None)], ("user_id", "item_id", "event"), events="buy")
    assert rows == [(1, 2, "buy")]
    rows, _ = kept([(1, 1, 10), (1, 2, 99)], time_range=[0, 50])
    assert rows == [(1, 1, 10)]


def test_core_runs_until_nothing_changes():
    # dropping item 9 leaves user 3 with one event, which leaves item 2 with one, which leaves user 2 with one, ...
    pairs = [(1, 1), (2, 1), (2, 2), (3, 2), (3, 9)]
    assert kept(pairs, ("user_id", "item_id"), user_core=2, item_core=2)[0] == []
    assert kept([*pairs, (1, 2)], ("user_id", "item_id"), user_core=2, item_core=2)[0] == [
        (1, 1),
        (2, 1),
        (2, 2),
        (1, 2),
    ]


@given(st.sets(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1), st.integers(1, 4), st.integers(1, 4))
def test_core_is_the_one_that_naive_removal_finds(pairs, user_core, item_core):
    alive = set(pairs)
    while True:
        bad = {
            p
            for p in alive
            if sum(q[0] == p[0] for q in alive) < user_core or sum(q[1] == p[1] for q in alive) < item_core
        }
        if not bad:
            break
        alive.discard(min(bad))  # one at a time, in another order than the code
    rows, counts = kept(sorted(pairs), ("user_id", "item_id"), user_core=user_core, item_core=item_core)
    assert set(rows) == alive
    assert counts["dropped: k-core"] == len(pairs) - len(alive)


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3), st.integers(0, 9)), min_size=1, max_size=40),
    st.integers(0, 5),
)
def test_every_row_is_kept_or_counted(rows, window):
    left, counts = kept(rows, near_duplicates=window, max_events_per_day=8, drop_one_shot_users=True, user_core=2)
    assert len(left) + sum(counts.values()) == len(rows)
    assert len(set(left)) == len(left)
    assert set(left) <= set(rows)


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"min_ratng": 4}, "unknown cleaning rule 'min_ratng', did you mean 'min_rating'"),
        ({"user_core": 0}, "user_core is 0"),
        ({"user_core": 2.5}, "user_core is 2.5"),
        ({"keep": "both"}, "keep is 'both'"),
        ({"exact_duplicates": 1}, "true or false"),
        ({"rating_range": [5, 1]}, "lowest, highest"),
        ({"near_duplicates": -1}, "not negative"),
        ({"min_rating": math.nan}, "min_rating is nan"),
        ({"events": []}, "a list of names"),
        ({"events": ["buy"]}, "needs a column 'event'"),
        ({"min_rating": 4}, "needs a column 'rating'"),
    ],
)
def test_wrong_rules(rules, message):
    with pytest.raises(DataError, match=message):
        clean(log([(1, 1, 1)]), rules)


def test_defaults_drop_exact_duplicates_only():
    assert cleaning(None) == Cleaning() == cleaning({})
    assert kept([(1, 1, 1)])[1] == {"dropped: exact duplicates": 0}
