"""What has to hold in a recipe of the tasks predict and tag, found before anything is trained."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from distilrec.errors import DistilrecError
from distilrec.recipe import Recipe
from distilrec.recipe_checks import (
    OF_RANKING,
    Fault,
    Place,
    arguments,
    common,
    foreign,
    named,
    train_faults,
    two_lines,
)
from distilrec.training.settings import TrainSettings
from distilrec.types_rows import Head

__all__ = ["ROW_STARTS", "row_faults"]

ROW_STARTS = ("none", "importance")
_INSTEAD = {
    "text": "a feature {kind: vector, column: title, encoder: all-MiniLM-L6-v2}",
    "data.layout": "a table has no layout",
    "data.items": "data.joins: [{path: items.parquet, on: item_id}]",
    "data.users": "data.joins: [{path: users.parquet, on: user_id}]", "data.text": "a feature of kind text or vector",
    "data.clean": "a table that is clean: rows are examples, not events",
}


def row_faults(recipe: Recipe) -> Iterator[Fault]:
    """(place, what was seen, what was expected) of everything that types alone cannot say."""
    from distilrec.data.feature_spec import spec_faults
    from distilrec.data.row_labels import label_faults
    from distilrec.data.row_split import split_faults
    from distilrec.models import ROW_BASELINES

    yield from common(recipe)
    for place, seen, expected in spec_faults(_without_encoders(recipe.features)):
        yield ("features", *place), seen, expected
    for place, seen, expected in label_faults(recipe.labels):
        yield ("labels", *place), seen, expected
    if recipe.task == "tag" and recipe.labels and not any(head.kind == "tags" for head in _heads(recipe)):
        yield ("labels",), "no head of kind tags", "{tags: {column: ..., kind: tags}}, or task: predict"
    for place, seen, expected in split_faults(recipe.split):
        yield ("split", *place), seen, expected
    yield from foreign(recipe, OF_RANKING, "task: rank", _INSTEAD)
    if recipe.student.start not in ROW_STARTS:
        yield ("student", "start"), repr(recipe.student.start), " or ".join(ROW_STARTS)
    for index, name in enumerate(recipe.evaluate.baselines):
        yield from named(("evaluate", "baselines", str(index)), name, ROW_BASELINES)
    for section in ("teacher", "student"):
        for index, name in enumerate(getattr(recipe, section).features or ()):
            yield from named((section, "features", str(index)), name, recipe.features)
    for index, one in enumerate(recipe.knowledge.swap):
        for name in [one] if isinstance(one, str) else one:
            yield from named(("knowledge", "swap", str(index)), name, recipe.features)
    if recipe.knowledge.extra and not recipe.knowledge.swap:
        yield (("knowledge", "swap"), "nothing, with knowledge.extra",
               "the features that extra rows take from other rows, e.g. the item and what belongs to it")
    yield from _weighed(recipe)
    yield from _metric(recipe)
    yield from _losses(recipe)
    yield from _teacher(recipe)
    yield from _settings(recipe)


def _without_encoders(features: Mapping[str, Any]) -> dict[str, Any]:
    """A text that an encoder reads becomes a vector before anything else is done (stages_rows)."""
    return {name: {k: v for k, v in spec.items() if k != "encoder"} if isinstance(spec, Mapping) else spec
            for name, spec in features.items()}


def _heads(recipe: Recipe) -> tuple[Head, ...]:
    """The heads as far as the recipe alone tells them."""
    from distilrec.data.row_labels import head_settings

    heads = []
    for name, given in recipe.labels.items():
        own = head_settings(name, given)
        kind = own["kind"]
        named = own.get("classes")  # names, or how many, or nothing
        classes = (tuple(map(str, named)) if isinstance(named, list | tuple) and named else ("a", "b"))
        classes = classes if kind == "tags" else ()
        heads.append(Head(name, kind if kind in ("binary", "number", "tags") else "binary", classes, own.get("after")))
    return tuple(heads)


def _metric(recipe: Recipe) -> Iterator[Fault]:
    from distilrec.training.row_validate import parse_row_metric

    if recipe.labels:
        try:
            parse_row_metric(recipe.evaluate.metric, _heads(recipe))
        except DistilrecError as error:
            yield ("evaluate", "metric"), *two_lines(error)
        if recipe.evaluate.metric.endswith("gauc") and recipe.group is None:
            yield ("evaluate", "metric"), recipe.evaluate.metric, "a `group`: the column of the user or the request"


def _losses(recipe: Recipe) -> Iterator[Fault]:
    from distilrec.losses import ROW_HARD, ROW_LOSSES, ROW_SOFT

    for section, known in (("student", ROW_LOSSES), ("control", ROW_HARD)):
        losses = getattr(recipe, section).losses
        for name in losses:
            yield from named((section, "losses", name), name, known)
        if losses and not any(losses.values()):
            yield (section, "losses"), str(losses), "at least one loss with a weight above 0"
        for head in _heads(recipe) if losses else ():
            kinds = {**ROW_HARD, **ROW_SOFT}
            fitting = [name for name, of in kinds.items() if head.kind in of]
            if not any(losses.get(name) for name in fitting):
                yield (section, "losses"), f"nothing that teaches {head.name!r} ({head.kind})", " or ".join(fitting)
    if "hint" in recipe.student.losses and not recipe.knowledge.hidden:
        yield ("student", "losses", "hint"), "hint without the teacher's hidden layer", "knowledge: {hidden: true}"


def _teacher(recipe: Recipe) -> Iterator[Fault]:
    from distilrec.models import ROW_MODELS
    from distilrec.teachers import ROW_TEACHERS
    from distilrec.teachers.outside import spaces_of

    teacher = recipe.teacher
    trained = {**ROW_MODELS, "trees": ""}
    known = [*trained, *(name for name in ROW_TEACHERS if name != "ensemble")]
    yield from named(("teacher", "model"), teacher.model, known)
    for index, member in enumerate(teacher.members):
        yield from named(("teacher", "members", str(index), "model"), member.model, trained)
    if teacher.members and teacher.copies > 1:
        yield ("teacher", "copies"), repr(teacher.copies), "members or copies, not both"
    if teacher.model in trained or teacher.model not in known:
        return
    if teacher.path is None:
        yield ("teacher", "path"), "nothing", f"the file of the {teacher.model} teacher"
    if teacher.space is None:
        yield ("teacher", "space"), "nothing", "probability, logit or value: what its output is"
    elif recipe.labels:
        try:
            spaces_of(teacher.space, _heads(recipe))
        except DistilrecError as error:
            yield ("teacher", "space"), *two_lines(error)
    if teacher.copies > 1 or teacher.members:
        yield ("teacher", "copies"), repr(teacher.copies), "1: a file cannot be trained again"
    if recipe.knowledge.folds:
        yield ("knowledge", "folds"), repr(recipe.knowledge.folds), "0: a file cannot be trained again"


def _weighed(recipe: Recipe) -> Iterator[Fault]:
    """What weights of several teachers need: several, and a user or an item to weigh them by."""
    place, how, item = ("knowledge", "weights"), recipe.knowledge.weights, recipe.knowledge.item
    if item is not None and how != "agreement":
        yield ("knowledge", "item"), f"{item!r} with weights: {how}", "weights: agreement, which alone reads it"
    if item is not None:
        yield from named(("knowledge", "item"), item, recipe.features)
        given = recipe.features.get(item, "category")
        kind = given.get("kind") if isinstance(given, Mapping) else given
        if kind != "category":
            yield ("knowledge", "item"), f"{item!r}, a feature of kind {kind}", "a feature of kind category"
    if how == "mean":
        return
    if how == "equal":
        yield place, f"{how!r} in a recipe of the task {recipe.task}", "mean (the same for rows), learned or agreement"
    elif len(recipe.teacher.members) < 2 and recipe.teacher.copies < 2:
        yield place, f"{how!r} with one teacher", "mean, or teacher.members, or teacher.copies above 1"
    elif how == "agreement" and recipe.group is None and item is None:
        yield place, f"{how!r} without users and items", "a `group` (the column of users), or knowledge.item, or both"


def _settings(recipe: Recipe) -> Iterator[Fault]:
    """Settings of models against the constructors; this imports torch, so it comes last."""
    from distilrec.models import ROW_MODELS

    student, teacher = recipe.student, recipe.teacher
    for index, member in enumerate(teacher.members):
        yield from _teacher_settings(("teacher", "members", str(index), "settings"), member.model, member.settings)
    if not teacher.members:
        yield from _teacher_settings(("teacher", "settings"), teacher.model, teacher.settings)
    yield from train_faults(("control", "train"), recipe.control.train, student.train)
    if student.model not in ROW_MODELS:
        yield from named(("student", "model"), student.model, ROW_MODELS)
        return
    if recipe.control.single_task and len(recipe.labels) < 2:
        yield ("control", "single_task"), "a recipe of one head", "at least two heads; the control is of one already"
    if isinstance(recipe.control.single_task, dict):
        for head, own in recipe.control.single_task.items():
            yield from named(("control", "single_task", head), head, recipe.labels)
            yield from _trial(recipe, ("control", "single_task", head), own)
    yield from _arguments(("student", "settings"), student.model, student.settings)
    yield from _arguments(("control", "settings"), student.model, recipe.control.settings)
    for role, trials in (("student", recipe.tune.student), ("control", recipe.tune.control)):
        for index, trial in enumerate(trials):
            yield from _trial(recipe, ("tune", role, str(index)), trial)


def _teacher_settings(place: Place, model: str, given: Mapping[str, Any]) -> Iterator[Fault]:
    from distilrec.models import ROW_MODELS
    from distilrec.teachers import OUTSIDE, outside_settings

    if model in ROW_MODELS:
        yield from _arguments(place, model, given)
    elif model == "trees" or model in OUTSIDE:
        for key in given:
            yield from named((*place, key), key, _tree_settings() if model == "trees" else outside_settings(model))


def _tree_settings() -> list[str]:
    from distilrec.teachers.trees import DEFAULTS

    return list(DEFAULTS)


def _trial(recipe: Recipe, place: Place, trial: Mapping[str, Any]) -> Iterator[Fault]:
    from distilrec.models import row_model_settings

    known = row_model_settings(recipe.student.model)
    for key in trial:
        yield from named((*place, key), key, sorted({*known, *TrainSettings.model_fields}))
    yield from _arguments(place, recipe.student.model, {k: v for k, v in trial.items() if k in known})
    of_training = {k: v for k, v in trial.items() if k in TrainSettings.model_fields}
    yield from train_faults(place, of_training, recipe.student.train)


def _arguments(place: Place, model: str, given: Mapping[str, Any]) -> Iterator[Fault]:
    from distilrec.features import Feature
    from distilrec.models import row_model_class, row_model_settings

    build, known = row_model_class(model), row_model_settings(model)
    features: Sequence[Feature] = (
        Feature("user", "category", size=3), Feature("item", "category", size=3),
        Feature("past", "sequence", size=3, of="item", max_length=2), Feature("price", "number"),
    )
    yield from arguments(place, model, build, known, given,
                         lambda: build(features, [1], **{k: v for k, v in given.items() if k in known}))
