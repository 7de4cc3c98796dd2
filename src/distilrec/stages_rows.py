"""What the tasks predict and tag do at each stage, from a recipe and a run folder. pipeline.py says when."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from distilrec import api
from distilrec.api_rows import EachAlone, distill_on_rows, extract_from_rows, fit_row_baseline, train_each_alone
from distilrec.api_shared import trained_facts
from distilrec.bundle.runtime import load
from distilrec.data import encode_texts, prepare_rows, shop_table, simulate_shop
from distilrec.data.row_table import join, read_rows
from distilrec.errors import DataError, problem
from distilrec.evaluation.contest import Report
from distilrec.evaluation.row_contest import RowContestant, row_contest
from distilrec.files import digest_json, read_json
from distilrec.knowledge.store import KnowledgeStore
from distilrec.models.predictor import TrainedRows
from distilrec.recipe import ModelSection, Recipe, TeacherSection
from distilrec.runfolder import cache_folder
from distilrec.stages_shared import ROLES, member_seed, same_weights, told, training_of, with_members
from distilrec.teachers.row_ensemble import RowEnsemble, learn_weights
from distilrec.teachers.row_local import LocalEnsemble
from distilrec.types_rows import Predictor, RowSplit

__all__ = ["distill", "extract", "load_model", "prepare_split", "report", "teacher_of"]

_UNUSED = -1  # the part of rows that a copy of the teacher must not see


def prepare_split(recipe: Recipe, _out: Path) -> RowSplit:
    """The encoded table that a recipe describes, from its file or from the simulated shop."""
    data = recipe.data
    if data.shop is not None:
        own = data.shop.model_dump(exclude={"table", "rows"})
        source: Any = shop_table(simulate_shop(**own), data.shop.table, rows=data.shop.rows)
    elif data.path is None:
        raise DataError(problem("the recipe names no data", "a file or a folder",
                                "give --data DIR, or set data.path (data.shop for the built-in data)"))
    else:
        source = data.path
    features, source, joins = _text_vectors(recipe, source)
    return prepare_rows(
        source, features=features, labels=recipe.labels, group=recipe.group, weight=recipe.weight,
        split=dict(recipe.split), columns=list(data.columns) or None, joins=joins, name=recipe.name,
    )


def teacher_of(recipe: Recipe, out: Path, split: RowSplit, seed: int) -> Predictor:
    """The teacher of one seed: trained, loaded if it was trained before, or opened from outside."""
    return _teacher(recipe, out / "teachers" / f"seed-{seed}", split, seed)


def extract(recipe: Recipe, out: Path, split: RowSplit, seed: int) -> KnowledgeStore:
    """What the teacher of one seed says of every train row; by copies that did not see the row if there are folds."""
    teacher = teacher_of(recipe, out, split, seed)
    held_out = _held_out(recipe, out / "teachers" / f"seed-{seed}-folds", split, seed)
    return extract_from_rows(teacher, split, folder=out / "knowledge" / f"seed-{seed}",
                             hidden=recipe.knowledge.hidden, held_out=held_out, extra=recipe.knowledge.extra,
                             swap=recipe.knowledge.swap, seed=seed)


def distill(
    recipe: Recipe, folder: Path | None, out: Path, split: RowSplit, seed: int, own: Mapping[str, Any],
    of_control: Mapping[str, Any],
) -> api.Student:
    """Student and control of one seed, with the settings that tuning chose."""
    section = recipe.student
    store = KnowledgeStore(out / "knowledge" / f"seed-{seed}", split)
    control = {**recipe.control.settings, **recipe.control.train, **of_control}
    made = distill_on_rows(
        section.model, split, store, losses=section.losses or None, start=section.start, auxiliary=section.auxiliary,
        features=section.features, control_settings=control, control_losses=recipe.control.losses or None,
        student_settings=own, folder=folder, metric=recipe.evaluate.metric,
        **{**section.settings, **training_of(section.train, recipe, seed)},
    )
    if folder == out / "students" / f"seed-{seed}":  # trials are of student and control alone
        _single_tasks(recipe, out, split, seed)
    return api.Student(*made, split)


def _single_tasks(recipe: Recipe, out: Path, split: RowSplit, seed: int) -> EachAlone | None:
    """The single-task controls of one seed, trained or loaded, with the settings of its control; None without them."""
    section, wanted = recipe.student, recipe.control.single_task
    if not wanted:
        return None
    folder = out / "students" / f"seed-{seed}"
    said = read_json(folder / "control" / "model.json")
    steps = int(read_json(folder / "student" / "model.json")["training"]["steps"])
    base = {**said["settings"], **said["training"]["settings"], "epochs": section.train.epochs,
            "seed": seed, "device": recipe.device}
    return train_each_alone(
        section.model, split, features=section.features, losses=recipe.control.losses or None,
        own=wanted if isinstance(wanted, dict) else None, steps=steps, folder=folder / "single-task", **base,
    )


def load_model(folder: Path, split: RowSplit) -> TrainedRows:
    """A finished student or control."""
    return TrainedRows.load(folder, split)


def report(recipe: Recipe, out: Path, split: RowSplit, lineage: Mapping[str, Any]) -> Report:
    """Read the test rows for every model of the run: teachers as they are, students and controls as they are served."""
    metric = recipe.evaluate.metric
    teachers = [teacher_of(recipe, out, split, seed) for seed in recipe.seeds]
    chosen = with_members(RowContestant, teachers)
    if recipe.knowledge.weights != "mean":  # and what the members are without them
        plain = [RowEnsemble(getattr(one, "members", [one]), name="equal weights") for one in teachers]
        chosen.append(RowContestant("equal weights", "member", plain))
        lineage = {**lineage, "teacher_weights": [_weights_of(one, split) for one in teachers]}
    folders = [out / "students" / f"seed-{seed}" for seed in recipe.seeds]
    for role in ROLES[:2]:
        models = [load_model(folder / role, split) for folder in folders]
        same_weights(models, folders, role)
        served = [load(folder / f"{role}.bundle") for folder in folders]
        chosen.append(RowContestant(role, role, served, timed=served[0], **trained_facts(models)))
    alone = [one for seed in recipe.seeds if (one := _single_tasks(recipe, out, split, seed)) is not None]
    if alone:
        facts = trained_facts(alone)  # without curves: each is of another metric
        chosen.append(RowContestant("single-task", "control", alone, train_seconds=facts["train_seconds"]))
    chosen += [RowContestant(n, "baseline", [fit_row_baseline(n, split, metric=metric)])
               for n in recipe.evaluate.baselines]
    return row_contest(chosen, split, metric=metric, seeds=recipe.seeds, recipe=told(recipe), lineage=lineage,
                       slices=recipe.evaluate.slices)


def _teacher(recipe: Recipe, folder: Path, split: RowSplit, seed: int) -> Predictor:
    section = recipe.teacher
    if section.path is not None:
        return api.teach(section.model, split, path=section.path, space=section.space, trust=section.trust,
                         **section.settings)
    sections: list[ModelSection] = list(section.members) or [section] * section.copies
    several = len(sections) > 1
    members = [
        _member(recipe, section, one, folder / f"member-{i}" if several else folder, split, member_seed(seed, i))
        for i, one in enumerate(sections)
    ]
    if not several:
        return members[0]
    if recipe.knowledge.weights == "agreement":
        return LocalEnsemble(members, split, item=recipe.knowledge.item, name="teacher")
    weights = learn_weights(members, split) if recipe.knowledge.weights == "learned" else None
    return RowEnsemble(members, weights=weights, name="teacher")


def _weights_of(teacher: Any, split: RowSplit) -> dict[str, Any]:
    """For the report: what each member of one seed's teacher counts."""
    if isinstance(teacher, LocalEnsemble):
        return teacher.facts()
    return {"weights": "learned", "heads": {head.name: {"members": [
        {"member": member.name, "weight": round(float(weight), 4)}
        for member, weight in zip(teacher.members, teacher.weights[head.name], strict=True)]} for head in split.heads}}


