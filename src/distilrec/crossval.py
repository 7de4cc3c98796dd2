"""Cross-validation: the whole pipeline once for each fold, each in a run folder of its own, and what all say together.

    OUT/fold-0/ ... OUT/fold-4/     ordinary run folders (see pipeline.py); fold i is the test part of the i-th
    OUT/crossval.json               means, spreads and tests over folds (see evaluation.folds)

A killed cross-validation goes on where it stopped when the same command is given again.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distilrec import __version__, pipeline, stages_rank, stages_rows
from distilrec.bundle.runtime import load
from distilrec.data import load_rows, load_split
from distilrec.errors import RecipeError, problem
from distilrec.evaluation.folds import Asked, fold_samples, folds_document, read_folds, write_folds
from distilrec.evaluation.folds_view import print_folds, sentences
from distilrec.evaluation.metrics import evaluate_lists
from distilrec.evaluation.pointwise import choose_thresholds, row_statistics
from distilrec.evaluation.rank import recommend, recommend_bundle
from distilrec.evaluation.row_terms import Terms
from distilrec.files import digest_json
from distilrec.recipe import Recipe
from distilrec.runfolder import lock
from distilrec.types import Ranker, Split
from distilrec.types_rows import RowSplit

__all__ = ["cross_validate", "fold_recipe", "print_folds", "sentences"]

Say = Callable[[str], None]
_ROLES = ("student", "control")


def cross_validate(
    recipe: Recipe, out: Path, folds: int | None = None, *, resamples: int = 1000, say: Say = print
) -> dict[str, Any]:
    """Run every fold that is not finished, and write OUT/crossval.json; returns that document.

    folds: how many; by default those of the recipe's split, otherwise five.
    Raises:
        RecipeError: the recipe splits by something that folds at random would not respect (time, a given column).
    """
    out, count = Path(out), _count(recipe, folds)
    recipes = [fold_recipe(recipe, count, fold) for fold in range(count)]
    with lock(out):
        reports = []
        for fold, one in enumerate(recipes):
            say(f"fold {fold + 1} of {count}: {out / f'fold-{fold}'}")
            reports.append(pipeline.run(one, out / f"fold-{fold}", say=say).document)
        identity = digest_json([[report["lineage"]["identity"] for report in reports], resamples, __version__])
        path = out / "crossval.json"
        if path.exists() and (document := read_folds(path))["lineage"].get("identity") == identity:
            say(f"cross-validate: nothing to do, the result is in {path}")
            return document
        names = {c["metric"] for report in reports for c in report["comparisons"]}
        models: dict[str, list[list[Asked]]] = {}
        for fold, one in enumerate(recipes):
            for name, asked in _asked(one, out / f"fold-{fold}", names).items():
                models.setdefault(name, []).append(asked)
        unit = "users" if recipe.task == "rank" else "rows" if recipe.group is None else "groups"
        document = folds_document(
            reports, fold_samples(models, unit=unit, resamples=resamples), recipe=recipe.name,
            protocol={"split": {k: v for k, v in recipes[0].split.items() if k != "fold"}, "unit": unit,
                      "resamples": resamples, "selection": "validation, inside each fold"},
            lineage={"identity": identity, "distilrec": __version__, "python": platform.python_version(),
                     "machine": platform.machine(), "cores": os.cpu_count(),
                     "splits": [report["lineage"]["split_digest"] for report in reports],
                     "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())},
        )
        write_folds(document, path)
    say(f"cross-validate: {count} folds -> {path}")
    return document


def fold_recipe(recipe: Recipe, folds: int, fold: int) -> Recipe:
    """The recipe with fold `fold` of `folds` as its test part.

    A random split keeps what it says of groups, seed and of the share of validation rows among those not tested.
    Raises RecipeError for a split of another kind: folds at random would show the models what comes later.
    """
    if folds < 2 or not 0 <= fold < folds:
        raise RecipeError(problem(f"fold {fold} of {folds}", "at least 2 folds, numbered from 0"))
    given = dict(recipe.split)
    rank = recipe.task == "rank"
    method = given.pop("method", "leave-last-out" if rank else "random")
    if method == "random":
        share = "valid" if rank else "carve"
        if rank:
            held, tested = given.pop("valid", 0.1), given.pop("test", 0.1)
        else:
            _, held, tested = given.pop("parts", (0.8, 0.1, 0.1))
        given[share] = held / (1 - tested)
    elif method != "k-fold":
        raise RecipeError(problem(
            f"the recipe {recipe.name!r} splits by {method!r}, which folds at random would not respect",
            "a split by 'random' or 'k-fold'",
            "if the order of rows does not matter, add --set 'split={method: k-fold}'"))
    split = {"method": "k-fold", **given, "folds": folds, "fold": fold}
    return recipe.model_copy(update={"split": split})


def _count(recipe: Recipe, folds: int | None) -> int:
    if folds is not None:
        return folds
    return int(recipe.split.get("folds", 5)) if recipe.split.get("method") == "k-fold" else 5


def _asked(recipe: Recipe, out: Path, metrics: set[str]) -> dict[str, list[Asked]]:
    """Teacher, student and control of one fold on its test part, one entry for each seed."""
    if recipe.task == "rank":
        users = load_split(out / "data")
        return {name: [_lists(one, recipe, users, metrics) for one in models]
                for name, models in _models(recipe, out, users, stages_rank).items()}
    rows = load_rows(out / "data")
    return {name: [_answers(one, rows, metrics) for one in models]
            for name, models in _models(recipe, out, rows, stages_rows).items()}


def _models(recipe: Recipe, out: Path, split: Any, stages: Any) -> dict[str, Sequence[Any]]:
    """Teachers as they are, students and controls as they are served."""
    folders = [out / "students" / f"seed-{seed}" for seed in recipe.seeds]
    found: dict[str, Sequence[Any]] = {"teacher": [stages.teacher_of(recipe, out, split, s) for s in recipe.seeds]}
    sampled = recipe.task == "rank" and recipe.evaluate.candidates != "full"  # a bundle ranks the whole catalog only
    for role in _ROLES:
        if all((folder / f"{role}.bundle").is_dir() for folder in folders):
            found[role] = [stages.load_model(folder / role, split) if sampled else load(folder / f"{role}.bundle")
                           for folder in folders]
    return found


def _answers(model: Any, split: RowSplit, metrics: set[str]) -> Asked:
    def of(rows: np.ndarray) -> np.ndarray:
        if hasattr(model, "scores"):
            told = model.scores({one.name: split.columns[one.name][rows] for one in model.features})
        else:
            told = model.predict(split, rows)
        return np.asarray(told)

    valid, test = split.rows("valid"), split.rows("test")
    on_valid, on_test = (None if split.weights is None else split.weights[rows] for rows in (valid, test))
    cuts = choose_thresholds(of(valid), split.label_matrix(valid), split.heads, weights=on_valid)
    groups = None if split.groups is None else split.groups[test]
    found = row_statistics(of(test), split.label_matrix(test), groups, split.heads, cuts, weights=on_test)
    units = test if groups is None else groups.astype(np.int64)
    return Asked({name: one for name, one in found.items() if name in metrics}, units)


def _lists(model: Any, recipe: Recipe, split: Split, metrics: set[str]) -> Asked:
    settings = recipe.evaluate
    seen: Any = settings.seen
    if isinstance(model, Ranker):
        lists = recommend(model, split, "test", max(settings.k), seen=seen, candidates=settings.candidates)
    else:
        lists = recommend_bundle(model, split, "test", max(settings.k), seen=seen)
    values = {name: v for name, v in evaluate_lists(lists, split, "test", settings.k).items() if name in metrics}
    terms = {name: Terms(np.stack([np.nan_to_num(v), ~np.isnan(v)], axis=1), _ratio) for name, v in values.items()}
    return Asked(terms, lists.users.astype(np.int64))


def _ratio(sums: np.ndarray) -> np.ndarray:
    return np.asarray(np.where(sums[..., 1] != 0, sums[..., 0] / sums[..., 1], np.nan))
