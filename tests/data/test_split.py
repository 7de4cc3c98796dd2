from __future__ import annotations

import dataclasses

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distilrec.data.build import build_dataset
from distilrec.data.leaks import check_leaks
from distilrec.data.split import CARVED, split, split_settings
from distilrec.errors import DataError


def dataset(rows, columns=("user_id", "item_id", "timestamp")):
    return build_dataset("t", pl.DataFrame(rows, schema=list(columns), orient="row"))


def parts(result, user=0):
    """The item keys of a user's three parts."""
    b, keys = result.bounds[user], result.dataset.item_keys
    return [[keys[i] for i in result.items[b[p] : b[p + 1]]] for p in range(3)]


def test_leave_last_out_by_hand():
    data = dataset([(1, "a", 3), (1, "b", 1), (1, "c", 2), (1, "d", 9), (2, "a", 1), (2, "b", 2), (3, "c", 1)])
    result = split(data)
    assert parts(result, 0) == [["b", "c"], ["a"], ["d"]]
    assert parts(result, 1) == [["a", "b"], [], []]
    assert parts(result, 2) == [["c"], [], []]
    assert result.counts["users with fewer than 3 events, all in train"] == 2
    assert result.bounds.tolist() == [[0, 2, 3, 4], [4, 6, 6, 6], [6, 7, 7, 7]]


def test_ties_keep_the_order_of_the_file():
    result = split(dataset([(1, item, 7) for item in "zebra"]))
    assert parts(result) == [["z", "e", "b"], ["r"], ["a"]]


def test_rows_without_order_are_dropped_and_counted():
    rows = [(1, "a", 1), (1, "b", 2), (1, "c", 3), (1, "x", None), (2, "x", None)]
    result = split(dataset(rows))
    assert parts(result) == [["a"], ["b"], ["c"]]
    assert result.counts["rows without order"] == 2
    assert sum(split(dataset(rows), "random", valid=0.2, test=0.2).n_events(p) for p in ("train", "valid", "test")) == 5
    with pytest.raises(DataError, match="neither times nor positions"):
        split(dataset([(1, "a"), (1, "b")], ("user_id", "item_id")))


def test_time_by_hand():
    data = dataset([(1, "a", 10), (1, "b", 20), (1, "c", 30), (2, "d", 15), (2, "e", 25), (2, "f", 30), (3, "g", 31)])
    result = split(data, "time", valid_from=20, test_from=30)
    assert parts(result, 0) == [["a"], ["b"], ["c"]]
    assert parts(result, 1) == [["d"], ["e"], ["f"]]
    assert parts(result, 2) == [[], [], ["g"]]
    assert result.counts["users without train events"] == 1
    same = split(data, "time", valid_from="1970-01-01T00:00:20", test_from="1970-01-01T00:00:30+00:00")
    assert same.digest == result.digest


def test_time_keeps_one_second_together():
    data = dataset([(u, "a", t) for u, t in enumerate([1, 2, 3, 4, 5, 5, 5, 5, 6, 6])])
    result = split(data, "time", valid=0.3, test=0.2)
    assert [result.n_events(p) for p in ("train", "valid", "test")] == [4, 4, 2]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"valid_from": 99}, "after test_from"),
        ({"valid_from": "soon"}, "not a moment"),
        ({"valid_from": 0, "test_from": 3}, "leaves train empty"),
        ({"valid": 0.6, "test": 0.5}, "sum below 1"),
        ({"test": 0}, "between 0 and 1"),
        ({"tset": 0.1}, "no setting 'tset', did you mean 'test'"),
    ],
)
def test_time_with_wrong_settings(settings, message):
    with pytest.raises(DataError, match=message):
        split(dataset([(1, "a", 1), (1, "b", 2), (1, "c", 3)]), "time", **settings)


def test_positions_are_no_times():
    data = dataset([(1, "a", 0), (1, "b", 1), (1, "c", 2)], ("user_id", "item_id", "seq_pos"))
    assert parts(split(data)) == [["a"], ["b"], ["c"]]
    with pytest.raises(DataError, match="positions but no times"):
        split(data, "time")


def test_k_fold_tests_every_event_once():
    data = dataset([(u, i, 10 * u + i) for u in range(5) for i in range(4)])
    seen = []
    for fold in range(4):
        result = split(data, "k-fold", folds=4, fold=fold, seed=3)
        users, items, _ = result.events("test")
        seen += list(zip(users.tolist(), items.tolist(), strict=True))
        assert result.method == f"k-fold {fold + 1}/4"
        assert result.n_events("valid") > 0
    assert len(seen) == 20 == len(set(seen))
    with pytest.raises(DataError, match="fold 4 of 4"):
        split(data, "k-fold", folds=4, fold=4)


