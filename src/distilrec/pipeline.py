"""The whole job on a run folder, one short function per stage: reading this file is reading the architecture.

    OUT/recipe.yaml          the recipe as it was run, every default written out
    OUT/data/                the split                                       prepare
    OUT/teachers/seed-S/     teacher weights                                 teach
    OUT/knowledge/seed-S/    what the teacher knows                          extract
    OUT/students/seed-S/     student and control, and both as bundles        distill, export
    OUT/bundle/              the student to serve                            export
    OUT/report.json, OUT/report/                                             evaluate
    OUT/choosing/            where validation was carved from train: teachers, knowledge and students that were trained
                             on the rest, to choose settings and numbers of epochs for those on all of train

Every stage recognizes its own finished work by digest and then has nothing to do, so a killed run goes on where it
stopped when the same command is given again.
"""

from __future__ import annotations

import contextlib
import json
import operator
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from distilrec import __version__, api, stages_rank, stages_rows
from distilrec.bundle.config import is_whole, seal
from distilrec.data import load_rows, load_split, save_rows, save_split
from distilrec.data.split import CARVED, REFIT, whole_train
from distilrec.errors import KnowledgeError, RecipeError, problem
from distilrec.evaluation.card import render_card
from distilrec.evaluation.contest import Report
from distilrec.evaluation.report import read_report
from distilrec.files import atomic_folder, digest_json, read_json, read_object, recover, well_formed, write_json
from distilrec.knowledge.store import KnowledgeStore
from distilrec.recipe import Recipe
from distilrec.recipe_yaml import dump_recipe
from distilrec.runfolder import (
    check_knowledge,
    check_students,
    describe,
    inputs,
    knowledge_identity,
    lock,
    stamped,
    students_identity,
    validation,
)
from distilrec.stages_shared import CHOOSING, ROLES
from distilrec.training.settings import lower_is_better
from distilrec.types import Split
from distilrec.types_rows import RowSplit

__all__ = ["STAGES", "run", "run_stage", "stages_of"]

Say = Callable[[str], None]
AnySplit = Split | RowSplit


def stages_of(recipe: Recipe) -> Any:
    """The module that knows how this recipe's task prepares, teaches, extracts, distills and measures."""
    return stages_rank if recipe.task == "rank" else stages_rows


def run(recipe: Recipe, out: Path, *, say: Say = print) -> Report:
    """All stages in turn; returns the report."""
    out = Path(out)
    with lock(out):
        dump_recipe(recipe, out / "recipe.yaml")
        split = stage_prepare(recipe, out, say=say)
        for name in ("teach", "extract", "distill", "export"):
            _staged(name, recipe, out, split, say)
        return _staged("evaluate", recipe, out, split, say)


def run_stage(name: str, recipe: Recipe, out: Path, *, say: Say = print) -> Any:
    """One stage; it reads what the stages before it left in `out`."""
    out = Path(out)
    with lock(out):
        split = None if name == "prepare" else _load(recipe, out / "data")
        if not (out / "recipe.yaml").exists():
            dump_recipe(recipe, out / "recipe.yaml")
        done = stage_prepare(recipe, out, say=say) if split is None else _staged(name, recipe, out, split, say)
        dump_recipe(recipe, out / "recipe.yaml")  # a refused stage leaves the recipe of what lies here
        return done


def _staged(name: str, recipe: Recipe, out: Path, split: AnySplit, say: Say) -> Any:
    """One stage; where validation was carved from train, models choose there and are trained again on all of train."""
    if recipe.refit and isinstance(split, Split) and split.method == CARVED:
        if name in ("teach", "extract", "distill"):
            _check_refit(recipe)
            STAGES[name](recipe, out / CHOOSING, split, say=lambda line: say(f"{CHOOSING}: {line}"))
        split = whole_train(split)
    return STAGES[name](recipe, out, split, say=say)


def _check_refit(recipe: Recipe) -> None:
    """Raises RecipeError for choices by validation that a second training on all of train cannot repeat."""
    own = recipe.student
    asked = {"generations": own.generations > 1, "interpolation": own.interpolation}
    for key, given in asked.items():
        if given:
            raise RecipeError(problem(f"student.{key} where validation is carved from train and trained on in the end",
                                      "a split with a validation part of its own", "set refit: false"))


