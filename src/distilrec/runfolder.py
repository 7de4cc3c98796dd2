"""Small facts about a run: where its cache is, what went in, and how to say what came out."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from distilrec.files import digest_file
from distilrec.recipe import Recipe
from distilrec.types import Split

__all__ = ["cache_folder", "describe", "inputs", "validation"]


def cache_folder() -> Path:
    """Where text vectors are kept between runs: DISTILREC_CACHE, or the user's cache folder."""
    if "DISTILREC_CACHE" in os.environ:
        return Path(os.environ["DISTILREC_CACHE"])
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "distilrec"


def inputs(recipe: Recipe) -> list[str]:
    """Digests of every input file, so that changed data are seen."""
    paths = [Path(p) for p in (recipe.data.path, recipe.data.items, recipe.data.users) if p is not None]
    files = [f for path in paths for f in (sorted(path.glob("*")) if path.is_dir() else [path]) if f.is_file()]
    return [f"{file.name}:{digest_file(file)}" for file in files]


def describe(split: Split) -> str:
    """Users, items and events in one line."""
    parts = " + ".join(f"{split.n_events(part):,} {part}" for part in ("train", "valid", "test"))
    return f"{split.n_users:,} users, {split.n_items:,} items, {parts} events"


def validation(model: Any) -> str:
    """How a model validated and how long it took; nothing for one that was not trained here."""
    training = getattr(model, "training", None)
    if not training:
        return ""
    (metric, value), = training["valid"].items()
    return f", {metric} {value:.4f} on validation, {training['seconds']:.0f} s"
