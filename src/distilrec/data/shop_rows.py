"""Tables of examples out of the simulated shop: one row per impression, or one per review.

Every feature of a row was known when the page was put together: what a user did counts from the pages before.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa

from distilrec.data.simulate import Shop
from distilrec.errors import DataError, nearest, problem

__all__ = ["SHOP_TABLES", "shop_spec", "shop_table"]

SHOP_TABLES = ("impressions", "reviews", "numeric")
RECENT = 10  # clicked items kept of a history
NUMBERS = (
    "price", "discount", "weight_kg", "test_score", "age", "position", "days_joined", "clicks_before",
    "purchases_before", "seconds_since_click", "price_to_usual", "category_clicks", "brand_clicks",
    "collection_clicks", "category_share", "item_views", "item_clicks", "item_rate", "same_category",
    "same_collection", "is_favorite", "budget_level",
)
_USER = ("age", "region", "device", "budget", "favorite")
_ITEM = ("title", "price", "category", "department", "brand", "collection", "material", "color", "weight_kg",
         "discount", "test_score")
_LABELS = ("click", "purchase", "rating", "log_dwell")


def shop_table(shop: Shop, kind: str, rows: int | None = None) -> pl.DataFrame:
    """A table of examples, ordered by (user, time); `rows` keeps the first of them, so whole users but the last.

    impressions: user_id, item_id, timestamp, position; age, region, device, budget, favorite of the user; title,
        price, category, department, brand, collection, material, color, weight_kg, discount, test_score, item_tags of
        the item; the history before the page: previous (item clicked last, null for none), recent (the last 10, oldest
        first), clicks_before, purchases_before. Labels: click and purchase (0 or 1 on every row), rating (1 to 5,
        null unless given), log_dwell (natural log of the seconds, null unless clicked).
    numeric: user_id, timestamp, the numbers of `NUMBERS` (of the impression, and counts of what happened before it)
        and the labels.
    reviews: user_id, item_id, timestamp, the columns of user and item, item_text, rating and review (the text, which
        tells what is to be predicted: a feature where a text is classified, not where a user's tags are foretold),
        past_tags (of the user's reviews before), recent. Label: tags (list of the ten names).

    A million impressions cost about 2 seconds of one core. 100,000 reviews take a shop of 57,000 users with 12 clicks
    each (14 seconds) or of 13,000 with 60 (20 seconds, 1.1 GB), whose users wrote enough to know their habits.
    Raises DataError for an unknown kind and for `rows` below 1.
    """
    if kind not in SHOP_TABLES:
        raise DataError(problem(f"unknown table {kind!r} of the shop{nearest(str(kind), SHOP_TABLES)}",
                                ", ".join(SHOP_TABLES), "choose one of these"))
    if rows is not None and (not isinstance(rows, int) or isinstance(rows, bool) or rows < 1):
        raise DataError(problem(f"rows={rows!r}", "a whole number from 1, or none for all", "correct it"))
    if kind == "reviews":
        return _reviews(shop, rows)
    seen = shop.impressions if rows is None else shop.impressions.head(rows)
    table = _join_content(shop, seen).with_columns(
        click=pl.col("clicked").cast(pl.Int8), purchase=pl.col("purchased").cast(pl.Int8),
        previous=pl.when(pl.col("previous") > 0).then(pl.col("previous")),
    )
    table = _outcomes(shop, table)
    past = _Past(shop, table["user_id"], table["timestamp"])
    table = table.with_columns(clicks_before=past.count, purchases_before=_purchases_before(shop, table))
    if kind == "numeric":
        return _numbers(shop, table, past).select("user_id", "timestamp", *NUMBERS, *_LABELS)
    return table.with_columns(recent=past.recent()).select(
        "user_id", "item_id", "timestamp", "position", *_USER, *_ITEM, "item_tags", "previous", "recent",
        "clicks_before", "purchases_before", *_LABELS,
    )


def shop_spec(kind: str) -> dict[str, Any]:
    """{features, labels, group} for `prepare_rows` of a table of the shop; nothing in it tells a label."""
    group = {"group": "user_id"}
    labels: dict[str, Any] = {
        "click": "click", "purchase": {"column": "purchase", "after": "click"},
        "rating": {"column": "rating", "kind": "number"}, "dwell": {"column": "log_dwell", "kind": "number"},
    }
    if kind == "numeric":
        logs = ("price", "clicks_before", "purchases_before", "seconds_since_click", "category_clicks",
                "brand_clicks", "collection_clicks", "item_views", "item_clicks")
        numbers: dict[str, Any] = {name: {"kind": "number", "log": name in logs} for name in NUMBERS}
        return {"features": numbers, "labels": {"click": "click"}, **group}
    features: dict[str, Any] = {
        "user_id": "category", "item_id": "category", "age": "number", "price": {"kind": "number", "log": True},
        "weight_kg": {"kind": "number", "log": True}, "discount": "number", "test_score": "number",
        **dict.fromkeys(("region", "device", "budget", "favorite", "category", "department", "brand", "collection",
                         "material", "color"), "category"),
        "title": {"kind": "text", "max_length": 8}, "item_tags": "list",
        "recent": {"kind": "sequence", "of": "item_id", "max_length": RECENT},
    }
    if kind == "reviews":
        features |= {"item_text": {"kind": "text", "min_count": 2}, "past_tags": "list", "rating": "number"}
        return {"features": features, "labels": {"tags": {"column": "tags", "kind": "tags"}}, **group}
    features |= {
        "position": "category", "previous": "category",
        "clicks_before": {"kind": "number", "log": True}, "purchases_before": {"kind": "number", "log": True},
    }
    return {"features": features, "labels": labels, **group}


def _join_content(shop: Shop, events: pl.DataFrame) -> pl.DataFrame:
    users = shop.users.select("user_id", *_USER, "joined")
    items = shop.items.select("item_id", *_ITEM, item_tags=pl.col("tags"), item_text=pl.col("text"))
    return events.join(users, on="user_id", how="left", maintain_order="left").join(
        items, on="item_id", how="left", maintain_order="left"
    )


def _outcomes(shop: Shop, table: pl.DataFrame) -> pl.DataFrame:
    """With rating and log_dwell; a user clicks an item at most once, but may have seen it before without a click."""
    ratings = shop.interactions.filter(pl.col("event") == "purchase").select("user_id", "item_id", "rating")
    dwell = shop.interactions.filter(pl.col("event") == "click").select(
        "user_id", "item_id", log_dwell=pl.col("dwell").clip(lower_bound=0.1).log()
    )
    on = ["user_id", "item_id"]
    return (
        table.join(ratings, on=on, how="left", maintain_order="left")
        .join(dwell, on=on, how="left", maintain_order="left")
        .with_columns(
            rating=pl.when("purchased").then(pl.col("rating").cast(pl.Float32)),
            log_dwell=pl.when("clicked").then(pl.col("log_dwell").cast(pl.Float32)),
        )
    )


class _Past:
    """The clicks of each row's user before its moment: positions in the clicks ordered by (user, time)."""

    def __init__(self, shop: Shop, users: pl.Series, times: pl.Series) -> None:
        self.clicks = shop.interactions.filter(pl.col("event") == "click")
        user = self.clicks["user_id"].to_numpy()
        self.start = np.searchsorted(user, users.to_numpy(), side="left")
        self.stop = _before(user, self.clicks["timestamp"].to_numpy(), users.to_numpy(), times.to_numpy())
        self.count = self.stop - self.start

    def recent(self) -> pl.Series:
        """The last `RECENT` clicked items, oldest first."""
        kept = np.minimum(self.count, RECENT)
        offsets = np.concatenate([[0], np.cumsum(kept)])
        places = np.repeat(self.stop - kept - offsets[:-1], kept) + np.arange(offsets[-1])
        items = self.clicks["item_id"].to_numpy()[places]
        lists = pa.LargeListArray.from_arrays(pa.array(offsets, pa.int64()), pa.array(items))
        return pl.Series("recent", lists)


def _before(groups: np.ndarray, times: np.ndarray, of: np.ndarray, moments: np.ndarray) -> np.ndarray:
    """int64 [N]: how many of the events, ordered by (group, time), lie before (group `of`, moment).

    The events of all smaller groups count: a group's own begin at `np.searchsorted(groups, of)`.
    """
    base = int(min(times.min(initial=2**62), moments.min(initial=2**62)))
    span = int(max(times.max(initial=0), moments.max(initial=0))) - base + 1
    return np.searchsorted(groups.astype(np.int64) * span + (times - base), of.astype(np.int64) * span
                           + (moments - base), side="left")


def _earlier(groups: np.ndarray, times: np.ndarray, of: np.ndarray, moments: np.ndarray) -> np.ndarray:
    """int64 [N]: how many events of the group `of` lie before the moment; the events in any order."""
    order = np.lexsort((times, groups))
    groups, times = groups[order], times[order]
    return _before(groups, times, of, moments) - np.searchsorted(groups, of, side="left")


def _purchases_before(shop: Shop, table: pl.DataFrame) -> np.ndarray:
    bought = shop.interactions.filter(pl.col("event") == "purchase")
    return _earlier(bought["user_id"].to_numpy(), bought["timestamp"].to_numpy(), table["user_id"].to_numpy(),
                    table["timestamp"].to_numpy())


def _numbers(shop: Shop, table: pl.DataFrame, past: _Past) -> pl.DataFrame:
    clicks = past.clicks.join(shop.items.select("item_id", "category", "brand", "collection", "price"), on="item_id",
                              how="left", maintain_order="left")
    when, now = clicks["timestamp"].to_numpy(), table["timestamp"].to_numpy()
    user, at = clicks["user_id"].to_numpy().astype(np.int64), table["user_id"].to_numpy().astype(np.int64)
    log_price = np.concatenate([[0.0], np.cumsum(np.log(clicks["price"].to_numpy()))])
    count = np.maximum(past.count, 1)
    usual = (log_price[past.stop] - log_price[past.start]) / count
    alike: dict[str, np.ndarray] = {}
    for name in ("category", "brand", "collection"):
        values = shop.items[name].unique().sort()
        codes = {value: place for place, value in enumerate(values.to_list())}
        own = clicks[name].replace_strict(codes, return_dtype=pl.Int64).to_numpy()
        asked = table[name].replace_strict(codes, return_dtype=pl.Int64).to_numpy()
        alike[name] = _earlier(user * len(codes) + own, when, at * len(codes) + asked, now)
    items, shown = clicks["item_id"].to_numpy(), table["item_id"].to_numpy()
    seen = shop.impressions
    views = _earlier(seen["item_id"].to_numpy(), seen["timestamp"].to_numpy(), shown, now)
    chosen = _earlier(items, when, shown, now)
    previous = shop.items.select(previous=pl.col("item_id"), _category="category", _collection="collection")
    last = np.where(past.count > 0, when[np.maximum(past.stop - 1, 0)], 0)
    return table.join(previous, on="previous", how="left", maintain_order="left").with_columns(
        days_joined=(pl.col("timestamp") - pl.col("joined")) / 86_400,
        seconds_since_click=pl.when(pl.Series(past.count > 0)).then(pl.col("timestamp") - pl.Series(last)),
        price_to_usual=pl.when(pl.Series(past.count > 0)).then(pl.col("price").log() - pl.Series(usual)),
        category_clicks=alike["category"], brand_clicks=alike["brand"], collection_clicks=alike["collection"],
        category_share=alike["category"] / count, item_views=views, item_clicks=chosen,
        # a little prior, so that the first click of an item is not a rate of 1
        item_rate=(chosen + 1.0) / (views + 12.0),
        same_category=(pl.col("category") == pl.col("_category")).fill_null(False).cast(pl.Int8),
        same_collection=(pl.col("collection") == pl.col("_collection")).fill_null(False).cast(pl.Int8),
        is_favorite=(pl.col("department") == pl.col("favorite")).cast(pl.Int8),
        budget_level=pl.col("budget").replace_strict({"low": 0, "middle": 1, "high": 2}, return_dtype=pl.Int8),
    )


def _reviews(shop: Shop, rows: int | None) -> pl.DataFrame:
    reviews = shop.reviews.sort("user_id", "timestamp", maintain_order=True)
    kept = reviews if rows is None else reviews.head(rows)
    table = _join_content(shop, kept.rename({"text": "review"}))
    user, time = kept["user_id"].to_numpy(), kept["timestamp"].to_numpy()
    lists = reviews["tags"].to_list()
    start = np.searchsorted(reviews["user_id"].to_numpy(), user, side="left")
    stop = _before(reviews["user_id"].to_numpy(), reviews["timestamp"].to_numpy(), user, time)
    past = [
        sorted({tag for tags in lists[first:last] for tag in tags}) for first, last in zip(start, stop, strict=True)
    ]
    return table.with_columns(
        past_tags=pl.Series(past, dtype=pl.List(pl.String)),
        recent=_Past(shop, kept["user_id"], kept["timestamp"]).recent(),
    ).select("user_id", "item_id", "timestamp", *_USER, *_ITEM, "item_tags", "item_text", "rating", "review",
             "past_tags", "recent", "tags")
