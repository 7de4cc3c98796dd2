"""What the stages of both halves share: roles, seeds of members, and that a report speaks of what is served."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from distilrec.api_shared import trained_facts
from distilrec.errors import KnowledgeError, problem
from distilrec.files import read_object
from distilrec.recipe import Recipe
from distilrec.recipe_checks import MEMBER_STEP
from distilrec.training.settings import TrainSettings

__all__ = ["CHOOSING", "ROLES", "member_seed", "same_weights", "told", "training_of", "with_members"]

CHOOSING = "choosing"  # in a run folder: the run on the carved validation part, of which only the choices are kept
_SHOWN_MEMBERS = 6  # of an ensemble get rows of their own in the report
ROLES = ("student", "control", "control-scratch")  # what a seed's folder of students holds


def member_seed(seed: int, index: int) -> int:
    """The seed of a member of an ensemble; recipes whose seeds would collide are refused."""
    return seed + MEMBER_STEP * index


def training_of(train: TrainSettings, recipe: Recipe, seed: int) -> dict[str, Any]:
    """Training settings as keyword arguments, with the device and the seed of the run."""
    return {**dict(train), "device": recipe.device, "seed": seed}


def told(recipe: Recipe) -> dict[str, Any]:
    """The recipe for the report: all that was set or left at its default. Of paths only the last part, for a report
    goes to others."""
    whole = recipe.model_dump(mode="json", exclude={"device", "threads"})
    for section in (whole["data"], *whole["data"]["joins"], whole["teacher"], *whole["teacher"]["members"]):
        for key in ("path", "items", "users"):
            if section.get(key) is not None:
                section[key] = Path(section[key]).name
    return whole


def with_members(contestant: Callable[..., Any], teachers: Sequence[Any]) -> list[Any]:
    """The teacher, one instance a seed, and where it is a small ensemble each of its members: is the whole more than
    its best part?"""
    facts, members = trained_facts(teachers), [getattr(one, "members", []) for one in teachers]
    if not 1 < len(members[0]) <= _SHOWN_MEMBERS:
        return [contestant("teacher", "teacher", teachers, **facts)]
    facts.pop("curves", None)  # each member shows its own
    return [contestant("teacher", "teacher", teachers, **facts), *(
        contestant(f"member {place}: {own[0].name}", "member", own, **trained_facts(own))
        for place, own in enumerate(map(list, zip(*members, strict=True)), 1))]


def same_weights(models: Sequence[Any], folders: Sequence[Path], role: str) -> None:
    """A bundle of older weights must not stand for the new ones.

    Raises:
        KnowledgeError: a model was trained after its bundle was exported.
    """
    for model, folder in zip(models, folders, strict=True):
        stamp = folder / f"{role}.json"
        if not stamp.exists() or read_object(stamp, {"weights": str})["weights"] != model.digest:
            raise KnowledgeError(problem(f"{folder / role} was trained after its bundle was exported",
                                         "a bundle of the same weights", "run `distilrec export` first"))