def _member(
    recipe: Recipe, teacher: TeacherSection, one: ModelSection, folder: Path, split: RowSplit, seed: int
) -> Predictor:
    if one.model == "trees":
        return api.teach("trees", split, folder=folder, features=teacher.features, seed=seed,
                         **{"threads": recipe.threads, **one.settings})
    return api.teach(one.model, split, folder=folder, features=teacher.features, metric=recipe.evaluate.metric,
                     **{**one.settings, **training_of(one.train, recipe, seed)})


class _Folds:
    """Answers each row by the copy of the teacher that was trained without the row's fold."""

    def __init__(self, copies: list[Predictor], fold_of: np.ndarray, views: list[RowSplit]) -> None:
        self.name = "teacher"
        self.copies, self.fold_of, self.views = copies, fold_of, views

    def predict(self, split: RowSplit, rows: np.ndarray) -> np.ndarray:
        """float32 [n, O]."""
        out = np.empty((len(rows), split.outputs.size), dtype=np.float32)
        for fold, (one, view) in enumerate(zip(self.copies, self.views, strict=True)):
            own = self.fold_of[rows] == fold
            if own.any():
                out[own] = one.predict(view, rows[own])
        return out

    @property
    def parameters(self) -> int:
        return self.copies[0].parameters

    @property
    def digest(self) -> str:
        """Empty, which is no digest, where a copy has none."""
        digests = [getattr(one, "digest", "") for one in self.copies]
        return digest_json(digests) if all(digests) else ""


