"""The simulated shop: determinism, what its events look like, and that they follow the truth kept aside."""

from __future__ import annotations

import math
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score
from sklearn.multiclass import OneVsRestClassifier

from distilrec.data.shop_text import ACCESSORY, CATEGORIES, TAG_WORDS, TAGS, collection_names
from distilrec.data.shop_truth import Truth
from distilrec.data.simulate import PAGE, Shop, simulate_shop
from distilrec.errors import DataError

SMALL = {"users": 120, "items": 90, "events_per_user": 6.0}


@pytest.fixture(scope="module")
def shop() -> Shop:
    return simulate_shop()


@pytest.fixture(scope="module")
def chances(shop: Shop) -> tuple[np.ndarray, np.ndarray]:
    """True click and conversion probabilities of all impressions."""
    user, item, moment = columns(shop.impressions, "user_id", "item_id", "timestamp")
    previous, position = columns(shop.impressions, "previous", "position")
    return (
        shop.truth.click_probability(user, item, moment, previous, position),
        shop.truth.conversion_probability(user, item, moment),
    )


def columns(frame: pl.DataFrame, *names: str) -> list[np.ndarray]:
    return [frame[name].to_numpy() for name in names]


def calibrated(expected: np.ndarray, happened: np.ndarray, variance: np.ndarray, groups: int = 10) -> None:
    """In each quantile of what was expected, what happened lies within four standard errors of it."""
    edges = np.quantile(expected, np.linspace(0, 1, groups + 1)[1:-1])
    group = np.searchsorted(edges, expected)
    count = np.bincount(group, minlength=groups)
    assert (count > 50).all()
    gap = np.bincount(group, weights=happened - expected, minlength=groups)
    error = np.sqrt(np.bincount(group, weights=variance, minlength=groups))
    assert np.abs(gap / error).max() < 4
    assert np.bincount(group, weights=happened)[-1] / count[-1] > np.bincount(group, weights=happened)[0] / count[0]


# Determinism and sizes


def test_same_seed_same_shop_other_seed_other_shop() -> None:
    digest = simulate_shop(**SMALL, seed=3).digest
    assert simulate_shop(**SMALL, seed=3).digest == digest
    assert simulate_shop(**SMALL, seed=4).digest != digest


