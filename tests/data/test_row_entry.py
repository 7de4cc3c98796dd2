"""From a table to a RowSplit: nothing learned outside train, every drop counted, every fault told."""

from __future__ import annotations

import time

import numpy as np
import polars as pl
import pytest

from distilrec.data import prepare_rows
from distilrec.errors import DataError
from distilrec.features import encode


def log(n: int = 400, seed: int = 0) -> pl.DataFrame:
    rng = np.random.default_rng(seed)
    return pl.DataFrame({
        "user": [f"u{u}" for u in rng.integers(30, size=n)], "item": rng.integers(1, 20, n),
        "price": rng.normal(10, 3, n).round(2), "past": rng.integers(1, 20, (n, 3)).tolist(),
        "label": rng.integers(0, 2, n), "stars": rng.integers(1, 6, n), "weight": rng.random(n),
        "timestamp": np.sort(rng.integers(0, 10**6, n)),
    })


FEATURES = {"user": "category", "item": "category", "price": "number", "past": {"kind": "sequence", "of": "item"}}


def test_everything_fits_together(tmp_path):
    frame = log()
    frame.write_parquet(tmp_path / "clicks.parquet")
    items = pl.DataFrame({"item": range(1, 20), "genres": ["x|y"] * 19})
    split = prepare_rows(
        tmp_path / "clicks.parquet", features={**FEATURES, "genres": {"kind": "list", "delimiter": "|"}},
        labels={"click": "label", "rating": {"column": "stars", "kind": "number"}}, group="user", weight="weight",
        split="time", joins=[{"frame": items, "on": "item"}],
    )
    assert (split.name, split.method, len(split)) == ("clicks", "time", 400)
    assert [split.n_rows(part) for part in ("train", "valid", "test")] == [320, 40, 40]
    train = frame[:320]
    assert set(split.features["user"].vocabulary) == set(train["user"])
    assert split.features["price"].mean == pytest.approx(train["price"].mean())
    for name, feature in split.features.items():
        expected = encode(feature, [split.raw.column(name).to_pylist()])
        np.testing.assert_array_equal(split.columns[name], expected)
    np.testing.assert_array_equal(split.label_matrix(np.arange(400)), frame.select("label", "stars").to_numpy())
    np.testing.assert_allclose(split.weights, frame["weight"].to_numpy(), rtol=1e-6)
    users = np.array(frame["user"])
    assert split.groups is not None and split.groups.dtype == np.int32
    assert (np.equal.outer(users, users) == np.equal.outer(split.groups, split.groups)).all()
    assert "_line" not in split.raw.column_names and split.quarantine is None
    assert split.counts["rows kept"] == split.counts["rows read"] == 400


def test_what_is_dropped_is_counted(tmp_path):
    frame = log().with_columns(
        pl.col("label").cast(pl.String), pl.col("price").cast(pl.String),
        split=pl.Series(["train"] * 300 + ["test"] * 50 + ["train"] * 49 + [None]),
    ).drop("past")
    frame[3, "price"] = "dear"
    frame[5, "label"] = None
    frame[7, "weight"] = -1.0
    frame[9, "user"] = None
    frame.write_csv(tmp_path / "x.csv")
    split = prepare_rows(
        tmp_path / "x.csv", features={"item": "category", "price": "number"}, labels={"y": "label"}, split="given",
        group="user", weight="weight",
    )
    assert split.quarantine is not None
    assert [(row["line"], row["reason"]) for row in split.quarantine.to_pylist()] == [
        (5, "price is not a finite number"), (9, "weight is not a number from 0"), (11, "user is empty"),
    ]
    assert split.counts == {
        "rows read": 400, "dropped: bad rows, in quarantine": 3, "dropped: rows without a label": 1,
        "dropped: rows without a part": 1, "rows moved from train to valid": 35, "rows kept": 395,
    }
    assert len(split) == 395 == split.raw.num_rows
    assert split.raw.column("price").null_count == 0


def test_classes_of_tags_are_those_of_train():
    frame = log(100).with_columns(tags=pl.Series([["a"], ["b"]] * 40 + [["late", "a"]] * 20))
    split = prepare_rows(frame, features={"item": "category"}, labels={"t": "tags"}, split="time")
    assert split.heads[0].classes == ("a", "b") and split.labels["t"].shape == (100, 2)
    assert split.counts["tags of t outside its classes, in valid and test"] == 20