def stage_prepare(recipe: Recipe, out: Path, *, say: Say = print) -> AnySplit:
    """Read, clean, split; or open what an earlier run left, if neither recipe nor files changed."""
    folder, mark = out / "data", out / "data" / "manifest.json"
    identity = digest_json([recipe.data.model_dump(mode="json"), recipe.split, inputs(recipe), recipe.task,
                            recipe.features, recipe.labels, recipe.group, recipe.weight])
    stamp = out / "data.json"
    recover(folder)
    if mark.exists() and stamp.exists() and read_object(stamp, {"identity": str})["identity"] == identity:
        split = _load(recipe, folder)
        say(f"prepare: nothing to do, {describe(split)} in {folder}")
        return split
    split = stages_of(recipe).prepare_split(recipe, out)
    stamp.unlink(missing_ok=True)  # or a kill before the next line leaves the stamp of other data
    if isinstance(split, RowSplit):
        save_rows(split, folder)
    else:
        save_split(split, folder)
    write_json(stamp, {"identity": identity, "split": split.digest})
    say(f"prepare: {describe(split)} -> {folder}")
    for reason, count in _dropped(split).items():
        if count:
            say(f"  {reason}: {count:,}")
    return _load(recipe, folder)


def _load(recipe: Recipe, folder: Path) -> AnySplit:
    return load_split(folder) if recipe.task == "rank" else load_rows(folder)


def _dropped(split: AnySplit) -> dict[str, int]:
    return {**(split.dataset.counts if isinstance(split, Split) else {}), **split.counts}


def stage_teach(recipe: Recipe, out: Path, split: AnySplit, *, say: Say = print) -> list[Any]:
    """Train (or adopt) one teacher for each seed."""
    with _idle("teach", out / "teachers", say):
        teachers = [stages_of(recipe).teacher_of(recipe, out, split, seed) for seed in recipe.seeds]
    for seed, teacher in zip(recipe.seeds, teachers, strict=True):
        say(f"teach: seed {seed}: {teacher.name}, {teacher.parameters:,} parameters{validation(teacher)}")
    return teachers


def stage_extract(recipe: Recipe, out: Path, split: AnySplit, *, say: Say = print) -> list[KnowledgeStore]:
    """Write down what each teacher knows."""
    stores = []
    with _idle("extract", out / "knowledge", say):
        for seed in recipe.seeds:
            for manifest in sorted((out / "knowledge" / f"seed-{seed}").rglob("manifest.json")):
                if read_object(manifest, {"schema": int}).get("split_digest") != split.digest:
                    manifest.unlink()  # this run's own store, of data that have changed: made anew
            with stamped(out / "knowledge" / f"seed-{seed}", knowledge_identity(recipe)):
                stores.append(stages_of(recipe).extract(recipe, out, split, seed))
    for store in stores:
        size = sum(entry["bytes"] for entry in store.manifest["signals"].values())
        say(f"extract: {store.folder.name}: {size / 1e6:.1f} MB -> {store.folder}")
    return stores


def stage_distill(recipe: Recipe, out: Path, split: AnySplit, *, say: Say = print) -> list[api.Student]:
    """Train student and control for each seed, on settings that both chose by validation in equally many trials."""
    students = []
    for seed in recipe.seeds:
        check_knowledge(recipe, out / "knowledge" / f"seed-{seed}")
    with _idle("distill", out / "students", say):
        chosen = _tune(recipe, out, split, say)
        for seed in recipe.seeds:
            folder = out / "students" / f"seed-{seed}"
            with stamped(folder, students_identity(recipe)):
                student = stages_of(recipe).distill(recipe, folder, out, split, seed, *chosen)
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


def stage_export(recipe: Recipe, out: Path, split: AnySplit, *, say: Say = print) -> Path:
    """Bundles of every student and control; the student that validated best is copied to OUT/bundle."""
    best, best_value, idle = out, 0.0, True
    load_model = stages_of(recipe).load_model
    for seed in recipe.seeds:
        folder = out / "students" / f"seed-{seed}"
        check_students(recipe, folder)
        for role in ROLES:
            recover(folder / role)
            if (folder / role / "model.json").exists():
                idle &= _export(load_model(folder / role, split), folder / f"{role}.bundle", split, recipe)
        if not (folder / "student" / "model.json").exists():
            raise KnowledgeError(problem(f"{folder} holds no trained student", do="run `distilrec distill` first"))
        path = folder / "student" / "model.json"
        with well_formed(path, KnowledgeError):
            ((metric, value),) = read_json(path)["training"]["valid"].items()  # what selected it, whatever reports now
        if best == out or _better(metric)(value, best_value):
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


def stage_evaluate(recipe: Recipe, out: Path, split: AnySplit, *, say: Say = print) -> Report:
    """Read the test part, once, for every model of the run; write the report and seal it into the bundle."""
    for seed in recipe.seeds:
        check_students(recipe, out / "students" / f"seed-{seed}")
        check_knowledge(recipe, out / "knowledge" / f"seed-{seed}")
    measured = recipe.model_dump(mode="json", exclude={"device", "threads"})  # where it ran changes no number
    identity = digest_json([measured, split.digest, _made(recipe, out)])
    if (out / "report.json").exists():
        report = Report(read_report(out / "report.json"))
        if report["lineage"].get("identity") == identity:
            _seal(out, report)
            say(f"evaluate: nothing to do, the report is in {out / 'report.json'}")
            say(str(report))
            return report
    report = stages_of(recipe).report(recipe, out, split, {"identity": identity, **_lineage(recipe, out, split)})
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


