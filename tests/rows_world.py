"""Made tables for tests of the pointwise half: small, seeded, with a truth that a model can find."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from distilrec.features import Feature, encode
from distilrec.types_rows import Head, RowSplit

__all__ = ["FEATURES", "HEADS", "raw_columns", "table"]

COLORS = ("red", "green", "blue")
ITEMS = tuple(f"i{n}" for n in range(8))

FEATURES = {
    "user": Feature("user", "category", size=21, vocabulary=tuple(f"u{n}" for n in range(20))),
    "item": Feature("item", "category", size=9, vocabulary=ITEMS, required=True),
    "price": Feature("price", "number", mean=10.0, scale=5.0),
    "colors": Feature("colors", "list", size=4, vocabulary=COLORS, max_length=3),
    "past": Feature("past", "sequence", size=9, vocabulary=ITEMS, of="item", max_length=4),
    "title": Feature("title", "text", size=4, vocabulary=("big", "small", "cup"), max_length=5),
    "picture": Feature("picture", "vector", dim=3),
}
HEADS = (
    Head("click"),
    Head("buy", after="click"),
    Head("rating", "number"),
    Head("tags", "tags", ("new", "cheap")),
)


def raw_columns(n: int, seed: int = 0) -> dict[str, list]:
    """N raw rows, with unknown categories, missing values and empty lists among them."""
    rng = np.random.default_rng(seed)
    items = [None if rng.random() < 0.03 else f"i{rng.integers(9)}" for _ in range(n)]  # i8 is not in the vocabulary
    return {
        "user": [f"u{rng.integers(22)}" for _ in range(n)],
        "item": items,
        "price": [None if rng.random() < 0.1 else float(np.round(rng.normal(10, 5), 2)) for _ in range(n)],
        "colors": [[COLORS[c] for c in rng.permutation(3)[: rng.integers(4)]] for _ in range(n)],
        "past": [[f"i{i}" for i in rng.integers(8, size=rng.integers(7))] for _ in range(n)],
        "title": [" ".join(rng.choice(["big", "small", "cup", "odd"], size=rng.integers(1, 4))) for _ in range(n)],
        "picture": [None if rng.random() < 0.1 else rng.normal(size=3).round(3).tolist() for _ in range(n)],
    }


def table(n: int = 400, *, seed: int = 0, heads: tuple[Head, ...] = HEADS) -> RowSplit:
    """N rows with labels that depend on item, price and colors; 70 % train, 10 % valid, 20 % test."""
    raw = raw_columns(n, seed)
    columns = {name: encode(one, [raw[name]]) for name, one in FEATURES.items()}
    rng = np.random.default_rng(seed + 1)
    logit = 1.5 * (columns["item"] % 2) - 0.75 + 0.8 * columns["price"] + 0.7 * (columns["colors"] == 1).any(1)
    click = rng.random(n) < 1 / (1 + np.exp(-logit))
    buy = click & (rng.random(n) < 0.4)
    rating = np.where(click, 3 + 0.8 * columns["price"] + rng.normal(0, 0.3, n), np.nan)
    tags = np.stack([columns["item"] > 4, columns["price"] < 0], 1)
    labels = {
        "click": click[:, None].astype(np.float32), "buy": buy[:, None].astype(np.float32),
        "rating": rating[:, None].astype(np.float32), "tags": tags.astype(np.float32),
    }
    parts = np.repeat([0, 1, 2], [int(n * 0.7), int(n * 0.1), n - int(n * 0.7) - int(n * 0.1)]).astype(np.int8)
    return RowSplit(
        "made", "given", FEATURES, columns, heads, {head.name: labels[head.name] for head in heads},
        rng.permutation(parts), pa.table(raw), groups=columns["user"].astype(np.int32),
    )
