"""The items and the people of the simulated shop, and the policy that puts items before people."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from distilrec.data.shop_text import (
    ACCESSORY,
    BRANDS,
    CATEGORIES,
    COLORS,
    DEPARTMENTS,
    MATERIALS,
    REGIONS,
    TAGS,
    collection_names,
    item_texts,
    profile_texts,
)
from distilrec.data.shop_truth import Truth, sigmoid

__all__ = ["Catalog", "make_catalog", "make_people", "tag_lists"]

WIDTH = 16  # of the true interest space
# Who fills the candidate slots of a page; the policy keeps the best of them by its own noisy estimate.
POPULAR, PERSONAL, RELATED, ANYTHING = 5, 14, 4, 3


@dataclass(frozen=True, eq=False)
class Catalog:
    """The items [I], their part of the truth, and the tables from which the logging policy draws."""

    frame: pl.DataFrame
    truth: dict[str, np.ndarray]  # the item fields of Truth
    space: dict[str, np.ndarray]  # unit vectors [n, D] of category, tag and brand
    shelf: np.ndarray  # int64 [I], items ordered by category
    shelf_sum: np.ndarray  # float64 [I + 1], running sum of the exposure along the shelf
    shelf_start: np.ndarray  # int64 [C + 1], where a category begins on the shelf
    members: np.ndarray  # int64 [I], items ordered by (collection, order)
    member_start: np.ndarray  # int64 [collections + 1]

    def candidates(
        self, rng: np.random.Generator, truth: Truth, favorites: np.ndarray, users: np.ndarray, time: np.ndarray,
        previous: np.ndarray,
    ) -> np.ndarray:
        """int64 [B, 26], what the shop considers for a page: the popular, the personal, what goes with the last
        click, and one item at random. Repeats are possible. favorites: int64 [B, 2, 2], categories before and after
        the drift."""
        count = len(users)
        before = sigmoid((time - truth.turn[users]) / truth.pace[users])[:, None] < rng.random((count, PERSONAL))
        likes = favorites[np.arange(count)[:, None], 1 - before, (rng.random(before.shape) < 0.4).astype(np.int64)]
        columns = [
            self._from_shelf(rng.random((count, POPULAR)), 0, len(self.shelf)),
            self._from_category(rng, likes),
            self._related(rng, previous, likes),
            rng.integers(len(self.shelf), size=(count, ANYTHING)),
        ]
        return np.concatenate(columns, axis=1)

    def _from_shelf(self, uniform: np.ndarray, start: np.ndarray | int, stop: np.ndarray | int) -> np.ndarray:
        """Items of a stretch of the shelf, in proportion to their exposure."""
        low, high = self.shelf_sum[start], self.shelf_sum[stop]
        at = np.searchsorted(self.shelf_sum, low + uniform * (high - low), side="right") - 1
        return self.shelf[np.clip(at, start, np.asarray(stop) - 1)]

    def _from_category(self, rng: np.random.Generator, category: np.ndarray) -> np.ndarray:
        return self._from_shelf(
            rng.random(category.shape), self.shelf_start[category], self.shelf_start[category + 1]
        )

    def _related(self, rng: np.random.Generator, previous: np.ndarray, likes: np.ndarray) -> np.ndarray:
        """[B, 4]: the next piece of the collection, another of it, an accessory, one more of the category."""
        category = np.where(previous >= 0, self.truth["category"][previous], likes[:, 0])
        first = self._from_category(rng, category)
        item = np.where(previous >= 0, previous, first)  # a newcomer is shown around one item of a favorite category
        collection = self.truth["collection"][item]
        start, stop = self.member_start[collection], self.member_start[collection + 1]
        following = self.members[np.minimum(start + self.truth["order"][item] + 1, stop - 1)]
        other = self.members[np.minimum(start + (rng.random(len(item)) * (stop - start)).astype(np.int64), stop - 1)]
        accessory = self._from_category(rng, ACCESSORY[category])
        return np.stack([following, other, accessory, self._from_category(rng, category)], axis=1)


def make_catalog(rng: np.random.Generator, count: int) -> Catalog:
    """Items in collections: a brand, a main category with its accessory, and a theme of tags for 3 to 9 pieces."""
    shuffle = rng.permutation(count)  # ids tell nothing
    sizes = rng.integers(3, 10, size=count // 3 + 1)
    collection = np.repeat(np.arange(len(sizes)), sizes)[:count]
    collections = int(collection[-1]) + 1
    order = np.arange(count) - np.searchsorted(collection, collection)
    brand, main = _makers(rng, collections)
    category = np.where(rng.random(count) < 0.65, main[collection], ACCESSORY[main[collection]])
    # Every category holds something, however small the shop: the first pieces are put there by turns.
    category[: len(CATEGORIES)] = np.arange(len(CATEGORIES))
    tags = _tags(rng, collection, collections, category)
    vectors, space = _vectors(rng, category, brand[collection], tags, collection, collections)
    weight = (rng.permutation(collections)[collection] * 4.0 + rng.permutation(count) / count * 8 + 6) ** -0.75
    weight = np.round(weight / weight.sum(), 12)
    spread = np.log(weight)
    quality = np.round(rng.standard_normal(count), 6)
    log_price = 3.2 + 0.5 * rng.standard_normal(len(CATEGORIES))[category]
    log_price += 0.35 * rng.standard_normal(len(BRANDS))[brand[collection]] + 0.2 * quality
    price = np.round(np.exp(log_price + 0.25 * rng.standard_normal(count)), 2)
    truth = {
        "item_vectors": vectors,
        "appeal": np.round(0.5 * (spread - spread.mean()) / spread.std() + 0.85 * rng.standard_normal(count), 6),
        "quality": quality, "log_price": np.round(np.log(price), 6), "tags": tags, "category": category,
        "collection": collection, "order": order, "exposure": weight,
    }
    truth = {name: column[shuffle] for name, column in truth.items()}
    brand, price = brand[collection][shuffle], price[shuffle]
    shelf = np.argsort(truth["category"], kind="stable")
    return Catalog(
        _item_frame(rng, truth, brand, price), truth, space, shelf,
        np.concatenate([[0.0], np.cumsum(truth["exposure"][shelf])]),
        np.searchsorted(truth["category"][shelf], np.arange(len(CATEGORIES) + 1)),
        np.lexsort((truth["order"], truth["collection"])),
        np.searchsorted(collection, np.arange(collections + 1)),
    )


def _makers(rng: np.random.Generator, collections: int) -> tuple[np.ndarray, np.ndarray]:
    """(brand, main category) of each collection; a brand keeps mostly to one department."""
    brand = rng.integers(len(BRANDS), size=collections)
    home = np.where(
        rng.random(collections) < 0.8, brand % len(DEPARTMENTS), rng.integers(len(DEPARTMENTS), size=collections)
    )
    kinds = len(CATEGORIES) // len(DEPARTMENTS)
    return brand, home * kinds + rng.choice(kinds, p=[0.4, 0.3, 0.2, 0.1], size=collections)


def _tags(rng: np.random.Generator, collection: np.ndarray, collections: int, category: np.ndarray) -> np.ndarray:
    """bool [I, 10]: a theme shared by the collection, a trait of the category, and chance; never none at all."""
    theme = rng.integers(len(TAGS), size=(collections, 2))[collection]
    trait = rng.permutation(np.arange(len(CATEGORIES)) % len(TAGS))[category]
    tags = rng.random((len(collection), len(TAGS))) < 0.05
    row = np.arange(len(collection))
    tags[row, theme[:, 0]] = True
    tags[row, theme[:, 1]] |= rng.random(len(row)) < 0.6
    tags[row, trait] |= rng.random(len(row)) < 0.5
    return tags


def _vectors(
    rng: np.random.Generator, category: np.ndarray, brand: np.ndarray, tags: np.ndarray, collection: np.ndarray,
    collections: int,
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Unit vectors [I, D] in the interest space: mostly what the text tells, partly what only behavior shows."""
    department = _unit(rng.standard_normal((len(DEPARTMENTS), WIDTH)))
    own = _unit(rng.standard_normal((len(CATEGORIES), WIDTH)))
    space = {
        "category": _unit(0.6 * np.repeat(department, len(CATEGORIES) // len(DEPARTMENTS), axis=0) + 0.8 * own),
        "tag": _unit(rng.standard_normal((len(TAGS), WIDTH))),
        "brand": _unit(rng.standard_normal((len(BRANDS), WIDTH))),
    }
    theme = _unit(rng.standard_normal((collections, WIDTH)))
    vectors = space["category"][category] + 0.6 * space["brand"][brand] + 0.25 * theme[collection]
    for t in range(len(TAGS)):  # not a matrix product: its order of summation differs between machines
        vectors += 0.55 * tags[:, t, None] * space["tag"][t]
    return _unit(vectors + 0.15 * rng.standard_normal(vectors.shape) / 4), space


def make_people(
    rng: np.random.Generator, catalog: Catalog, first: np.ndarray, span: np.ndarray
) -> tuple[pl.DataFrame, dict[str, np.ndarray], np.ndarray]:
    """(users frame, the user fields of Truth, favorites int64 [U, 2, 2]) of U people.

    Seven in ten come to like another pair of categories at some time of their stay, at a pace of their own.
    """
    count = len(first)
    demand = np.diff(catalog.shelf_sum[catalog.shelf_start])
    favorites = rng.choice(len(CATEGORIES), p=demand / demand.sum(), size=(count, 2, 2))
    steady = rng.random(count) < 0.3
    favorites[steady, 1] = favorites[steady, 0]
    kept = ~steady & (rng.random(count) < 0.5)
    favorites[kept, 1, 1] = favorites[kept, 0, 0]
    taste = rng.standard_normal((count, len(TAGS)))
    maker = catalog.space["brand"][rng.integers(len(BRANDS), size=count)]
    character = 0.5 * maker + 0.25 * rng.standard_normal((count, WIDTH)) / 4
    for t in range(len(TAGS)):
        character += 0.22 * taste[:, t, None] * catalog.space["tag"][t]
    place = catalog.space["category"][favorites]
    age = np.clip(np.rint(40 + 14 * rng.standard_normal(count)), 16, 90)
    budget = np.round(3.0 + 0.01 * (age - 40) + 0.5 * rng.standard_normal(count), 6)
    truth = {
        "user_start": _unit(0.85 * place[:, 0, 0] + 0.6 * place[:, 0, 1] + character),
        "user_end": _unit(0.85 * place[:, 1, 0] + 0.6 * place[:, 1, 1] + character),
        "turn": np.rint(first + span * rng.uniform(0.15, 0.85, count)),
        "pace": np.rint(span * rng.uniform(0.02, 0.15, count)) + 1,
        "budget": budget, "emphasis": np.round(taste, 6),
    }
    told = np.array(["low", "middle", "high"])[np.searchsorted([2.7, 3.4], budget + 0.3 * rng.standard_normal(count))]
    frame = pl.DataFrame({
        "user_id": np.arange(1, count + 1, dtype=np.int32),
        "age": age.astype(np.int16),
        "region": pl.Series(REGIONS).gather(rng.integers(len(REGIONS), size=count)),
        "device": pl.Series(["phone", "tablet", "desktop"]).gather(rng.choice(3, p=[0.55, 0.1, 0.35], size=count)),
        "budget": told.tolist(),
        "joined": first.astype(np.int64),
        "favorite": pl.Series(DEPARTMENTS).gather(favorites[:, 0, 0] // 4),
        "profile": profile_texts(rng, favorites[:, 0], taste),
    })
    return frame, truth, favorites


def _item_frame(
    rng: np.random.Generator, truth: dict[str, np.ndarray], brand: np.ndarray, price: np.ndarray
) -> pl.DataFrame:
    count, category = len(brand), truth["category"]
    titles, texts, material, color = item_texts(
        rng, category, brand, truth["tags"], truth["collection"], truth["order"]
    )
    names = pl.Series(collection_names(int(truth["collection"].max()) + 1))
    heavy = 0.3 + 0.25 * (material % 4) - 0.2 * truth["tags"][:, TAGS.index("light")]
    return pl.DataFrame({
        "item_id": np.arange(1, count + 1, dtype=np.int32),
        "title": titles, "text": texts, "tags": tag_lists(truth["tags"]),
        "price": price,
        "category": pl.Series(CATEGORIES).gather(category),
        "department": pl.Series(DEPARTMENTS).gather(category // 4),
        "brand": pl.Series(BRANDS).gather(brand),
        "collection": names.gather(truth["collection"]),
        "material": pl.Series(MATERIALS).gather(material), "color": pl.Series(COLORS).gather(color),
        "weight_kg": np.round(np.exp(heavy + 0.4 * rng.standard_normal(count)), 3),
        "discount": np.round(np.maximum(0, 0.3 * rng.standard_normal(count) - 0.1), 2),
        "test_score": np.round(70 + 8 * truth["quality"] + 5 * rng.standard_normal(count), 1),
    })


def tag_lists(tags: np.ndarray) -> pl.Series:
    """bool [N, 10] -> a column of lists of tag names, empty where there is none."""
    row, tag = np.nonzero(tags)
    lists = (
        pl.DataFrame({"row": row.astype(np.int64), "tag": pl.Series(TAGS).gather(tag)})
        .group_by("row", maintain_order=True).agg("tag")
    )
    return (
        pl.DataFrame({"row": np.arange(len(tags), dtype=np.int64)})
        .join(lists, on="row", how="left", maintain_order="left")
        .select(pl.col("tag").fill_null(pl.lit([], dtype=pl.List(pl.String))))
        .to_series()
    )


def _unit(vectors: np.ndarray) -> np.ndarray:
    # Rounded, so that the last bit of a machine's square root never decides a draw.
    return np.round(vectors / np.sqrt((vectors**2).sum(axis=-1, keepdims=True)), 6)
