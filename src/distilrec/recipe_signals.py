"""Whether the teacher of a rank recipe can tell what the losses ask of it, and the student learn from that."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from distilrec.errors import DistilrecError
from distilrec.recipe import ModelSection, Recipe
from distilrec.recipe_checks import Fault, Place
from distilrec.recipe_models import answers_by_user, architecture_of, small

__all__ = ["signal_faults"]

_ANSWERS = "losses of answers, such as kl"


def signal_faults(recipe: Recipe) -> Iterator[Fault]:
    """Found by asking small models what hours later the large ones would be asked; unknown names are faults of their
    own, told elsewhere."""
    from distilrec.losses import LOSSES, SOFT

    losses = [name for name in recipe.student.losses if name in LOSSES]
    inner = {name: SOFT[name] for name in losses if SOFT.get(name, "response") != "response"}
    own = recipe.student.train.teacher
    live = [one for one in [trial.get("teacher", own) for trial in recipe.tune.student] or [own] if one != "store"]
    if live:
        for name in inner:
            yield (("student", "losses", name), f"{name!r} with student.train.teacher: {live[0]}",
                   f"{_ANSWERS}, for such a teacher gives answers only")
        inner = {}
    wanted: list[tuple[Place, str, str]] = [
        *((("student", "losses", name), name, signal) for name, signal in inner.items()),
        *((("knowledge", "signals"), name, name) for name in recipe.knowledge.signals),
    ]
    if recipe.knowledge.weights == "mean":  # of weighed teachers nothing but answers may be asked; see recipe_rank
        for place, name, signal in wanted:
            if (kind := _teacher_lacks(recipe, signal)) is not None:
                yield place, f"{name!r}, of which {_who(recipe)} can tell nothing", f"{kind}, or {_ANSWERS}"
    yield from _of_student(recipe, losses)
    yield from _gated(recipe)


def _of_student(recipe: Recipe, losses: list[str]) -> Iterator[Fault]:
    from distilrec.training.fit import student_lacks

    student = _made(recipe.student.model, recipe.student.settings)
    if student is None:
        return
    for name in losses:
        if (kind := student_lacks(student, name)) is not None:
            yield (("student", "losses", name), f"{name!r} with the student {recipe.student.model}",
                   f"{kind}, or another loss")


def _gated(recipe: Recipe) -> Iterator[Fault]:
    """Whether a gate that the true item opens meets a decision with a true item."""
    if "label_gate" not in recipe.student.trust:
        return
    place, student = ("student", "trust"), _made(recipe.student.model, recipe.student.settings)
    if student is not None and (not student.needs_history or getattr(student, "cloze", False)):
        yield (place, f"'label_gate' with the student {recipe.student.model}, which is taught only after the last "
               "train event of each user, where there is no label",
               "agreement or confidence, or a student that reads events in turn, such as sasrec")
    elif all(answers_by_user(one) for one in recipe.teacher.members or [recipe.teacher]):
        yield (place, f"'label_gate' with {_who(recipe)}, which answers once for each user, where there is no label",
               "agreement or confidence, or a teacher that answers after each event, such as sasrec")


def _teacher_lacks(recipe: Recipe, signal: str) -> str | None:
    """As knowledge.inner.lacks, of the teacher that the recipe will make."""
    from distilrec.knowledge.inner import INNER, lacks
    from distilrec.models import BASELINES, MODELS, model_class
    from distilrec.models.trained import Trained

    teacher = recipe.teacher
    if signal not in INNER:
        return None
    if len(teacher.members) > 1 or teacher.copies > 1:
        return "one teacher"
    one: ModelSection = teacher.members[0] if teacher.members else teacher
    if one.model == "file":
        return "a teacher that is trained here"
    if one.model in BASELINES:
        return lacks(model_class(one.model), signal)
    architecture, defaults = architecture_of(one.model)
    made = _made(architecture, {**defaults, **one.settings}) if architecture in MODELS else None
    return None if made is None else lacks(Trained(one.model, made, architecture, {}, ""), signal)


def _made(model: str, settings: dict[str, Any]) -> Any:
    """A small one; None where there is none by these settings, which is told elsewhere."""
    try:
        return small(model, settings)
    except (DistilrecError, ArithmeticError, TypeError, ValueError, RuntimeError):
        return None


def _who(recipe: Recipe) -> str:
    teacher = recipe.teacher
    if len(teacher.members) > 1:
        return f"an ensemble of {len(teacher.members)} teachers"
    if teacher.copies > 1:
        return f"an ensemble of {teacher.copies} copies"
    return f"the teacher {teacher.members[0].model if teacher.members else teacher.model}"