def _made(recipe: Recipe, out: Path) -> dict[str, str]:
    """Digests of the trained weights of a run, by place in the run folder."""
    models = [path for seed in recipe.seeds for part in ("teachers", "students")
              for path in sorted((out / part / f"seed-{seed}").rglob("model.json"))]
    return {str(path.parent.relative_to(out)): read_object(path, {"digest": str})["digest"] for path in models}


def _lineage(recipe: Recipe, out: Path, split: AnySplit) -> dict[str, Any]:
    """From data to report: versions, digests, machine."""
    stores = {f"seed-{seed}": KnowledgeStore(out / "knowledge" / f"seed-{seed}", split).digest for seed in recipe.seeds}
    return {
        "distilrec": __version__, "python": platform.python_version(), "machine": platform.machine(),
        "cores": os.cpu_count(), "recipe_digest": digest_json(recipe.model_dump(mode="json")),
        "weights": _made(recipe, out), "knowledge": stores, "dropped": _dropped(split),
        "created": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    }


def _tune(recipe: Recipe, out: Path, split: AnySplit, say: Say) -> tuple[dict[str, Any], dict[str, Any]]:
    """(settings of the student, settings of the control) that validated best on the first seed."""
    trials, seed = recipe.tune, recipe.seeds[0]
    if not trials.student:
        return {}, {}
    if isinstance(split, Split) and split.method == REFIT:  # there is nothing left to choose by
        path = out / CHOOSING / "students" / "tuned.json"
        with well_formed(path):
            tuned = read_json(path)
            return dict(tuned["student"]["settings"]), dict(tuned["control"]["settings"])
    best: dict[str, tuple[float, dict[str, Any], Path]] = {}
    better = _better(recipe.evaluate.metric)
    for index, (own, of_control) in enumerate(zip(trials.student, trials.control, strict=True)):
        folder = out / "students" / "trials" / str(index)
        pair = stages_of(recipe).distill(recipe, folder, out, split, seed, own, of_control)
        for role, model, settings in (("student", pair.model, own), ("control", pair.control, of_control)):
            value = model.training["valid"][recipe.evaluate.metric]
            if role not in best or better(value, best[role][0]):
                best[role] = (value, settings, folder)
        say(f"tune: trial {index + 1} of {len(trials.student)}: student{validation(pair.model)}; "
            f"control{validation(pair.control)}")
    chosen = {role: {"valid": value, "settings": settings} for role, (value, settings, _) in best.items()}
    write_json(out / "students" / "tuned.json", chosen)
    _adopt(out / "students" / f"seed-{seed}", best["student"][2], best["control"][2])
    return best["student"][1], best["control"][1]


def _adopt(folder: Path, of_student: Path, of_control: Path) -> None:
    """Take the models of the trials that won for those of the first seed, which would come out the same.

    A control follows the shape and the steps of its student, so it is the same only beside the student that won.
    """
    for role in ROLES if of_control == of_student else ROLES[:1]:
        found = of_student / role
        recover(folder / role)
        if (found / "model.json").exists() and not (folder / role / "model.json").exists():
            with atomic_folder(folder / role) as temporary:
                shutil.copytree(found, temporary, dirs_exist_ok=True)


def _better(metric: str) -> Callable[[float, float], bool]:
    """Whether the first value of a metric is better than the second."""
    return operator.lt if lower_is_better(metric) else operator.gt


def _export(trained: Any, folder: Path, split: AnySplit, recipe: Recipe) -> bool:
    """Write a bundle, unless the one there was made from these very weights; returns whether it was."""
    stamp, made = folder.with_suffix(".json"), {"weights": trained.digest, "seen": recipe.evaluate.seen}
    if stamp.exists() and read_json(stamp) == made and is_whole(folder):
        return True
    stamp.unlink(missing_ok=True)
    data = split.dataset.digest if isinstance(split, Split) else split.digest
    card = (f"# {recipe.name}: {trained.name}\n\n{trained.parameters:,} parameters, {trained.architecture}, validated "
            f"{trained.training['valid']}.\n"
            f"Made by distilrec {__version__} from data set {data[:12]}.\n")
    api.export(trained, folder, split, card=card, seen=recipe.evaluate.seen)
    write_json(stamp, made)
    return False


STAGES: Mapping[str, Callable[..., Any]] = {
    "teach": stage_teach, "extract": stage_extract, "distill": stage_distill, "export": stage_export,
    "evaluate": stage_evaluate,
}