def given_log(names):
    return dataset([(1, i, name) for i, name in enumerate(names)], ("user_id", "item_id", "split"))


def test_given():
    result = split(given_log(["train", "Test", "validation", "train", None]), "given")
    assert parts(result) == [["0", "3"], ["2"], ["1"]]
    assert result.counts["rows without a part"] == 1
    assert result.method == "given"
    with pytest.raises(DataError, match="holds 'trian'"):
        given_log(["trian", "test"])
    with pytest.raises(DataError, match="0 test rows"):
        split(given_log(["train", "valid"]), "given")
    with pytest.raises(DataError, match="no column 'split'"):
        split(dataset([(1, 1, 1)]), "given")


def test_given_without_valid_carves_it_from_train_and_says_so():
    names = ["train"] * 40 + ["test"] * 5
    result = split(given_log(names), "given", seed=1)
    assert [result.n_events(p) for p in ("train", "valid", "test")] == [36, 4, 5]
    assert result.method == CARVED
    assert result.counts["rows moved from train to valid"] == 4
    assert (
        split(given_log(names), "given", seed=1).digest
        == result.digest
        != split(given_log(names), "given", seed=2).digest
    )


def test_leaks_are_refused():
    with pytest.raises(DataError, match=r"1 events .* occur more than once: user 1, item 7, time 5"):
        split(
            dataset([(1, 7, 5, "train"), (1, 7, 5, "test")], ("user_id", "item_id", "timestamp", "split")),
            "given",
            carve=0.5,
        )
    repeated = dataset([(1, "a", 1), (1, "b", 2), (1, "c", 3), (1, "c", 3)])
    with pytest.raises(DataError, match="occur more than once"):
        split(repeated)
    assert split(repeated, check=False).n_events("test") == 1
    assert (
        split(dataset([(1, "a", 1), (1, "b", 2), (1, "c", 3), (1, "c", 4)])).n_events("test") == 1
    )  # another time, another event


def test_time_leaks_are_found():
    good = split(dataset([(u, i, 10 * i + 15 * u) for u in range(2) for i in range(4)]), "leave-last-out")
    with pytest.raises(DataError, match="come before the event that precedes them"):
        check_leaks(dataclasses.replace(good, timestamps=good.timestamps[::-1].copy()))
    with pytest.raises(DataError, match="train runs until"):
        check_leaks(dataclasses.replace(good, method="time"))  # every user's own order is right, that over all is not


@pytest.mark.parametrize(
    ("settings", "message"),
    [("leave-last", "did you mean 'leave-last-out'"), ({"method": "random", "tst": 1}, "'tst'")],
)
def test_settings_with_a_typo(settings, message):
    with pytest.raises(DataError, match=message):
        split_settings(settings)


EVENTS = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 8), st.integers(0, 30)), min_size=6, max_size=60, unique=True
)


@given(EVENTS, st.sampled_from(["leave-last-out", "time", "random", "k-fold"]), st.integers(0, 5))
def test_every_event_is_in_exactly_one_part(rows, method, seed):
    if method == "time":  # many events of one second may leave a part empty, which is refused
        rows = [(user, item, n) for n, (user, item, _) in enumerate(rows)]
    data = dataset(rows)
    result = split(data, method, seed=seed, **({"valid": 0.2, "test": 0.2} if method in ("time", "random") else {}))
    found = []
    for part in ("train", "valid", "test"):
        users, items, keys = result.events(part)
        found += list(zip(users.tolist(), items.tolist(), result.timestamps[keys].tolist(), strict=True))
        for user in np.unique(users):
            assert (np.diff(result.timestamps[keys[users == user]]) >= 0).all()
    known = data.interactions
    assert sorted(found) == sorted(
        zip(known.user_ids.tolist(), known.item_ids.tolist(), known.timestamps.tolist(), strict=True)
    )
    if method == "leave-last-out":  # a naive second implementation
        for user, key in enumerate(data.user_keys):
            own = sorted((t, n, str(i)) for n, (u, i, t) in enumerate(rows) if str(u) == key)
            items = [item for _, _, item in own]
            assert parts(result, user) == (
                [items[:-2], items[-2:-1], items[-1:]] if len(items) >= 3 else [items, [], []]
            )
