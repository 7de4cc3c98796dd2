"""What has to hold in a recipe of the rank task, found now and not after an hour of training a teacher."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, get_type_hints

from distilrec.errors import DataError, DistilrecError
from distilrec.recipe import Recipe
from distilrec.recipe_checks import (
    OF_ROWS,
    Fault,
    Place,
    arguments,
    common,
    foreign,
    named,
    train_faults,
    two_lines,
    typed,
)
from distilrec.training.settings import SELECTION_METRICS, TrainSettings

__all__ = ["CONTENT_KEPT", "file_teacher_faults", "rank_faults"]

CONTENT_KEPT = ("add", "only")  # uses of item content in which the model keeps it
_TEXT = "text: {encoder: all-MiniLM-L6-v2}"


def rank_faults(recipe: Recipe) -> Iterator[Fault]:
    """(place, what was seen, what was expected) of everything that types alone cannot say."""
    from distilrec.data.layouts import LAYOUTS
    from distilrec.data.rows import ROLES
    from distilrec.data.split import METHODS
    from distilrec.losses import HARD, LOSSES
    from distilrec.models import BASELINES, MODELS
    from distilrec.teachers import TEACHERS

    yield from named(("teacher", "model"), recipe.teacher.model, [n for n in {**MODELS, **TEACHERS} if n != "ensemble"])
    yield from named(("student", "model"), recipe.student.model, MODELS)
    if recipe.data.layout is not None:
        yield from named(("data", "layout"), recipe.data.layout, LAYOUTS)
    for role in recipe.data.columns:
        yield from named(("data", "columns", role), role, ROLES)
    yield from _cleaning(recipe.data.clean)
    method = recipe.split.get("method", "leave-last-out")
    yield from named(("split", "method"), method, METHODS)
    if isinstance(method, str) and method in METHODS:
        for key in recipe.split:
            yield from named(("split", key), key, ["method", "check", "seed", *METHODS[method]])
    for loss in recipe.student.losses:
        yield from named(("student", "losses", loss), loss, LOSSES)
    for loss in recipe.control.losses:
        yield from named(("control", "losses", loss), loss, HARD)
    for index, name in enumerate(recipe.evaluate.baselines):
        yield from named(("evaluate", "baselines", str(index)), name, BASELINES)
    metric, _, cut = recipe.evaluate.metric.partition("@")
    yield from named(("evaluate", "metric"), metric, SELECTION_METRICS)
    if not cut.isdigit() or int(cut) not in recipe.evaluate.k:
        yield ("evaluate", "metric"), recipe.evaluate.metric, f"metric@k with k among {recipe.evaluate.k}"
    yield from _consistency(recipe)
    yield from _settings(recipe)


def _consistency(recipe: Recipe) -> Iterator[Fault]:
    """What has to hold between sections."""
    yield from common(recipe)
    yield from _teacher(recipe)
    yield from foreign(recipe, OF_ROWS, "task: predict or task: tag")
    for section in ("student", "control"):
        losses = getattr(recipe, section).losses
        if not any(losses.values()):
            yield (section, "losses"), str(losses), "at least one loss with a weight above 0"
    if recipe.student.start == "importance":
        yield ("student", "start"), "'importance' in a recipe of the task rank", "teacher, text or none"
    if recipe.text is None and recipe.student.start == "text":
        yield ("student", "start"), "'text' in a recipe without the section text", _TEXT
    use = recipe.student.settings.get("content_use")
    if use in CONTENT_KEPT and recipe.student.start != "none":
        yield (("student", "settings", "content_use"), f"{use!r} with start: {recipe.student.start}",
               "start: none, for the item table is made from the texts")
    for section in ("student", "control"):
        use = getattr(recipe, section).settings.get("content_use")
        if use in CONTENT_KEPT and recipe.text is None:
            yield (section, "settings", "content_use"), f"{use!r} in a recipe without the section text", _TEXT


def _teacher(recipe: Recipe) -> Iterator[Fault]:
    """What one kind of teacher needs, and what another has no use for."""
    teacher = recipe.teacher
    if teacher.model == "text_sasrec" and recipe.text is None:
        yield (("teacher", "model"), "'text_sasrec' in a recipe without the section text",
               f"{_TEXT}, or a teacher that reads no text")
    if teacher.model != "file":
        return
    if teacher.path is None:
        yield ("teacher", "path"), "nothing", "the Parquet file of scores or vectors"
    if teacher.copies > 1:
        yield ("teacher", "copies"), repr(teacher.copies), "1: a file cannot be trained again"
    if teacher.train != TrainSettings():
        yield ("teacher", "train"), "settings of training", "none, for a file is read and not trained"
    yield from file_teacher_faults(teacher.settings)


def file_teacher_faults(given: Mapping[str, Any], place: Place = ("teacher", "settings")) -> Iterator[Fault]:
    """Faults in the settings of a teacher that is a file, by the signature of what reads it."""
    from distilrec.teachers import teacher_function
    from distilrec.teachers.file import FILE_SETTINGS

    types = get_type_hints(teacher_function("file").__init__)
    for key, value in given.items():
        fault = list(typed((*place, key), value, FILE_SETTINGS, types))
        if not fault and key == "temperature" and not value > 0:
            fault = [((*place, key), repr(value), "greater than 0")]
        yield from fault


def _cleaning(rules: Mapping[str, Any]) -> Iterator[Fault]:
    from distilrec.data.clean import Cleaning, cleaning

    unknown = [rule for rule in rules if rule not in Cleaning.__dataclass_fields__]
    for rule in unknown:
        yield from named(("data", "clean", rule), rule, Cleaning.__dataclass_fields__)
    for rule, value in rules.items():
        try:
            cleaning({} if rule in unknown else {rule: value})
        except DataError as error:
            yield ("data", "clean", rule), *two_lines(error)


def _settings(recipe: Recipe) -> Iterator[Fault]:
    """Settings of models against the constructors; this imports torch, so it comes last."""
    from distilrec.models import MODELS, model_settings
    from distilrec.teachers.text_sasrec import DEFAULTS

    student = recipe.student
    text = recipe.teacher.model == "text_sasrec"
    architecture, defaults = ("sasrec", DEFAULTS) if text else (recipe.teacher.model, {})
    if architecture in MODELS:
        yield from _arguments(("teacher", "settings"), architecture, recipe.teacher.settings, defaults)
    yield from train_faults(("control", "train"), recipe.control.train, student.train)
    if student.model not in MODELS:
        return
    yield from _arguments(("student", "settings"), student.model, student.settings, {})
    yield from _arguments(("control", "settings"), student.model, recipe.control.settings, student.settings)
    if student.layers == "teacher":
        yield from _layers(recipe, architecture, defaults)
    known = model_settings(student.model)
    for role, trials in (("student", recipe.tune.student), ("control", recipe.tune.control)):
        for index, trial in enumerate(trials):
            place = ("tune", role, str(index))
            for key in trial:
                yield from named((*place, key), key, sorted({*known, *TrainSettings.model_fields}))
            of_model = {key: value for key, value in trial.items() if key in known}
            of_training = {key: value for key, value in trial.items() if key in TrainSettings.model_fields}
            yield from _arguments(place, student.model, of_model, student.settings)
            yield from train_faults(place, of_training, student.train)


def _layers(recipe: Recipe, architecture: str, defaults: Mapping[str, Any]) -> Iterator[Fault]:
    """Whether the teacher's layers fit the student's, of which small ones are made, those of trials among them."""
    from distilrec.models import MODELS
    from distilrec.training.transfer import copy_layers

    place, student = ("student", "layers"), recipe.student
    if architecture not in MODELS:
        yield place, f"'teacher', which is of the model {architecture!r}", "none, or a teacher that is trained here"
        return
    if recipe.teacher.copies > 1:
        yield place, f"'teacher', of which there are {recipe.teacher.copies} copies", "none, or teacher.copies: 1"
    for trial in ({}, *recipe.tune.student):
        try:
            copy_layers(_small(architecture, {**defaults, **recipe.teacher.settings}),
                        _small(student.model, {**student.settings, **trial}))
        except DistilrecError as error:
            yield place, *two_lines(error)
        except (TypeError, ValueError, RuntimeError):  # settings that no model has: told of by themselves
            continue


def _small(model: str, given: Mapping[str, Any]) -> Any:
    from distilrec.models import model_class, model_settings

    build = model_class(model)
    users = {"n_users": 2} if "n_users" in get_type_hints(build.__init__) else {}
    return build(n_items=2, **users, **{k: value for k, value in given.items() if k in model_settings(model)})


def _arguments(place: Place, model: str, given: Mapping[str, Any], defaults: Mapping[str, Any]) -> Iterator[Fault]:
    from distilrec.models import model_class, model_settings

    build, known = model_class(model), model_settings(model)

    yield from arguments(place, model, build, known, given, lambda: _small(model, {**defaults, **given}))
