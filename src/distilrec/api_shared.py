"""What both halves of the API do with settings and with what training recorded."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from distilrec.errors import RecipeError, nearest, problem
from distilrec.models import model_class
from distilrec.training.batches import training_examples
from distilrec.training.settings import TrainSettings
from distilrec.types import Split

__all__ = ["at_least", "divide", "trained_facts"]


def trained_facts(instances: Sequence[Any]) -> dict[str, Any]:
    """What training recorded, for the report: validation, seconds, learning curves."""
    members = [member for one in instances for member in getattr(one, "members", [one])]
    trained = [one for one in members if "curve" in (getattr(one, "training", None) or {})]
    if not trained:
        return {}
    curves = [{"seed": int(one.training["settings"]["seed"]), "step": int(point["step"]),
               "seconds": point["seconds"], "loss": point["loss"], "valid": point["valid"],
               "metric": next(iter(one.training["valid"]))}
              for one in trained for point in one.training["curve"]]
    seconds = sum(one.training["seconds"] for one in trained) / len(instances)
    facts: dict[str, Any] = {"train_seconds": seconds, "curves": curves}
    if len(trained) == len(instances):  # an ensemble validates otherwise than its members
        names = trained[0].training["valid"]
        facts["valid"] = {name: [one.training["valid"][name] for one in trained] for name in names}
    return facts


def divide(
    architecture: str, settings: Mapping[str, Any], known: Iterable[str], *, seed: int = 0,
    call: Callable[..., Any] | None = None,
) -> tuple[dict[str, Any], TrainSettings]:
    """Settings of the model, whose names are `known`, and settings of training, told apart by name.

    call: the function that was called with them; a misspelled argument of its own ends up among the settings.

    Raises:
        RecipeError: a setting that neither has, with the nearest one that exists.
    """
    own = set(known)
    training = set(TrainSettings.model_fields)
    unknown = [name for name in settings if name not in own | training]
    if unknown:
        arguments = {} if call is None else inspect.signature(call).parameters
        of_call = {name for name, one in arguments.items() if one.kind is one.KEYWORD_ONLY and name not in training}
        expected = f"of the model: {', '.join(sorted(own))}; of training: {', '.join(sorted(training))}"
        expected += f"; of the call: {', '.join(sorted(of_call))}" if of_call else ""
        raise RecipeError("\n".join(
            problem(f"{architecture} has no setting {name!r}{nearest(name, own | training | of_call)}", expected)
            for name in unknown))
    try:
        chosen = TrainSettings(**{"seed": seed, **{n: v for n, v in settings.items() if n in training}})
    except ValidationError as error:
        lines = [problem(f"{'.'.join(map(str, e['loc']))} = {e['input']!r}: {e['msg']}") for e in error.errors()]
        raise RecipeError("\n".join(lines)) from error
    return {n: v for n, v in settings.items() if n in own}, chosen


def at_least(
    training: TrainSettings, steps: int, split: Split, model: Mapping[str, Any], architecture: str
) -> TrainSettings:
    """The same settings with as many more epochs as it takes to reach `steps`: no control is cut short."""
    cls = model_class(architecture)
    longest = model.get("max_length", inspect.signature(cls.__init__).parameters["max_length"].default)
    examples = training_examples(split, longest, needs_history=cls.needs_history, windows=training.windows)
    per_epoch = max(1, -(-len(examples) // training.batch_size))
    return training.model_copy(update={"epochs": max(training.epochs, -(-steps // per_epoch))})