def _held_out(recipe: Recipe, folder: Path, split: RowSplit, seed: int) -> _Folds | None:
    """Copies of the teacher for `knowledge.folds`; rows of one group are in one fold."""
    folds = recipe.knowledge.folds
    if folds < 2:
        return None
    unit = np.arange(len(split)) if split.groups is None else split.groups
    order = np.random.default_rng([seed, 7]).permutation(int(unit.max()) + 1)
    fold_of = (order % folds)[unit]
    hide = lambda fold: np.where((fold_of == fold) & (split.parts == 0), _UNUSED, split.parts)  # noqa: E731
    views = [replace(split, parts=hide(fold).astype(np.int8)) for fold in range(folds)]
    copies = [_teacher(recipe, folder / f"fold-{fold}", view, seed) for fold, view in enumerate(views)]
    return _Folds(copies, fold_of, views)


def _text_vectors(recipe: Recipe, source: Any) -> tuple[dict[str, Any], Any, list[dict[str, Any]]]:
    """(features, source, joins): a vector feature with an `encoder` gets a column with the vectors of its text."""
    features, joins = dict(recipe.features), [one.model_dump() for one in recipe.data.joins]
    wanted = {name: spec for name, spec in features.items() if isinstance(spec, Mapping) and "encoder" in spec}
    if not wanted:
        return features, source, joins
    frame: pl.DataFrame = join(read_rows(source, list(recipe.data.columns) or None), joins).frame
    for name, spec in wanted.items():
        column = str(spec.get("column", name))
        texts = frame.get_column(column).cast(pl.String)
        unique = texts.unique(maintain_order=True).to_list()
        vectors = encode_texts(unique, str(spec["encoder"]), cache=cache_folder())
        place = {text: row for row, text in enumerate(unique)}
        rows = vectors[[place[text] for text in texts.to_list()]]
        frame = frame.with_columns(pl.Series(f"{name} (vector)", rows.astype(np.float32)).cast(pl.List(pl.Float32)))
        rest = {key: value for key, value in spec.items() if key not in ("encoder", "column")}
        features[name] = {**rest, "kind": "vector", "column": f"{name} (vector)"}
    return features, frame, []
