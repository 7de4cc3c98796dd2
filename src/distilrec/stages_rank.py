"""What the rank task does at each stage, from a recipe and a run folder. pipeline.py says when."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distilrec import api
from distilrec.api_shared import trained_facts
from distilrec.bundle.runtime import load
from distilrec.data import load_split, prepare, simulate_shop
from distilrec.data.split import REFIT
from distilrec.errors import DataError, problem
from distilrec.evaluation.contest import Contestant, Report, contest, timed_teacher, together
from distilrec.files import read_object
from distilrec.knowledge.store import KnowledgeStore
from distilrec.losses import SOFT
from distilrec.models import BASELINES
from distilrec.models.trained import Trained
from distilrec.recipe import ModelSection, Recipe
from distilrec.runfolder import cache_folder, check_students
from distilrec.stages_shared import CHOOSING, ROLES, member_seed, same_weights, told, training_of, with_members
from distilrec.teachers.ensemble import Ensemble
from distilrec.types import Ranker, Split

__all__ = ["distill", "extract", "load_model", "prepare_split", "report", "teacher_of"]


def prepare_split(recipe: Recipe, out: Path) -> Split:
    """The split that a recipe describes, from its files or from the simulated shop."""
    data = recipe.data
    source: Any = data.path if data.shop is None else out / "shop"
    if data.shop is not None:
        simulate_shop(**data.shop.model_dump(exclude={"table", "rows"})).write(source)
    if source is None:
        raise DataError(problem("the recipe names no data", "a file or a folder",
                                "give --data DIR, or set data.path (data.shop for the built-in data)"))
    return prepare(source, items=data.items, users=data.users, columns=data.columns, layout=data.layout,
                   text=tuple(data.text), clean=data.clean, split=dict(recipe.split), name=recipe.name)


def teacher_of(recipe: Recipe, out: Path, split: Split, seed: int) -> Ranker:
    """The teacher of one seed: trained, loaded if it was trained before, or read from its file."""
    section, folder = recipe.teacher, out / "teachers" / f"seed-{seed}"
    if section.model == "file":
        return api.teach("file", split, path=section.path, **section.settings)
    sections: list[ModelSection] = list(section.members) or [section] * section.copies
    several = len(sections) > 1
    members = [_member(recipe, out, split, one, folder / f"member-{i}" if several else folder, member_seed(seed, i))
               for i, one in enumerate(sections)]
    return Ensemble(members, name="teacher") if several else members[0]


def _member(recipe: Recipe, out: Path, split: Split, one: ModelSection, folder: Path, seed: int) -> Ranker:
    how: dict[str, Any] = {"folder": folder, "metric": recipe.evaluate.metric, "seen": recipe.evaluate.seen,
                           "chosen": _chosen(out, split, folder)}
    if one.model in BASELINES:
        return api.teach(one.model, split, seed=seed, **how, **one.settings)
    return api.teach(one.model, split, content=content_of(recipe, split), **how,
                     **{**one.settings, **training_of(one.train, recipe, seed)})


def extract(recipe: Recipe, out: Path, split: Split, seed: int) -> KnowledgeStore:
    """What the teacher of one seed knows, written down."""
    known = recipe.knowledge
    signals = {*known.signals, *(SOFT[name] for name in recipe.student.losses if name in SOFT)}
    teacher, folder = teacher_of(recipe, out, split, seed), out / "knowledge" / f"seed-{seed}"
    how: dict[str, Any] = {"top_k": known.top_k, "content": content_of(recipe, split), "signals": sorted(signals),
                           "temperature": known.temperature}
    if known.weights == "mean" or not isinstance(teacher, Ensemble):
        return api.extract(teacher, split, folder=folder, **how)
    stores = [api.extract(member, split, folder=folder / f"member-{i}", **how)
              for i, member in enumerate(teacher.members)]
    return api.blend(stores, split, weights=known.weights, top_k=known.top_k, folder=folder)


def distill(
    recipe: Recipe, folder: Path | None, out: Path, split: Split, seed: int, own: Mapping[str, Any],
    of_control: Mapping[str, Any],
) -> api.Student:
    """Student and control of one seed, with the settings that tuning chose."""
    section = recipe.student
    store = KnowledgeStore(out / "knowledge" / f"seed-{seed}", split)
    control = {**recipe.control.settings, **recipe.control.train, **of_control}
    chosen = {role: _chosen(out, split, folder / role) for role in ROLES} if folder is not None else {}
    return api.distill(
        section.model, split, store, losses=section.losses, start=section.start, content=content_of(recipe, split),
        control_settings=control, control_losses=recipe.control.losses, folder=folder, scratch=recipe.control.scratch,
        metric=recipe.evaluate.metric, seen=recipe.evaluate.seen, student_settings=own,
        layers_from=teacher_of(recipe, out, split, seed) if section.layers == "teacher" else None,
        chosen={role: record for role, record in chosen.items() if record is not None}, trust=section.trust,
        own_temperature=section.own_temperature, audit=section.audit,
        generations=section.generations, interpolation=section.interpolation,
        **{**section.settings, **training_of(section.train, recipe, seed)},
    )


def _chosen(out: Path, split: Split, folder: Path) -> dict[str, Any] | None:
    """What the same model recorded when it was validated on a carved part; None if this one is validated itself."""
    if split.method != REFIT:
        return None
    path = out / CHOOSING / folder.relative_to(out) / "model.json"
    return read_object(path, {"training": dict})["training"] if path.exists() else None


def content_of(recipe: Recipe, split: Split) -> np.ndarray | None:
    """The items' texts through the recipe's encoder, read from the cache after the first time."""
    if recipe.text is None:
        return None
    return api.item_content(split, recipe.text.encoder, cache=cache_folder())


def load_model(folder: Path, split: Split) -> Trained:
    """A finished student or control."""
    return Trained.load(folder, split)


def report(recipe: Recipe, out: Path, split: Split, lineage: Mapping[str, Any]) -> Report:
    """Read the test part for every model of the run."""
    settings = recipe.evaluate
    chosen = _contestants(recipe, out, split)
    students = [load_model(out / "students" / f"seed-{seed}" / "student", split) for seed in recipe.seeds]
    # which of the teacher's knowledge was believed, by seed: what was left out belongs into the report
    believed: dict[str, Any] = {key: [one.training.get(key) for one in students] for key in ("trust", "audit")
                if any(key in one.training for one in students)}
    notes: list[str] = []
    if recipe.knowledge.weights != "mean":
        stores = [KnowledgeStore(out / "knowledge" / f"seed-{seed}", split) for seed in recipe.seeds]
        weights = [store.manifest["teacher"].get("weights") for store in stores]  # None: written before they were kept
        believed |= {"teacher_weights": weights} if all(weights) else {}
        notes = [_who_taught(recipe.knowledge.weights, weights[0] or [])]
    return contest(
        chosen, split, metric=settings.metric, k=settings.k, seen=settings.seen, candidates=settings.candidates,
        seeds=recipe.seeds, recipe=told(recipe), lineage={**lineage, **believed}, notes=notes,
    )


def _who_taught(how: str, weights: Sequence[Mapping[str, Any]]) -> str:
    shares = ", ".join(f"{one['member']} {one['of_user']:.0%} by user, {one['of_item']:.0%} by item" for one in weights)
    return ("The row teacher, and what is compared with it, is the mean of its members' log-probabilities. The student "
            f"was taught by their mixture with weights: {how}" + (f" (on the average {shares})." if shares else "."))


def _contestants(recipe: Recipe, out: Path, split: Split) -> list[Contestant]:
    """Teachers as they are, students and controls as they are served, and the baselines."""
    teachers = [teacher_of(recipe, out, split, seed) for seed in recipe.seeds]
    chosen = with_members(Contestant, teachers)
    if recipe.evaluate.fusion or recipe.evaluate.cascade:
        chosen[0] = timed_teacher(chosen[0])
    folders = [out / "students" / f"seed-{seed}" for seed in recipe.seeds]
    for role in ROLES if recipe.control.scratch else ROLES[:2]:
        if not all((folder / role / "model.json").exists() for folder in folders):
            continue  # without item content the control is the one from scratch
        models = [Trained.load(folder / role, split) for folder in folders]
        same_weights(models, folders, role)
        served = [load(folder / f"{role}.bundle") for folder in folders]
        exported = recipe.evaluate.candidates == "full"
        chosen.append(Contestant(role, role.partition("-")[0], served if exported else models, timed=served[0],
                                 **trained_facts(models)))
    chosen += _together(recipe, out, split, teachers)
    return chosen + [Contestant(n, "baseline", [api.fit_baseline(n, split)]) for n in recipe.evaluate.baselines]


def _together(recipe: Recipe, out: Path, split: Split, teachers: list[Ranker]) -> list[Contestant]:
    """Teacher and served student as one. Where validation was carved from train, the models of then choose weights."""
    settings = recipe.evaluate
    if not settings.fusion and not settings.cascade:
        return []
    learn_from: list[Any] = []
    if "learned" in settings.fusion:
        refit = split.method == REFIT
        place, then = (out / CHOOSING, load_split(out / "data")) if refit else (out, split)
        for seed, teacher in zip(recipe.seeds, teachers, strict=True):
            check_students(recipe, place / "students" / f"seed-{seed}")
            folder = place / "students" / f"seed-{seed}" / "student"
            learn_from.append((teacher_of(recipe, place, then, seed) if refit else teacher,
                               Trained.load(folder, then), then))
    pairs = [(teacher, load(out / "students" / f"seed-{seed}" / "student.bundle"))
             for seed, teacher in zip(recipe.seeds, teachers, strict=True)]
    return together(pairs, settings.fusion, settings.cascade, metric=settings.metric, seen=settings.seen,
                    learn_from=learn_from)
