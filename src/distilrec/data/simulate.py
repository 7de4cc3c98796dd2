"""A simulated shop: the built-in data set, with the true preferences kept aside.

Users with drifting interests see pages that a logging policy fills, look at positions with falling probability, click
what attracts them now and after what they clicked last, buy some of it, rate and review some of that. All draws come
from the seed, all arithmetic that a draw is compared with is float64, and users are simulated in blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from distilrec.data.shop_catalog import Catalog, make_catalog, make_people, tag_lists
from distilrec.data.shop_text import TAGS, review_texts
from distilrec.data.shop_truth import DWELL_NOISE, RATING_NOISE, Truth
from distilrec.errors import DataError, problem
from distilrec.files import atomic_folder, digest_arrays

__all__ = ["Shop", "simulate_shop"]

PAGE = 8  # positions of a page
START = 1_704_067_200  # 2024-01-01 00:00 UTC


@dataclass(frozen=True, eq=False)
class Shop:
    """One simulated shop. Ids are integers from 1; frames of events are ordered by (user, time).

    interactions: user_id, item_id, timestamp, event (click or purchase), rating (1 to 5, purchases only, mostly
        null), dwell (seconds, clicks only). A user clicks an item at most once; a purchase follows its click.
    impressions: user_id, item_id, timestamp, position (from 1), previous (the item clicked before, 0 for none),
        randomized (the page was in random order), clicked, purchased.
    items: item_id, title, text, tags (list of names), price, category, department, brand, collection, numbers.
    users: user_id, age, region, device, budget, joined, favorite, profile.
    reviews: user_id, item_id, timestamp, rating, tags (those the user mentions), text.
    """

    interactions: pl.DataFrame
    impressions: pl.DataFrame
    items: pl.DataFrame
    users: pl.DataFrame
    reviews: pl.DataFrame
    truth: Truth

    @property
    def digest(self) -> str:
        """SHA-256 over every frame and the truth; the same on every machine for the same arguments."""
        parts: list[np.ndarray | list[str] | str] = []
        for frame in (self.interactions, self.impressions, self.items, self.users, self.reviews):
            for name, column in zip(frame.columns, frame, strict=True):
                parts.append(name)
                if column.dtype == pl.List(pl.String):
                    parts.append(column.list.join(" ").to_list())
                elif column.dtype == pl.String:
                    parts.append(column.to_list())
                else:
                    parts.append(column.fill_null(-1).to_numpy())
        return digest_arrays(*parts, *(array for _, array in self.truth._arrays()))

    def clicks(self) -> pl.DataFrame:
        """The positive events of the rank task, one per click: user and item, timestamp, rating, purchased, dwell."""
        bought = self.interactions.filter(pl.col("event") == "purchase").select(
            "user_id", "item_id", "rating", purchased=pl.lit(True)
        )
        clicked = self.interactions.filter(pl.col("event") == "click").drop("event", "rating")
        return (
            clicked.join(bought, on=["user_id", "item_id"], how="left", maintain_order="left")
            .with_columns(pl.col("purchased").fill_null(False))
            .select("user_id", "item_id", "timestamp", "rating", "purchased", "dwell")
        )

    def write(self, folder: str | Path) -> Path:
        """Write the shop in the shared layout, atomically; returns the folder.

        interactions.parquet (the clicks), items.parquet, users.parquet are what `prepare` reads; events.parquet
        (clicks and purchases), impressions.parquet and reviews.parquet stand beside them; the true preferences go to
        truth/, where no reader looks.
        """
        with atomic_folder(folder) as temporary:
            self.clicks().write_parquet(temporary / "interactions.parquet")
            self.interactions.write_parquet(temporary / "events.parquet")
            for name in ("impressions", "items", "users", "reviews"):
                getattr(self, name).write_parquet(temporary / f"{name}.parquet")
            (temporary / "truth").mkdir()
            self.truth.save(temporary / "truth")
        return Path(folder)


def simulate_shop(
    users: int = 2000, items: int = 1500, events_per_user: float = 12.0, seed: int = 0, days: int = 365
) -> Shop:
    """Simulate a shop of U = `users` and I = `items`.

    `events_per_user` is the mean number of clicks of a user (skewed: most have fewer, some many more). To a hundred
    clicks come about 1,300 impressions, 39 purchases and 14 reviews. `days` is the time the shop is open. A million
    clicks cost about 13 seconds of one core and 0.9 GB of memory.

    Raises DataError for fewer than 2 users, 50 items, 2 events per user or 1 day, a negative seed, or more events
    than a quarter of the catalog.
    """
    _check(users, items, events_per_user, seed, days)
    catalog = make_catalog(np.random.default_rng([seed, 1]), items)
    rng = np.random.default_rng([seed, 2])
    wanted = _activity(rng, users, items, events_per_user)
    first = START + rng.integers(int(days * 86_400 * 0.8), size=users)
    span = (START + days * 86_400 - first) * rng.uniform(0.4, 1.0, users)
    frame, people, favorites = make_people(np.random.default_rng([seed, 3]), catalog, first, span)
    truth = Truth(
        **people, **catalog.truth, examination=np.round(0.95 * np.arange(1, PAGE + 1) ** -0.65, 6)
    )
    block = int(np.clip(2**26 // items, 64, 4096))
    visits = [
        _browse(
            np.random.default_rng([seed, 4, number]), catalog, truth, favorites,
            np.arange(begin, min(begin + block, users)), wanted, first, span,
        )
        for number, begin in enumerate(range(0, users, block))
    ]
    seen = {name: np.concatenate([visit[name] for visit in visits]) for name in visits[0]}
    del visits
    interactions, reviews = _outcomes(np.random.default_rng([seed, 5]), truth, seen)
    impressions = pl.DataFrame({
        "user_id": seen["user"] + 1, "item_id": seen["item"] + 1, "timestamp": seen["time"],
        "position": seen["position"], "previous": seen["previous"] + 1, "randomized": seen["randomized"],
        "clicked": seen["clicked"], "purchased": seen["purchased"],
    })
    return Shop(interactions, impressions, catalog.frame, frame, reviews, truth)


def _check(users: int, items: int, events_per_user: float, seed: int, days: int) -> None:
    faults = [
        f"{name}={value!r} (at least {least})"
        for name, value, least in (
            ("users", users, 2), ("items", items, 50), ("events_per_user", events_per_user, 2), ("seed", seed, 0),
            ("days", days, 1),
        )
        if isinstance(value, bool) or not isinstance(value, (int, float) if name == "events_per_user" else int)
        or not least <= value < 2**31
    ]
    if not faults and events_per_user > items / 4:
        faults.append(f"events_per_user={events_per_user!r} (at most a quarter of the {items} items)")
    if faults:
        raise DataError(problem(f"cannot simulate a shop with {', '.join(faults)}", "numbers in range", "change them"))


def _activity(rng: np.random.Generator, users: int, items: int, mean: float) -> np.ndarray:
    """int64 [U]: clicks after which a user leaves; log-normal, so that a few users make a large share."""
    spread = 0.7
    wanted = mean * np.exp(spread * rng.standard_normal(users) - spread**2 / 2)
    return np.clip(np.rint(wanted), min(3, int(mean)), items // 3).astype(np.int64)


def _browse(
    rng: np.random.Generator, catalog: Catalog, truth: Truth, favorites: np.ndarray, users: np.ndarray,
    wanted: np.ndarray, first: np.ndarray, span: np.ndarray,
) -> dict[str, np.ndarray]:
    """The impressions of a block of users, one page per user and step, ordered by (user, time, position)."""
    begin = users[0]
    known = np.zeros((len(users), len(catalog.frame)), dtype=bool)  # clicked before: the shop does not show it again
    time, previous = first[users].copy(), np.full(len(users), -1)
    left = wanted[users].copy()
    pages = 6 * left + 20  # patience: a user whom nothing pleases gives up
    pause = span[users] / (0.25 * left)  # between visits, so that all of them fill the span
    steps: list[dict[str, np.ndarray]] = []
    while len(users):
        row, place = users - begin, np.arange(len(users))[:, None]
        items = catalog.candidates(rng, truth, favorites[users], users, time, previous)
        attraction = truth._attraction(users[:, None], items, time[:, None], previous[:, None])
        shuffled = rng.random(len(users)) < 0.1
        # Rounding keeps the order of a page the same on machines whose log differs in the last bit.
        guess = np.round(np.log(attraction / (1 - attraction)) + 1.0 * rng.standard_normal(items.shape), 9)
        guess[known[row[:, None], items] | _repeats(items)] = -np.inf
        order = np.argsort(-guess, axis=1, kind="stable")[:, :PAGE]
        mixed = np.argsort(rng.random(order.shape), axis=1, kind="stable")
        order = np.where(shuffled[:, None], np.take_along_axis(order, mixed, axis=1), order)
        valid = guess[place, order] > -np.inf
        # Pages with gaps close them: the shown items move up.
        close = np.argsort(~valid, axis=1, kind="stable")
        order, valid = np.take_along_axis(order, close, axis=1), np.take_along_axis(valid, close, axis=1)
        items, attraction = items[place, order], attraction[place, order]
        clicked = valid & (rng.random(items.shape) < attraction * truth.examination)
        chance = rng.random(items.shape)
        who, where = np.nonzero(clicked)
        purchased = np.zeros_like(clicked)
        purchased[who, where] = chance[who, where] < truth._conversion(users[who], items[who, where], time[who])
        # What attracts on a page is opened in any order: by position, a user's last click would always be the
        # weakest of its page, and the last events harder to foretell than all others.
        turn = np.argsort(rng.random(items.shape), axis=1, kind="stable")
        steps.append(_page(users, items, time, previous, shuffled, clicked, purchased, turn, valid))
        known[row[who], items[who, where]] = True
        latest = np.where(clicked, turn, -1).argmax(axis=1)
        previous = np.where(clicked.any(axis=1), items[place[:, 0], latest], previous)
        left = left - clicked.sum(axis=1)
        pages = pages - 1
        stays = rng.random(len(users)) < 0.75
        wait = np.where(stays, 60 * rng.standard_exponential(len(users)), pause * rng.standard_exponential(len(users)))
        time = time + 120 + np.floor(wait).astype(np.int64)
        on = (left > 0) & (pages > 0)
        users, time, previous, left, pages, pause = (each[on] for each in (users, time, previous, left, pages, pause))
    log = {name: np.concatenate([step[name] for step in steps]) for name in steps[0]}
    order = np.argsort(log["user"], kind="stable")  # within a user the steps are in time order already
    return {name: column[order] for name, column in log.items()}


def _page(
    users: np.ndarray, items: np.ndarray, time: np.ndarray, previous: np.ndarray, shuffled: np.ndarray,
    clicked: np.ndarray, purchased: np.ndarray, turn: np.ndarray, valid: np.ndarray,
) -> dict[str, np.ndarray]:
    shape = items.shape
    columns = {
        "user": (users[:, None], np.int32), "item": (items, np.int32), "time": (time[:, None], np.int64),
        "position": (np.arange(1, shape[1] + 1), np.int8), "previous": (previous[:, None], np.int32),
        "randomized": (shuffled[:, None], np.bool_), "clicked": (clicked, np.bool_), "purchased": (purchased, np.bool_),
        "turn": (turn, np.int8),
    }
    return {name: np.broadcast_to(array, shape)[valid].astype(kind) for name, (array, kind) in columns.items()}


def _repeats(items: np.ndarray) -> np.ndarray:
    """bool, as `items` [B, M]: the same item stands in an earlier slot of the row."""
    order = np.argsort(items, axis=1, kind="stable")
    ordered = np.take_along_axis(items, order, axis=1)
    repeated = np.zeros(items.shape, dtype=bool)
    np.put_along_axis(repeated, order[:, 1:], ordered[:, 1:] == ordered[:, :-1], axis=1)
    return repeated


def _outcomes(
    rng: np.random.Generator, truth: Truth, seen: dict[str, np.ndarray]
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """What follows from the clicks: dwell, purchases, ratings, reviews."""
    at = np.flatnonzero(seen["clicked"])
    user, item, page = seen["user"][at], seen["item"][at], seen["time"][at]
    noise = rng.standard_normal(len(at))
    dwell = np.round(np.exp(truth._log_dwell(user, item, page) + DWELL_NOISE * noise), 1)
    time = page + 5 + 7 * seen["turn"][at].astype(np.int64)
    bought = seen["purchased"][at]
    buyer, thing = user[bought], item[bought]
    uniform = np.clip(rng.random(len(buyer)), 1e-12, 1 - 1e-12)
    center = truth._rating(buyer, thing, page[bought])
    rating = np.clip(np.rint(center + RATING_NOISE * np.log(uniform / (1 - uniform))), 1, 5).astype(np.int8)
    # Extreme opinions are voiced more often: ratings are not missing at random.
    voiced = rng.random(len(buyer)) < np.array([0.9, 0.6, 0.4, 0.6, 0.9])[rating - 1]
    wrote = voiced & (rng.random(len(buyer)) < 0.6)
    mentioned = rng.random((len(buyer), len(TAGS))) < truth._mention(buyer, thing)
    # A purchase happens while its page is still open (pages are two minutes apart): 54 + 40 s at most.
    buy_time = time[bought] + 40
    clicks = pl.DataFrame({
        "user_id": user + 1, "item_id": item + 1, "timestamp": time, "event": pl.repeat("click", len(at), eager=True),
        "rating": pl.repeat(None, len(at), dtype=pl.Int8, eager=True), "dwell": dwell,
    })
    purchases = pl.DataFrame({
        "user_id": buyer + 1, "item_id": thing + 1, "timestamp": buy_time,
        "event": pl.repeat("purchase", len(buyer), eager=True),
        "rating": pl.select(pl.when(pl.Series(voiced)).then(pl.Series(rating))).to_series(),
        "dwell": pl.repeat(None, len(buyer), dtype=pl.Float64, eager=True),
    })
    interactions = pl.concat([clicks, purchases]).sort("user_id", "timestamp", maintain_order=True)
    said = mentioned[wrote]
    reviews = pl.DataFrame({
        "user_id": buyer[wrote] + 1, "item_id": thing[wrote] + 1, "timestamp": buy_time[wrote] + 86_400,
        "rating": rating[wrote],
        "tags": tag_lists(said),
        "text": review_texts(rng, rating[wrote].astype(np.int64), truth.category[thing[wrote]], said),
    })
    return interactions, reviews