def test_same_seed_same_digest():
    arguments = {"features": FEATURES, "labels": {"y": "label"}}
    first = prepare_rows(log(), **arguments, seed=1)
    assert prepare_rows(log(), **arguments, seed=1).digest == first.digest
    assert prepare_rows(log(), **arguments, seed=2).digest != first.digest


def test_all_faults_of_the_settings_at_once():
    with pytest.raises(DataError, match="^4 faults") as caught:
        prepare_rows("nowhere.csv", features={"a": "categry", "b": {"kind": "number", "lg": 1}},
                     labels={"y": {"positive": 3}}, split={"method": "tme"})
    for place in ("features.a.kind", "features.b.lg", "labels.y.positive", "split.method"):
        assert f"{place}: " in str(caught.value)


def test_all_faults_of_the_columns_at_once():
    with pytest.raises(DataError, match="^6 faults") as caught:
        prepare_rows(log(), features={"usr": "category", "stars": "number"}, labels={"y": "lable", "z": "stars"},
                     split="given", group="nobody", weight="wight")
    said = str(caught.value)
    assert "features.usr: unknown column 'usr', did you mean 'user'?" in said
    assert "features.stars: reads 'stars', the label of 'z'" in said
    assert all(f"{place}: unknown column" in said for place in ("labels.y", "split", "group", "weight"))


@pytest.mark.parametrize(("change", "said"), [
    ({"price": pl.lit("x")}, "column 'price' is not a finite number in 400 of 400 rows, such as 'x', 'x', 'x'"),
    ({"label": pl.lit(1)}, "only the label 1"), ({"label": pl.col("stars")}, r"outside \{0, 1\}"),
    ({"past": pl.lit("x")}, "features.past: column 'past' is of type String"),
])
def test_bad_tables(change, said):
    with pytest.raises(DataError, match=said):
        prepare_rows(log().with_columns(**change), features=FEATURES, labels={"y": "label"})


def test_a_fold_of_one_class():
    frame = log(100).with_columns(label=(pl.col("timestamp") > 10).cast(pl.Int8), u=pl.int_range(100) // 20)
    frame = frame.with_columns(label=(pl.col("u") == 0).cast(pl.Int8))
    with pytest.raises(DataError, match="only the label"):
        prepare_rows(frame, features={"item": "category"}, labels={"y": "label"},
                     split={"method": "k-fold", "by": "u"})


def test_a_hundred_thousand_rows_take_less_than_two_seconds():
    n = 100_000
    rng = np.random.default_rng(0)
    frame = pl.DataFrame({
        **{f"c{k}": rng.integers(10 ** (k % 5 + 1), size=n) for k in range(8)},
        **{f"n{k}": rng.normal(size=n) for k in range(4)}, "y": rng.integers(2, size=n),
    })
    start = time.process_time()
    prepare_rows(frame, features={**{f"c{k}": "category" for k in range(8)}, **{f"n{k}": "number" for k in range(4)}},
                 labels={"y": "y"})
    assert time.process_time() - start < 2


def test_a_group_that_is_nan_is_missing():
    frame = log().with_columns(g=pl.when(pl.int_range(400) == 3).then(float("nan")).otherwise(pl.col("item") * 1.0))
    split = prepare_rows(frame, features=FEATURES, labels={"y": "label"}, group="g")
    assert split.quarantine["reason"].to_pylist() == ["g is empty"]
    assert split.groups.max() + 1 == frame["item"].n_unique()


def test_weights_that_are_all_zero_would_train_nothing():
    with pytest.raises(DataError, match="'weight' are 0 in every train row"):
        prepare_rows(log().with_columns(weight=pl.lit(0.0)), features=FEATURES, labels={"y": "label"}, weight="weight")


def test_whole_numbers_of_a_column_with_gaps_are_the_numbers_that_requests_bring(tmp_path):
    frame = log().with_columns(item=pl.when(pl.int_range(400) % 9 == 0).then(None).otherwise(pl.col("item") * 1.0))
    frame.select("item", "label").write_csv(tmp_path / "rows.csv")  # "3.0" and empty cells
    split = prepare_rows(tmp_path / "rows.csv", features={"item": "category"}, labels={"y": "label"})
    assert "3" in split.features["item"].vocabulary
    assert len(set(encode(split.features["item"], [[3, 3.0, "3", "3.0"]]).tolist()) - {0}) == 1
