"""The whole job on a run folder, one short function per stage: reading this file is reading the architecture.

    OUT/recipe.yaml          the recipe as it was run, every default written out
    OUT/data/                the split                                       prepare
    OUT/teachers/seed-S/     teacher weights                                 teach
    OUT/knowledge/seed-S/    what the teacher knows                          extract
    OUT/students/seed-S/     student and control, and both as bundles        distill, export
    OUT/bundle/              the student to serve                            export
    OUT/report.json, OUT/report/                                             evaluate

Every stage recognizes its own finished work by digest and then has nothing to do, so a killed run goes on where it
stopped when the same command is given again.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from distilrec import __version__, api
from distilrec.bundle.config import is_whole, seal
from distilrec.bundle.runtime import load
from distilrec.data import load_split, prepare, save_split, simulate_shop
from distilrec.errors import DataError, KnowledgeError, problem
from distilrec.evaluation.card import render_card
from distilrec.evaluation.contest import Contestant, Report, contest
from distilrec.evaluation.report import read_report
from distilrec.files import atomic_folder, digest_json, read_json, recover, write_json
from distilrec.knowledge.store import KnowledgeStore
from distilrec.models.trained import Trained
from distilrec.recipe import Recipe
from distilrec.recipe_yaml import dump_recipe
from distilrec.runfolder import cache_folder, describe, inputs, validation
from distilrec.teachers.ensemble import Ensemble
from distilrec.training.settings import TrainSettings
from distilrec.types import Ranker, Split

__all__ = ["STAGES", "run", "run_stage"]

Say = Callable[[str], None]
ROLES = ("student", "control", "control-scratch")  # what a seed's folder of students holds


def run(recipe: Recipe, out: Path, *, say: Say = print) -> Report:
    """All stages in turn; returns the report."""
    out = Path(out)
    dump_recipe(recipe, out / "recipe.yaml")
    split = stage_prepare(recipe, out, say=say)
    for stage in (stage_teach, stage_extract, stage_distill, stage_export):
        stage(recipe, out, split, say=say)
    return stage_evaluate(recipe, out, split, say=say)


def run_stage(name: str, recipe: Recipe, out: Path, *, say: Say = print) -> Any:
    """One stage; it reads what the stages before it left in `out`."""
    out = Path(out)
    if name == "prepare":
        dump_recipe(recipe, out / "recipe.yaml")
        return stage_prepare(recipe, out, say=say)
    return STAGES[name](recipe, out, load_split(out / "data"), say=say)


def stage_prepare(recipe: Recipe, out: Path, *, say: Say = print) -> Split:
    """Read, clean, split; or open what an earlier run left, if neither recipe nor files changed."""
    folder, mark = out / "data", out / "data" / "manifest.json"
    identity = digest_json([recipe.data.model_dump(mode="json"), recipe.split, inputs(recipe)])
    stamp = out / "data.json"
    recover(folder)
    if mark.exists() and stamp.exists() and read_json(stamp)["identity"] == identity:
        split = load_split(folder)
        say(f"prepare: nothing to do, {describe(split)} in {folder}")
        return split
    split = prepare_split(recipe, out)
    stamp.unlink(missing_ok=True)  # or a kill before the next line leaves the stamp of other data
    save_split(split, folder)
    write_json(stamp, {"identity": identity, "split": split.digest})
    dropped = {**split.dataset.counts, **split.counts}
    say(f"prepare: {describe(split)} -> {folder}")
    for reason, count in dropped.items():
        if count:
            say(f"  {reason}: {count:,}")
    return load_split(folder)


def stage_teach(recipe: Recipe, out: Path, split: Split, *, say: Say = print) -> list[Ranker]:
    """Train (or adopt) one teacher for each seed."""
    with _idle("teach", out / "teachers", say):
        teachers = [teacher_of(recipe, out, split, seed) for seed in recipe.seeds]
    for seed, teacher in zip(recipe.seeds, teachers, strict=True):
        say(f"teach: seed {seed}: {teacher.name}, {teacher.parameters:,} parameters{validation(teacher)}")
    return teachers


def stage_extract(recipe: Recipe, out: Path, split: Split, *, say: Say = print) -> list[KnowledgeStore]:
    """Write down what each teacher knows."""
    stores = []
    with _idle("extract", out / "knowledge", say):
        for seed in recipe.seeds:
            teacher, folder = teacher_of(recipe, out, split, seed), out / "knowledge" / f"seed-{seed}"
            manifest = folder / "manifest.json"
            if manifest.exists() and read_json(manifest).get("split_digest") != split.digest:
                manifest.unlink()  # this run's own store, of data that have changed: made anew
            stores.append(api.extract(teacher, split, top_k=recipe.knowledge.top_k, folder=folder,
                                      content=content_of(recipe, split), temperature=recipe.knowledge.temperature))
    for store in stores:
        size = sum(entry["bytes"] for entry in store.manifest["signals"].values())
        say(f"extract: {store.folder.name}: {size / 1e6:.1f} MB -> {store.folder}")
    return stores


def stage_distill(recipe: Recipe, out: Path, split: Split, *, say: Say = print) -> list[api.Student]:
    """Train student and control for each seed, on settings that both chose by validation in equally many trials."""
    students = []
    with _idle("distill", out / "students", say):
        chosen = _tune(recipe, out, split, say)
        for seed in recipe.seeds:
            student = _distill(recipe, out / "students" / f"seed-{seed}", out, split, seed, *chosen)
            say(f"distill: seed {seed}: student{validation(student.model)}; control{validation(student.control)}")
            students.append(student)
    return students


@contextlib.contextmanager
def _idle(stage: str, folder: Path, say: Say) -> Iterator[None]:
    """Say so when a stage wrote no model and no store: it found all of them finished."""
    before = _written(folder)
    yield
    if _written(folder) == before:
        say(f"{stage}: nothing to do")


def _written(folder: Path) -> dict[Path, int]:
    return {p: p.stat().st_mtime_ns for name in ("model.json", "manifest.json") for p in folder.rglob(name)}


def stage_export(recipe: Recipe, out: Path, split: Split, *, say: Say = print) -> Path:
    """Bundles of every student and control; the student that validated best is copied to OUT/bundle."""
    best, best_value, idle = out, -np.inf, True
    for seed in recipe.seeds:
        folder = out / "students" / f"seed-{seed}"
        for role in ROLES:
            recover(folder / role)
            if (folder / role / "model.json").exists():
                idle &= _export(Trained.load(folder / role, split), folder / f"{role}.bundle", split, recipe)
        if not (folder / "student" / "model.json").exists():
            raise KnowledgeError(problem(f"{folder} holds no trained student", do="run `distilrec distill` first"))
        (value,) = read_json(folder / "student" / "model.json")["training"]["valid"].values()  # what selected it
        if best == out or value > best_value:
            best, best_value = folder / "student.bundle", value
    stamp, made = out / "bundle.json", read_json(best.with_suffix(".json"))
    if stamp.exists() and read_json(stamp) == made and is_whole(out / "bundle"):
        say(f"export: {'nothing to do, ' if idle else ''}{best.parent.name} is in {out / 'bundle'}")
        return out / "bundle"
    stamp.unlink(missing_ok=True)  # of what is replaced now
    with atomic_folder(out / "bundle") as temporary:
        shutil.copytree(best, temporary, dirs_exist_ok=True)
    write_json(stamp, made)
    say(f"export: {best.parent.name} validated best -> {out / 'bundle'}")
    return out / "bundle"


def stage_evaluate(recipe: Recipe, out: Path, split: Split, *, say: Say = print) -> Report:
    """Read the test part, once, for every model of the run; write the report and seal it into the bundle."""
    identity = digest_json([recipe.model_dump(mode="json"), split.digest, _made(recipe, out)])
    if (out / "report.json").exists():
        report = Report(read_report(out / "report.json"))
        if report["lineage"].get("identity") == identity:
            _seal(out, report)
            say(f"evaluate: nothing to do, the report is in {out / 'report.json'}")
            say(str(report))
            return report
    settings = recipe.evaluate
    report = contest(
        _contestants(recipe, out, split), split, metric=settings.metric, k=settings.k, seen=settings.seen,
        candidates=settings.candidates, seeds=recipe.seeds, recipe=recipe.name,
        lineage={"identity": identity, **_lineage(recipe, out, split)},
    )
    files = report.save(out)
    _seal(out, report)
    say(str(report))
    for name, path in {**files, "bundle": out / "bundle"}.items():
        say(f"{name}: {path}")
    return report


def _seal(out: Path, report: Report) -> None:
    """Put card and metrics into the bundle, unless these very ones are there."""
    files = {"card.md": render_card(report.document), "metrics.json": json.dumps(report["models"])}
    folder = out / "bundle"
    if not all((folder / name).exists() and (folder / name).read_text("utf-8") == text for name, text in files.items()):
        seal(folder, files)


def _contestants(recipe: Recipe, out: Path, split: Split) -> list[Contestant]:
    """Teachers as they are, students and controls as they are served, and the baselines."""
    teachers = [teacher_of(recipe, out, split, seed) for seed in recipe.seeds]
    chosen = [Contestant("teacher", "teacher", teachers, **api.trained_facts(teachers))]
    folders = [out / "students" / f"seed-{seed}" for seed in recipe.seeds]
    for role in ROLES if recipe.control.scratch else ROLES[:2]:
        if not all((folder / role / "model.json").exists() for folder in folders):
            continue  # without item content the control is the one from scratch
        models = [Trained.load(folder / role, split) for folder in folders]
        _same_weights(models, folders, role)
        served = [load(folder / f"{role}.bundle") for folder in folders]
        exported = recipe.evaluate.candidates == "full"
        chosen.append(Contestant(role, role.partition("-")[0], served if exported else models, timed=served[0],
                                 **api.trained_facts(models)))
    return chosen + [Contestant(n, "baseline", [api.fit_baseline(n, split)]) for n in recipe.evaluate.baselines]


def prepare_split(recipe: Recipe, out: Path) -> Split:
    """The split that a recipe describes, from its files or from the simulated shop."""
    data = recipe.data
    source: Any = data.path if data.shop is None else out / "shop"
    if data.shop is not None:
        simulate_shop(**data.shop.model_dump()).write(source)
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
    content = content_of(recipe, split)
    members = [
        api.teach(section.model, split, content=content,
                  folder=folder / f"member-{i}" if section.copies > 1 else folder,
                  metric=recipe.evaluate.metric, seen=recipe.evaluate.seen,
                  **{**section.settings, **_training(section.train, recipe, seed + 1000 * i)})
        for i in range(section.copies)
    ]
    return members[0] if section.copies == 1 else Ensemble(members, name="teacher")


def content_of(recipe: Recipe, split: Split) -> np.ndarray | None:
    """The items' texts through the recipe's encoder, read from the cache after the first time."""
    if recipe.text is None:
        return None
    return api.item_content(split, recipe.text.encoder, cache=cache_folder())


def _made(recipe: Recipe, out: Path) -> dict[str, str]:
    """Digests of the trained weights of a run, by place in the run folder."""
    models = [path for seed in recipe.seeds for part in ("teachers", "students")
              for path in sorted((out / part / f"seed-{seed}").rglob("model.json"))]
    return {str(path.parent.relative_to(out)): read_json(path)["digest"] for path in models}


def _lineage(recipe: Recipe, out: Path, split: Split) -> dict[str, Any]:
    """From data to report: versions, digests, machine."""
    stores = {f"seed-{seed}": KnowledgeStore(out / "knowledge" / f"seed-{seed}", split).digest for seed in recipe.seeds}
    return {
        "distilrec": __version__, "python": platform.python_version(), "machine": platform.machine(),
        "cores": os.cpu_count(), "recipe_digest": digest_json(recipe.model_dump(mode="json")),
        "weights": _made(recipe, out), "knowledge": stores, "dropped": {**split.dataset.counts, **split.counts},
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _training(train: TrainSettings, recipe: Recipe, seed: int) -> dict[str, Any]:
    return {**dict(train), "device": recipe.device, "seed": seed}


def _distill(
    recipe: Recipe, folder: Path | None, out: Path, split: Split, seed: int, own: Mapping[str, Any],
    of_control: Mapping[str, Any],
) -> api.Student:
    """Student and control of one seed, with the settings that tuning chose."""
    section = recipe.student
    store = KnowledgeStore(out / "knowledge" / f"seed-{seed}", split)
    control = {**recipe.control.settings, **recipe.control.train, **of_control}
    return api.distill(
        section.model, split, store, losses=section.losses, start=section.start, content=content_of(recipe, split),
        control_settings=control, control_losses=recipe.control.losses, folder=folder, scratch=recipe.control.scratch,
        metric=recipe.evaluate.metric, seen=recipe.evaluate.seen, student_settings=own,
        **{**section.settings, **_training(section.train, recipe, seed)},
    )


def _tune(recipe: Recipe, out: Path, split: Split, say: Say) -> tuple[dict[str, Any], dict[str, Any]]:
    """(settings of the student, settings of the control) that validated best on the first seed."""
    trials, seed = recipe.tune, recipe.seeds[0]
    if not trials.student:
        return {}, {}
    best: dict[str, tuple[float, dict[str, Any]]] = {}
    for index, (own, of_control) in enumerate(zip(trials.student, trials.control, strict=True)):
        pair = _distill(recipe, out / "students" / "trials" / str(index), out, split, seed, own, of_control)
        for role, model, settings in (("student", pair.model, own), ("control", pair.control, of_control)):
            value = model.training["valid"][recipe.evaluate.metric] if model is not None else -np.inf
            if role not in best or value > best[role][0]:
                best[role] = (value, settings)
        say(f"tune: trial {index + 1} of {len(trials.student)}: student{validation(pair.model)}; "
            f"control{validation(pair.control)}")
    write_json(out / "students" / "tuned.json", {role: {"valid": v, "settings": s} for role, (v, s) in best.items()})
    return best["student"][1], best["control"][1]


def _export(trained: Trained, folder: Path, split: Split, recipe: Recipe) -> bool:
    """Write a bundle, unless the one there was made from these very weights; returns whether it was."""
    stamp, made = folder.with_suffix(".json"), {"weights": trained.digest, "seen": recipe.evaluate.seen}
    if stamp.exists() and read_json(stamp) == made and is_whole(folder):
        return True
    stamp.unlink(missing_ok=True)
    card = (f"# {recipe.name}: {trained.name}\n\n{trained.parameters:,} parameters, {trained.architecture}, validated "
            f"{trained.training['valid']}.\n"
            f"Made by distilrec {__version__} from data set {split.dataset.digest[:12]}.\n")
    api.export(trained, folder, split, card=card, seen=recipe.evaluate.seen)
    write_json(stamp, made)
    return False


def _same_weights(models: list[Trained], folders: list[Path], role: str) -> None:
    """The report speaks of what is served: a bundle of older weights must not stand for the new ones."""
    for model, folder in zip(models, folders, strict=True):
        stamp = folder / f"{role}.json"
        if not stamp.exists() or read_json(stamp)["weights"] != model.digest:
            raise KnowledgeError(problem(f"{folder / role} was trained after its bundle was exported",
                                         "a bundle of the same weights", "run `distilrec export` first"))


STAGES: Mapping[str, Callable[..., Any]] = {
    "teach": stage_teach, "extract": stage_extract, "distill": stage_distill, "export": stage_export,
    "evaluate": stage_evaluate,
}
