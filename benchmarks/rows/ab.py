"""An A/B test in the simulated shop: teacher, student and controls of shop-multitask fill pages for its true users.

    python benchmarks/rows/ab.py [--run runs/bench/shop-multitask] [--visits 2]

Needs the finished run of benchmarks/rows/multitask.py. Pages are moments of the test part; on each, 40 candidates: the
collection of the item clicked last, the rest drawn by how often the shop showed them before the test part, without what
the user had clicked. A policy orders them by its output for purchase, which is P(click) x P(purchase | click).
Leaves benchmarks/results/shop-ab/{conversion,run}.json.
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from distilrec import stages_rows
from distilrec.bundle.runtime import load
from distilrec.cli_guard import use_threads
from distilrec.data import load_rows, simulate_shop
from distilrec.evaluation.conversion import Conversion, Pages, conversion, true_scores
from distilrec.recipe import Recipe
from distilrec.recipe_yaml import load_recipe
from distilrec.types_rows import RowSplit
from kept import ROOT, keep

NAME = "shop-ab"
CANDIDATES, SHOWN = 40, 8
OF_ITEM = ("item_id", "price", "weight_kg", "discount", "test_score", "category", "department", "brand", "collection",
           "material", "color", "item_tags")
PAIRS = (("student", "control"), ("student", "single-task"), ("student", "teacher"), ("teacher", "control"),
         ("student", "popularity"), ("truth", "student"), ("student", "random"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--run", type=Path, default=ROOT / "runs" / "bench" / "shop-multitask")
    parser.add_argument("--visits", type=int, default=2, help="pages of a user, at most")
    options = parser.parse_args()
    use_threads(1)
    recipe = load_recipe(options.run / "recipe.yaml")
    split = load_rows(options.run / "data")
    if recipe.data.shop is None:
        raise SystemExit("the run is not of the simulated shop")
    shop = simulate_shop(**recipe.data.shop.model_dump(exclude={"table", "rows"}))
    rows, pages = pages_of(split, shop.items, options.visits)
    asked = questions(split, rows, pages)
    policies = answers(recipe, options.run, split, asked, pages.candidates.shape)
    policies["popularity"] = popularity(split, pages)
    policies["random"] = np.random.default_rng(1).random(pages.candidates.shape)
    policies["truth"] = true_scores(pages, shop.truth)
    found = conversion(policies, pages, shop.truth, k=SHOWN, resamples=2000)
    show(found)
    keep(NAME, f"python benchmarks/rows/ab.py --visits {options.visits}", recipe.seeds,
         {"conversion.json": {**found.to_json(PAIRS), "candidates": CANDIDATES, "split": split.digest}},
         recipe="recipes/shop-multitask.yaml")


def pages_of(split: RowSplit, items: pl.DataFrame, visits: int) -> tuple[np.ndarray, Pages]:
    """(the first row of each page in the table, the pages)."""
    rng = np.random.default_rng(0)
    names = ["user_id", "item_id", "timestamp", "previous", "click"]
    table = pl.DataFrame(pl.from_arrow(split.raw.select(names))).with_columns(
        row=pl.int_range(pl.len()), part=pl.Series(split.parts))
    kept = table.filter(pl.col("part") == 2).unique(["user_id", "timestamp"], keep="first", maintain_order=True)
    kept = kept.with_columns(lot=pl.Series(rng.random(kept.height))).sort("lot").group_by(
        "user_id", maintain_order=True).head(visits).sort("user_id", "timestamp")
    before = table.filter(pl.col("part") != 2).group_by("item_id").len()
    exposure = np.zeros(items.height + 1)
    exposure[before["item_id"].to_numpy()] = before["len"].to_numpy()
    collection = np.concatenate([[-1], items.sort("item_id")["collection"].rank("dense").to_numpy()])
    clicks = table.filter(pl.col("click") == 1)
    of_user = {user: (part["timestamp"].to_numpy(), part["item_id"].to_numpy())
               for (user,), part in clicks.group_by("user_id")}
    offered = np.empty((kept.height, CANDIDATES), dtype=np.int64)
    previous = kept["previous"].fill_null(0).to_numpy().astype(np.int64)
    with np.errstate(divide="ignore"):
        base = np.log(exposure)
    for page, (user, time) in enumerate(kept.select("user_id", "timestamp").iter_rows()):
        key = base + rng.gumbel(size=len(base))  # the largest are a draw without replacement by exposure
        if previous[page]:
            key[(collection == collection[previous[page]]) & (exposure > 0)] += 1e6
        times, taken = of_user.get(user, (np.empty(0), np.empty(0, dtype=np.int64)))
        key[taken[times < time]] = -np.inf
        offered[page] = rng.permutation(np.argsort(-key)[:CANDIDATES])
    return kept["row"].to_numpy(), Pages(kept["user_id"].to_numpy().astype(np.int64),
                                         kept["timestamp"].to_numpy().astype(np.int64), previous, offered)


def questions(split: RowSplit, rows: np.ndarray, pages: Pages) -> RowSplit:
    """A table with a row for every candidate of every page: the page's user and history, the item, position 1."""
    raw_items = split.raw.column("item_id").to_numpy()
    row_of_item = np.zeros(int(raw_items.max()) + 1, dtype=np.int64)
    row_of_item[raw_items] = np.arange(len(raw_items))  # any row with the item: its columns are the item's
    base = np.repeat(rows, pages.candidates.shape[1])
    other = row_of_item[pages.candidates.ravel()]
    top = int(np.flatnonzero(split.raw.column("position").to_numpy() == 1)[0])
    columns: dict[str, Any] = {name: array[other if name in OF_ITEM else base]
                               for name, array in split.columns.items()}
    columns["position"] = np.repeat(split.columns["position"][top : top + 1], len(base))
    return replace(split, columns=columns, labels={name: array[base] for name, array in split.labels.items()},
                   parts=np.full(len(base), 2, dtype=np.int8), groups=None, weights=None)


