"""What has to hold in a recipe of the rank task, found now and not after an hour of training a teacher."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, get_type_hints

from distilrec.errors import DataError, DistilrecError
from distilrec.recipe import ModelSection, Recipe, TeacherSection
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
from distilrec.recipe_models import architecture_of, small
from distilrec.recipe_signals import signal_faults
from distilrec.training.settings import SELECTION_METRICS, TrainSettings

__all__ = ["CONTENT_KEPT", "file_teacher_faults", "rank_faults"]

CONTENT_KEPT = ("add", "only")  # uses of item content in which the model keeps it
_TEXT = "text: {encoder: all-MiniLM-L6-v2}"


def rank_faults(recipe: Recipe) -> Iterator[Fault]:
    """(place, what was seen, what was expected) of everything that types alone cannot say."""
    from distilrec.data.layouts import LAYOUTS
    from distilrec.data.rows import ROLES
    from distilrec.data.split import METHODS
    from distilrec.evaluation.fusion import FUSIONS
    from distilrec.knowledge.inner import INNER
    from distilrec.knowledge.trust import RULES
    from distilrec.losses import HARD, LOSSES
    from distilrec.models import BASELINES, MODELS
    from distilrec.teachers import TEACHERS

    known = [name for name in {**MODELS, **BASELINES, **TEACHERS} if name != "ensemble"]
    yield from named(("teacher", "model"), recipe.teacher.model, known)
    for index, member in enumerate(recipe.teacher.members):
        yield from named(("teacher", "members", str(index), "model"), member.model, [n for n in known if n != "file"])
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
    for index, rule in enumerate(recipe.student.trust):
        yield from named(("student", "trust", str(index)), rule, RULES)
    for index, name in enumerate(recipe.knowledge.signals):
        yield from named(("knowledge", "signals", str(index)), name, INNER)
    for loss in recipe.control.losses:
        yield from named(("control", "losses", loss), loss, HARD)
    for index, name in enumerate(recipe.evaluate.baselines):
        yield from named(("evaluate", "baselines", str(index)), name, BASELINES)
    for index, name in enumerate(recipe.evaluate.fusion):
        yield from named(("evaluate", "fusion", str(index)), name, FUSIONS)
    for key in ("fusion", "cascade"):
        given = getattr(recipe.evaluate, key)
        if len(set(given)) < len(given):
            yield ("evaluate", key), str(given), "each once"
        if given and recipe.evaluate.candidates != "full":
            yield ("evaluate", key), f"{given} with sampled candidates", "candidates: full"
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
    yield from _live(recipe)
    yield from foreign(recipe, OF_ROWS, "task: predict or task: tag")
    for section in ("student", "control"):
        losses = getattr(recipe, section).losses
        if not any(losses.values()):
            yield (section, "losses"), str(losses), "at least one loss with a weight above 0"
    if recipe.student.interpolation and recipe.student.start != "teacher":
        yield (("student", "interpolation"), f"given with start: {recipe.student.start}",
               "start: teacher, for only then does the item table lie in the teacher's space")
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
    for place, one in _taught_by(teacher):
        if one.model == "text_sasrec" and recipe.text is None:
            yield ((*place, "model"), "'text_sasrec' in a recipe without the section text",
                   f"{_TEXT}, or a teacher that reads no text")
        if one.model in ("file", *_fitted()) and one.train != TrainSettings():
            kind = "a file is read" if one.model == "file" else f"{one.model} is fitted in one pass"
            yield (*place, "train"), "settings of training", f"none, for {kind} and not trained"
    yield from _weighed(recipe)
    if teacher.members and teacher.copies > 1:
        yield ("teacher", "copies"), repr(teacher.copies), "members or copies, not both"
    if recipe.student.start == "teacher" and not any(_has_vectors(one.model) for _, one in _taught_by(teacher)):
        who = ", ".join(one.model for one in teacher.members) or teacher.model
        yield (("student", "start"), f"'teacher' (which is the default), and {who}: no item vectors",
               "start: none, or a teacher with item vectors")
    if teacher.model != "file" or teacher.members:
        return
    if teacher.path is None:
        yield ("teacher", "path"), "nothing", "the Parquet file of scores or vectors"
    if teacher.copies > 1:
        yield ("teacher", "copies"), repr(teacher.copies), "1: a file cannot be trained again"
    yield from file_teacher_faults(teacher.settings)


def _live(recipe: Recipe) -> Iterator[Fault]:
    """What asks or weighs a store, where the student (or a trial of it) learns from what answers in the step."""
    own = recipe.student
    places: list[tuple[Place, Any]] = [(("tune", "student", str(index), "teacher"), trial.get("teacher"))
                                       for index, trial in enumerate(recipe.tune.student)]
    places.append((("student", "train", "teacher"), own.train.teacher))
    found = [(".".join(place), given) for place, given in places if given in ("average", "peer")]
    asked = {"trust": own.trust, "own_temperature": own.own_temperature, "audit": own.audit,
             "generations": own.generations > 1}
    for key in [key for key, given in asked.items() if given and found]:
        where, given = found[0]
        yield (("student", key), f"given with {where}: {given}",
               "teacher: store, for such a teacher answers anew at every step, and nothing of the store is read")


def _weighed(recipe: Recipe) -> Iterator[Fault]:
    """What weights of several teachers need: several, of whom nothing but the answers and vectors is asked."""
    from distilrec.losses import SOFT

    place, how = ("knowledge", "weights"), recipe.knowledge.weights
    if how == "mean":
        return
    if how == "learned":
        yield place, f"{how!r} in a recipe of the task rank", "mean, equal or agreement"
        return
    if len(recipe.teacher.members) < 2 and recipe.teacher.copies < 2:
        yield place, f"{how!r} with one teacher", "mean, or teacher.members, or teacher.copies above 1"
    for name in recipe.knowledge.signals:
        yield (("knowledge", "signals"), f"{name!r} with weights: {how}",
               "none, for such teachers share their answers only")
    for loss in recipe.student.losses:
        if SOFT.get(loss, "response") != "response":
            yield (("student", "losses", loss), f"{loss!r} with knowledge.weights: {how}",
                   "losses of answers, such as kl, for such teachers share their answers only")


def _taught_by(teacher: TeacherSection) -> list[tuple[Place, ModelSection]]:
    """The models that make up the teacher, each with its place in the recipe."""
    if not teacher.members:
        return [(("teacher",), teacher)]
    return [(("teacher", "members", str(index)), one) for index, one in enumerate(teacher.members)]


def _fitted() -> tuple[str, ...]:
    from distilrec.models import BASELINES

    return tuple(BASELINES)


def _has_vectors(model: str) -> bool:
    """Of a file only its content tells; an unknown name is a fault of its own."""
    from distilrec.models import BASELINES, model_class

    return model not in BASELINES or hasattr(model_class(model), "item_vectors")


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

    student = recipe.student
    for place, one in _taught_by(recipe.teacher):
        architecture, defaults = architecture_of(one.model)
        if architecture in MODELS:
            yield from _arguments((*place, "settings"), architecture, one.settings, defaults)
        elif architecture in _fitted():
            yield from _fitted_arguments((*place, "settings"), architecture, one.settings)
    yield from train_faults(("control", "train"), recipe.control.train, student.train)
    if student.model not in MODELS:
        return
    yield from _arguments(("student", "settings"), student.model, student.settings, {})
    yield from _arguments(("control", "settings"), student.model, recipe.control.settings, student.settings)
    if student.layers == "teacher":
        yield from _layers(recipe, *architecture_of(recipe.teacher.model))
    yield from signal_faults(recipe)
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
    if recipe.teacher.members:
        yield place, "'teacher', of which there are several", "none, or one teacher"
        return
    if architecture not in MODELS:
        yield place, f"'teacher', which is of the model {architecture!r}", "none, or a teacher that is trained here"
        return
    if recipe.teacher.copies > 1:
        yield place, f"'teacher', of which there are {recipe.teacher.copies} copies", "none, or teacher.copies: 1"
    for trial in ({}, *recipe.tune.student):
        try:
            copy_layers(small(architecture, {**defaults, **recipe.teacher.settings}),
                        small(student.model, {**student.settings, **trial}))
        except DistilrecError as error:
            yield place, *two_lines(error)
        except (ArithmeticError, TypeError, ValueError, RuntimeError):  # settings that no model has: told elsewhere
            continue


def _arguments(place: Place, model: str, given: Mapping[str, Any], defaults: Mapping[str, Any]) -> Iterator[Fault]:
    from distilrec.models import model_class, model_settings

    build, known = model_class(model), model_settings(model)

    yield from arguments(place, model, build, known, given, lambda: small(model, {**defaults, **given}))


def _fitted_arguments(place: Place, model: str, given: Mapping[str, Any]) -> Iterator[Fault]:
    """As `_arguments`, for a model that is fitted in one pass."""
    from distilrec.models import fitted_settings, model_class

    types = {**get_type_hints(model_class(model).fit), "temperature": float}
    for key, value in given.items():
        fault = list(typed((*place, key), value, fitted_settings(model), types))
        if not fault and types[key] is int and value < 1:
            fault = [((*place, key), repr(value), "at least 1")]
        elif not fault and types[key] is float and (value < 0 or (value == 0 and key == "temperature")):
            fault = [((*place, key), repr(value), "greater than 0")]
        yield from fault
