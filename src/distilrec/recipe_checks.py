"""Checks that both halves of recipes share: names, types and settings against the code they will reach."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from types import MappingProxyType
from typing import Any, get_type_hints

from pydantic import ConfigDict, TypeAdapter, ValidationError

from distilrec.errors import DistilrecError, nearest
from distilrec.recipe import Recipe
from distilrec.training.settings import RANK_ONLY, ROW_ONLY, TrainSettings

__all__ = [
    "MEMBER_STEP", "OF_RANKING", "OF_ROWS", "OF_THE_RUN", "Fault", "Place", "arguments", "common", "expectation",
    "foreign", "named", "train_faults", "two_lines", "typed",
]

Place = tuple[str, ...]
Fault = tuple[Place, str, str]  # the place, what was seen, what was expected

MEMBER_STEP = 1000  # between the seeds of an ensemble's members, and of the controls of generations
OF_THE_RUN = {"device": "device", "seed": "seeds"}  # settings of training that a recipe states once for all

# keys that only one half of recipes knows
OF_ROWS = (
    "data.joins", "features", "labels", "group", "weight", "teacher.features", "teacher.space",
    "teacher.trust", "knowledge.item", "knowledge.hidden", "knowledge.folds", "knowledge.extra", "knowledge.swap",
    "student.features", "student.auxiliary", "control.single_task", "evaluate.slices",
    *(f"{section}.train.{name}" for section in ("student", "teacher") for name in ROW_ONLY),
)
OF_RANKING = (
    "data.layout", "data.items", "data.users", "data.text", "data.clean", "text", "knowledge.top_k",
    "knowledge.temperature", "control.scratch", "evaluate.k", "evaluate.seen", "evaluate.candidates",
    "evaluate.fusion", "evaluate.cascade",
    "student.layers", "refit", "knowledge.signals", "student.trust", "student.own_temperature",
    "student.interpolation", "student.generations", "student.audit",
    *(f"{section}.train.{name}" for section in ("student", "teacher") for name in RANK_ONLY),
)


def foreign(recipe: Recipe, keys: Iterable[str], where: str, instead: Mapping[str, str] = MappingProxyType({})
            ) -> Iterator[Fault]:
    """Keys that have a value of their own in a recipe of a task that does not read them."""
    for key in keys:
        section: Any = recipe
        *sections, last = key.split(".")
        for part in sections:
            section = getattr(section, part)
        if getattr(section, last) != type(section).model_fields[last].get_default(call_default_factory=True):
            yield (*sections, last), f"given in a recipe of the task {recipe.task}", instead.get(key, where)


def common(recipe: Recipe) -> Iterator[Fault]:
    """What has to hold in every recipe."""
    if len(recipe.tune.student) != len(recipe.tune.control):
        yield (("tune",),
               f"{len(recipe.tune.student)} trials for the student, {len(recipe.tune.control)} for the control",
               "equally many, so that neither is favored")
    if len(set(recipe.seeds)) != len(recipe.seeds):
        yield ("seeds",), str(recipe.seeds), "each seed once"
    several = recipe.teacher.copies > 1 or recipe.student.generations > 1
    if several and len({seed % MEMBER_STEP for seed in recipe.seeds}) < len(set(recipe.seeds)):
        yield (("seeds",), str(recipe.seeds),
               f"seeds that differ modulo {MEMBER_STEP}, the step between copies of one model")
    if not re.fullmatch(r"[^/\\\0]+", recipe.name) or recipe.name.startswith("."):
        yield ("name",), repr(recipe.name), "a name that can be a folder: no slash, no dot in front"
    if recipe.data.path is not None and recipe.data.shop is not None:
        yield ("data",), "both path and shop", "one source of data"
    if not re.fullmatch(r"cpu|mps|cuda(:\d+)?", recipe.device):
        yield ("device",), repr(recipe.device), "cpu, cuda, cuda:N or mps"
    for section in ("teacher", "student"):
        train = getattr(recipe, section).train
        for key, elsewhere in OF_THE_RUN.items():
            if getattr(train, key) != TrainSettings.model_fields[key].default:
                yield (section, "train", key), repr(getattr(train, key)), f"`{elsewhere}` of the whole recipe instead"


def arguments(
    place: Place, model: str, build: Any, known: Iterable[str], given: Mapping[str, Any], small: Callable[[], Any]
) -> Iterator[Fault]:
    """Names and types by the signature; for what it cannot say (do the heads divide the width?) a small one is made."""
    types = get_type_hints(build.__init__)
    sound = True
    for key, value in given.items():
        fault = list(typed((*place, key), value, known, types))
        if not fault and type(value) is int and types[key] is not float and value < 1:
            fault = [((*place, key), repr(value), "at least 1")]
        sound = sound and not fault
        yield from fault
    if sound and given:
        try:
            small()
        except DistilrecError as error:
            yield place, *two_lines(error)
        except (TypeError, ValueError, RuntimeError) as error:
            yield place, str(error), f"settings that {model} can be built with"


def typed(place: Place, value: Any, known: Iterable[str], types: Mapping[str, Any]) -> Iterator[Fault]:
    """A setting that is unknown, or of another type than the signature says."""
    fault = list(named(place, place[-1], known))
    yield from fault
    if fault:
        return
    try:
        TypeAdapter(types[place[-1]], config=ConfigDict(strict=True)).validate_python(value)
    except ValidationError as error:
        yield place, repr(value), " or ".join(expectation(entry) for entry in error.errors())


def train_faults(place: Place, given: Mapping[str, Any], base: TrainSettings) -> Iterator[Fault]:
    """Training settings that stand on top of others, as a plain mapping."""
    unknown = [key for key in given if key not in TrainSettings.model_fields]
    for key in unknown:
        yield from named((*place, key), key, TrainSettings.model_fields)
    for key, elsewhere in OF_THE_RUN.items():
        if key in given:
            yield (*place, key), repr(given[key]), f"`{elsewhere}` of the whole recipe instead"
    try:
        TrainSettings.model_validate({**dict(base), **{k: v for k, v in given.items() if k not in unknown}})
    except ValidationError as error:
        for entry in error.errors():
            yield (*place, *map(str, entry["loc"])), repr(entry["input"]), expectation(entry)


def expectation(entry: Mapping[str, Any]) -> str:
    """What pydantic expected, in its words; with the nearest of the allowed values."""
    text = str(entry["msg"]).removeprefix("Input should be ").removeprefix("Input should have ")
    if entry["type"] == "list_type":
        text = "a list" + (f", e.g. [{entry['input']}]" if isinstance(entry["input"], (str, int, float)) else "")
    if entry["type"] == "literal_error":
        text += nearest(str(entry["input"]), re.findall(r"'([^']*)'", text))
    return text


def two_lines(error: DistilrecError) -> tuple[str, str]:
    """(seen, expected) of a message made by errors.problem."""
    lines = str(error).splitlines()
    return lines[0], " ".join(line.strip().removeprefix("expected: ") for line in lines[1:2])


def named(place: Place, seen: Any, known: Any) -> Iterator[Fault]:
    if not isinstance(seen, str) or seen not in known:
        yield place, f"{seen!r}{nearest(str(seen), known)}", ", ".join(known)