def answers(recipe: Recipe, out: Path, split: RowSplit, asked: RowSplit, shape: tuple[int, ...]) -> dict[str, Any]:
    """policy -> [S, N, C]: the logit of purchase, of both click and purchase where the model knows of clicks."""
    place = split.outputs.slices["purchase"].start
    every = np.arange(len(asked))
    found: dict[str, list[np.ndarray]] = {"teacher": [], "student": [], "control": [], "single-task": []}
    for seed in recipe.seeds:
        teacher = stages_rows.teacher_of(recipe, out, split, seed)
        found["teacher"].append(teacher.predict(asked, every)[:, place])
        folder = out / "students" / f"seed-{seed}"
        for role in ("student", "control"):
            bundle = load(folder / f"{role}.bundle")
            found[role].append(bundle.scores({one.name: asked.columns[one.name] for one in bundle.features})[:, place])
        alone = stages_rows.load_model(folder / "single-task" / "purchase", None)
        only = replace(asked, heads=alone.heads, labels={"purchase": asked.labels["purchase"]})
        found["single-task"].append(alone.predict(only, every)[:, 0])
    return {name: np.stack([one.reshape(shape) for one in each]).astype(np.float64) for name, each in found.items()}


def popularity(split: RowSplit, pages: Pages) -> np.ndarray:
    """[N, C]: how often an item was bought before the test part."""
    before = split.parts != 2
    items = split.raw.column("item_id").to_numpy()
    bought = np.bincount(items[before], np.nan_to_num(split.labels["purchase"][before, 0]), minlength=items.max() + 1)
    return bought[pages.candidates]


def show(found: Conversion) -> None:
    print(f"{found.pages} pages of {found.users} users, {found.k} of {CANDIDATES} shown")
    for name, of in found.samples.items():
        print(f"{name:12}", "  ".join(
            f"{metric} {one.value:.4f} ({(one.interval() or (0, 0))[0]:.4f} to {(one.interval() or (0, 0))[1]:.4f})"
            for metric, one in of.items()))
    for a, b in PAIRS:
        one = found.difference(a, b)
        print(f"{a} - {b}: {one.difference:+.4f} ({one.interval[0]:+.4f} to {one.interval[1]:+.4f}), "
              f"{100 * (one.relative or 0):+.1f} %, p {one.p_value:.3f}")


if __name__ == "__main__":
    main()