def test_another_process_with_another_hash_seed_makes_the_same_shop() -> None:
    code = (
        "from distilrec.data.simulate import simulate_shop;"
        "print(simulate_shop(users=120, items=90, events_per_user=6.0, seed=3).digest)"
    )
    source = str(Path(__file__).parents[2] / "src")
    surroundings = {**os.environ, "PYTHONHASHSEED": "77", "PYTHONPATH": source}
    out = subprocess.run([sys.executable, "-c", code], env=surroundings, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == simulate_shop(**SMALL, seed=3).digest


def test_sizes_follow_the_arguments() -> None:
    shop = simulate_shop(users=300, items=700, events_per_user=12, seed=1, days=30)
    assert (len(shop.users), len(shop.items)) == (300, 700)
    assert shop.clicks()["user_id"].n_unique() == 300
    assert 10 < len(shop.clicks()) / 300 < 15
    assert shop.impressions["item_id"].max() <= 700
    assert simulate_shop(users=2, items=50, events_per_user=2).clicks()["user_id"].n_unique() == 2


def test_more_users_than_one_block_holds() -> None:
    shop = simulate_shop(users=5000, items=60, events_per_user=2, seed=2)
    user, moment = columns(shop.interactions, "user_id", "timestamp")
    assert shop.impressions["user_id"].unique().sort().to_list() == list(range(1, 5001))
    assert len(np.unique(user)) / 5000 > 0.97  # a few find nothing in so small a shop
    assert ((np.diff(user) > 0) | (np.diff(moment) > 0)).all()  # ordered by (user, time), no two events at once


def test_the_default_shop_is_quick() -> None:
    begin = time.process_time()
    simulate_shop(seed=9)
    assert time.process_time() - begin < 5


@pytest.mark.parametrize("wrong", [
    {"users": 1}, {"users": 10.5}, {"users": True}, {"items": 49}, {"items": "many"}, {"events_per_user": 1},
    {"events_per_user": float("nan")}, {"events_per_user": 400}, {"seed": -1}, {"seed": 2**40}, {"days": 0},
])
def test_bad_arguments_are_named(wrong: dict) -> None:
    with pytest.raises(DataError, match=next(iter(wrong))):
        simulate_shop(**wrong)


# The shape of the log


def test_a_page_is_what_it_says(shop: Shop) -> None:
    pages = shop.impressions.group_by("user_id", "timestamp", maintain_order=True).agg(
        pl.col("position"), pl.col("item_id").n_unique().alias("different"), pl.len()
    )
    assert (pages["different"] == pages["len"]).all()
    assert pages["len"].max() == PAGE
    assert all(each == list(range(1, len(each) + 1)) for each in pages["position"].to_list())
    assert not (shop.impressions["purchased"] & ~shop.impressions["clicked"]).any()


def test_an_item_is_clicked_once_and_not_shown_again(shop: Shop) -> None:
    clicks = shop.clicks()
    assert clicks.select("user_id", "item_id").is_unique().all()
    assert len(clicks) == shop.impressions["clicked"].sum()
    clicked_at = shop.impressions.filter("clicked").select("user_id", "item_id", when="timestamp")
    later = shop.impressions.join(clicked_at, on=["user_id", "item_id"]).filter(pl.col("timestamp") > pl.col("when"))
    assert len(later) == 0


def test_purchases_follow_their_clicks_and_ratings_need_purchases(shop: Shop) -> None:
    buys = shop.interactions.filter(pl.col("event") == "purchase")
    clicks = shop.interactions.filter(pl.col("event") == "click")
    both = buys.join(clicks, on=["user_id", "item_id"], suffix="_click")
    assert len(both) == len(buys) == shop.impressions["purchased"].sum() > 5000
    assert (both["timestamp"] > both["timestamp_click"]).all()
    assert clicks["rating"].null_count() == len(clicks)
    assert set(buys["rating"].drop_nulls().unique()) == {1, 2, 3, 4, 5}
    assert clicks["dwell"].null_count() == 0
    rated = buys.drop_nulls("rating").select("user_id", "item_id", "rating")
    assert len(shop.reviews.join(rated, on=["user_id", "item_id", "rating"])) == len(shop.reviews) > 3000


def test_previous_is_the_last_click_before_the_page(shop: Shop) -> None:
    some = shop.impressions.filter(pl.col("user_id") <= 40)
    clicks = shop.clicks()
    checked = 0
    for (user, moment), page in some.group_by("user_id", "timestamp", maintain_order=True):
        before = clicks.filter((pl.col("user_id") == user) & (pl.col("timestamp") < moment))["item_id"].to_list()
        assert page["previous"].unique().to_list() == (before[-1:] or [0])
        checked += bool(before)
    assert checked > 500


# What a model can find in it


def test_position_bias_shows_in_randomized_pages(shop: Shop) -> None:
    mixed = shop.impressions.filter("randomized").group_by("position").agg(pl.col("clicked").mean(), pl.len())
    mixed = mixed.sort("position")
    rate, count = columns(mixed, "clicked", "len")
    # One unknown, the mean attraction, is fitted; the rest must be the examination probabilities.
    attraction = (rate * count).sum() / (shop.truth.examination * count).sum()
    expected = attraction * shop.truth.examination
    assert (np.abs(rate - expected) < 4 * np.sqrt(expected * (1 - expected) / count)).all()
    # The policy's own pages put the better items on top, so their click rates overstate the bias.
    ranked = shop.impressions.filter(~pl.col("randomized")).group_by("position").agg(pl.col("clicked").mean())
    ranked_rate = ranked.sort("position")["clicked"].to_numpy()
    assert ranked_rate[-1] / ranked_rate[0] < 0.6 * shop.truth.examination[-1] / shop.truth.examination[0]


def test_popularity_is_skewed(shop: Shop) -> None:
    counts = np.sort(np.bincount(shop.clicks()["item_id"].to_numpy(), minlength=1501)[1:])[::-1]
    assert 0.5 < counts[:300].sum() / counts.sum() < 0.8
    middle = slice(10, 500)  # on a log-log plot the body of a Zipf-like curve is a falling line
    slope, _ = np.polyfit(np.log(np.arange(1, 1501)[middle]), np.log(counts[middle]), 1)
    assert -1.3 < slope < -0.5


def test_interests_drift(shop: Shop) -> None:
    user, item, moment = columns(shop.clicks(), "user_id", "item_id", "timestamp")
    truth = shop.truth
    change = truth.user_end[user - 1] - truth.user_start[user - 1]
    toward = (truth.item_vectors[item - 1] * change).sum(axis=1)
    moved = np.abs(change).sum(axis=1) > 0
    late = moment > truth.turn[user - 1]
    assert 0.6 < np.mean(np.abs(truth.user_end - truth.user_start).sum(axis=1) > 0) < 0.8
    assert toward[moved & late].mean() > toward[moved & ~late].mean() + 0.3


def test_the_next_item_depends_on_the_last(shop: Shop) -> None:
    user, item = columns(shop.clicks(), "user_id", "item_id")
    truth = shop.truth
    follows = user[1:] == user[:-1]
    before, after = item[:-1][follows] - 1, item[1:][follows] - 1
    mixed = np.random.default_rng(0).permutation(after)
    for relation in (
        lambda a, b: (truth.collection[a] == truth.collection[b]) & (truth.order[b] == truth.order[a] + 1),
        lambda a, b: truth.category[b] == ACCESSORY[truth.category[a]],
        lambda a, b: truth.category[b] == truth.category[a],
    ):
        assert relation(before, after).mean() > 2 * relation(before, mixed).mean()


def test_words_tell_the_tags_without_naming_them(shop: Shop) -> None:
    texts = shop.items["text"].to_list()
    labels = np.array([[tag in tags for tag in TAGS] for tags in shop.items["tags"].to_list()])
    assert not set(TAGS) & set(" ".join(texts).lower().replace(".", " ").replace(",", " ").split())
    words = CountVectorizer().fit_transform(texts)
    model = OneVsRestClassifier(LogisticRegression(C=10)).fit(words[:1000], labels[:1000])
    score = f1_score(labels[1000:], model.predict(words[1000:]), average="micro")
    assert 0.8 < score < 0.99


def test_texts_and_columns_agree(shop: Shop) -> None:
    for row in shop.items.head(200).iter_rows(named=True):
        assert row["category"] in row["title"]
        assert row["brand"] in row["title"]
        assert row["collection"] in row["title"]
        assert row["text"].startswith(row["title"])
        assert row["material"] in row["text"]
        assert row["color"] in row["text"]
        assert 1 <= len(row["tags"]) <= 10
        assert row["price"] > 0
    for row in shop.reviews.head(200).iter_rows(named=True):
        assert all(any(word in row["text"] for word in TAG_WORDS[TAGS.index(tag)]) for tag in row["tags"])


def test_collection_names_do_not_repeat() -> None:
    assert len(set(collection_names(9000))) == 9000


def test_there_is_something_to_learn(shop: Shop) -> None:
    """Leave-last-out over the clicks: popularity < item-kNN < an oracle, each by a good margin."""
    user, item, moment = (each.astype(np.int64) for each in columns(shop.clicks(), "user_id", "item_id", "timestamp"))
    last = np.append(user[1:] != user[:-1], True)
    seen = np.zeros((2000, 1500))
    seen[user[~last] - 1, item[~last] - 1] = 1
    target, when, previous = item[last] - 1, moment[last], item[np.flatnonzero(last) - 1]

    def ndcg(scores: np.ndarray) -> float:
        scores = np.where(seen > 0, -np.inf, scores)
        rank = (scores > scores[np.arange(2000), target][:, None]).sum(axis=1)
        return float(np.where(rank < 10, 1 / np.log2(rank + 2), 0).mean())

    count = seen.sum(axis=0)
    cosine = seen.T @ seen / np.sqrt(np.outer(count + 1, count + 1))
    np.fill_diagonal(cosine, 0)
    everyone, everything = np.arange(1, 2001)[:, None], np.arange(1, 1501)
    wish = shop.truth.click_probability(everyone, everything, when[:, None], previous[:, None])
    oracle = ndcg(wish * shop.truth.exposure**0.3)
    popularity, neighbors = ndcg(np.broadcast_to(count, seen.shape)), ndcg(seen @ cosine)
    assert popularity > 0.02
    assert 2 * popularity < neighbors
    assert 1.5 * neighbors < oracle
    assert 1.3 * ndcg(shop.truth.click_probability(everyone, everything, when[:, None])) < ndcg(wish)  # order matters


# The truth


def test_clicks_and_purchases_follow_the_truth(shop: Shop, chances: tuple[np.ndarray, np.ndarray]) -> None:
    click, conversion = chances
    clicked, purchased = columns(shop.impressions, "clicked", "purchased")
    calibrated(click, clicked, click * (1 - click))
    both = click * conversion
    calibrated(both, purchased, both * (1 - both))
    calibrated(conversion[clicked], purchased[clicked], (conversion * (1 - conversion))[clicked])
    user, item, moment, previous, position = columns(
        shop.impressions.head(500), "user_id", "item_id", "timestamp", "previous", "position"
    )
    assert np.allclose(shop.truth.purchase_probability(user, item, moment, previous, position), both[:500])


def test_clicks_are_a_biased_sample_for_conversion(chances: tuple[np.ndarray, np.ndarray], shop: Shop) -> None:
    _, conversion = chances
    assert conversion[shop.impressions["clicked"].to_numpy()].mean() > conversion.mean() + 0.03


def test_ratings_follow_the_truth_but_extreme_ones_are_voiced_more(shop: Shop) -> None:
    buys = shop.interactions.filter(pl.col("event") == "purchase")
    user, item, moment = columns(buys, "user_id", "item_id", "timestamp")
    chance = shop.truth.rating_probabilities(user, item, moment)
    assert np.allclose(chance.sum(axis=1), 1)
    assert chance.min() > 0
    stars = np.arange(1.0, 6.0)
    assert np.allclose(chance @ stars, shop.truth.expected_rating(user, item, moment))
    voiced = chance * np.array([0.9, 0.6, 0.4, 0.6, 0.9])
    calibrated(voiced.sum(axis=1), buys["rating"].is_not_null().to_numpy(),
               voiced.sum(axis=1) * (1 - voiced.sum(axis=1)), groups=4)
    rated = buys["rating"].is_not_null().to_numpy()
    posterior = voiced[rated] / voiced[rated].sum(axis=1, keepdims=True)
    mean = posterior @ stars
    calibrated(mean, buys["rating"].drop_nulls().to_numpy(), posterior @ stars**2 - mean**2)


def test_dwell_and_tags_follow_the_truth(shop: Shop) -> None:
    user, item, moment, dwell = columns(shop.clicks(), "user_id", "item_id", "timestamp", "dwell")
    mean = shop.truth.expected_dwell(user, item, moment)
    calibrated(mean, dwell, mean**2 * (math.exp(0.36) - 1))
    user, item = columns(shop.reviews, "user_id", "item_id")
    chance = shop.truth.tag_probability(user, item)
    said = np.array([[tag in tags for tag in TAGS] for tags in shop.reviews["tags"].to_list()])
    calibrated(chance.ravel(), said.ravel(), (chance * (1 - chance)).ravel())


def test_click_probability_by_hand(shop: Shop) -> None:
    """A second implementation of one probability, in plain Python."""
    truth = shop.truth
    rng = np.random.default_rng(5)
    for _ in range(50):
        u, i, p = int(rng.integers(2000)), int(rng.integers(1500)), int(rng.integers(1500))
        if rng.random() < 0.5:  # two pieces of one collection, so that every relation is met
            i = int(rng.choice(np.flatnonzero(truth.collection == truth.collection[p])))
        moment = 1_704_067_200 + int(rng.integers(365 * 86_400))
        share = 1 / (1 + math.exp(-(moment - truth.turn[u]) / truth.pace[u]))
        affinity = sum(
            ((1 - share) * a + share * b) * q
            for a, b, q in zip(truth.user_start[u], truth.user_end[u], truth.item_vectors[i], strict=True)
        )
        logit = -6 + 7 * affinity + 0.5 * truth.appeal[i] - 0.3 * (truth.log_price[i] - truth.budget[u]) ** 2
        after = 0.0
        if truth.category[i] == truth.category[p]:
            after += 0.7
        kinds = [c for c in range(len(CATEGORIES)) if c // 4 == truth.category[p] // 4]
        if truth.category[i] == kinds[(kinds.index(int(truth.category[p])) + 1) % 4]:
            after += 1.5
        if truth.collection[i] == truth.collection[p]:
            after += 1.0 + 2.0 * (truth.order[i] == truth.order[p] + 1)
        for previous, extra in ((0, 0.0), (p + 1, after)):
            expected = 1 / (1 + math.exp(-(logit + extra))) * truth.examination[2]
            assert truth.click_probability(u + 1, i + 1, moment, previous, 3) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("user", "item", "previous", "position"), [
    (0, 1, 0, 1), (2001, 1, 0, 1), (1, 0, 0, 1), (1, 1501, 0, 1), (1, 1, -1, 1), (1, 1, 0, 0), (1, 1, 0, 9),
])
def test_the_truth_refuses_foreign_ids(shop: Shop, user: int, item: int, previous: int, position: int) -> None:
    ids = [np.array([each]) for each in (user, item, 1_704_067_200, previous, position)]
    with pytest.raises(DataError):
        shop.truth.click_probability(*ids)


# On disk


def test_write_gives_the_shared_layout_with_the_truth_apart(tmp_path: Path) -> None:
    shop = simulate_shop(**SMALL)
    folder = shop.write(tmp_path / "shop")
    assert sorted(path.name for path in folder.iterdir()) == [
        "events.parquet", "impressions.parquet", "interactions.parquet", "items.parquet", "reviews.parquet", "truth",
        "users.parquet",
    ]
    interactions = pl.read_parquet(folder / "interactions.parquet")
    assert interactions.columns == ["user_id", "item_id", "timestamp", "rating", "purchased", "dwell"]
    assert interactions.equals(shop.clicks())
    assert interactions["purchased"].sum() == shop.impressions["purchased"].sum()
    items = pl.read_parquet(folder / "items.parquet")
    assert {"item_id", "title", "text"} <= set(items.columns)
    assert items["text"].null_count() == 0
    known = Truth.load(folder / "truth")
    assert np.array_equal(known.item_vectors, shop.truth.item_vectors)
    assert known.click_probability(7, 11, 1_710_000_000, 3, 2) == shop.truth.click_probability(
        7, 11, 1_710_000_000, 3, 2
    )
    (folder / "truth" / "turn.npy").write_bytes(b"\x93NUMPY")
    with pytest.raises(DataError, match="turn"):
        Truth.load(folder / "truth")


def test_an_unwritable_place_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(FileExistsError):
        simulate_shop(**SMALL).write(tmp_path / "file" / "shop")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
