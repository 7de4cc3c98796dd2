"""What becomes of students after their first training: the best of several, one that teaches the next, one whose item
table goes back towards its start. Nothing here knows of controls or audits."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from distilrec.files import recover
from distilrec.knowledge.extract import extract
from distilrec.knowledge.inner import INNER, lacks
from distilrec.knowledge.store import KnowledgeStore
from distilrec.models.trained import Trained
from distilrec.training.finish import finish
from distilrec.training.transfer import interpolate
from distilrec.training.validate import validate
from distilrec.types import Split

__all__ = ["best_of", "born_again", "interpolated", "keep", "steps_of", "told"]

Taught = Callable[[int, KnowledgeStore], Trained]  # (number of the generation, what it learns from)


def born_again(
    count: int, split: Split, store: KnowledgeStore, taught: Taught, place_of: Callable[[int], Path | None], metric: str
) -> Trained:
    """The best on validation of `count` generations, each taught by the best before it as that one was by its teacher.

    Source: Furlanello et al., "Born Again Neural Networks", ICML 2018.

    Args:
        place_of: the folder of what a generation learns from; None for a temporary one that is deleted after use.
    """
    made = [taught(0, store)]
    for number in range(1, count):
        with ExitStack() as stack:
            folder = place_of(number)
            if folder is None:  # where a file cannot be deleted while it is mapped, it may stay behind
                folder = Path(stack.enter_context(TemporaryDirectory(prefix="distilrec-knowledge-",
                                                                     ignore_cleanup_errors=True)))
            # handed on without a name here: when training ends, nothing holds the store's files
            made.append(taught(number, _known_to(best_of(made, metric), split, store, folder)))
    return told(best_of(made, metric), name="student")


def _known_to(parent: Trained, split: Split, store: KnowledgeStore, folder: Path) -> KnowledgeStore:
    """What a student knows, of the kinds that it learned from `store` and can give."""
    inner = [name for name in store.signals if name in INNER and lacks(parent, name) is None]
    return extract(parent, split, folder, top_k=store.signals["response"].width, signals=inner,
                   content=store.vectors("content"))


def interpolated(
    student: Trained, split: Split, vectors: Any, shares: Sequence[float], metric: str, seen: str
) -> Trained:
    """The student with its item table as near to the teacher's `vectors` [I, E] as validates best."""
    share, found = interpolate(student.model, vectors, shares, lambda model: validate(
        model, split, metric, seen=seen, device=student.device))
    finish(student.model, split)
    facts = {"share": share, "valid": {str(one): value for one, value in found.items()}}
    return told(student, interpolation=facts, valid={metric: found[share]})


def best_of(made: Sequence[Trained], metric: str) -> Trained:
    """What validates best, the first of equals. Of several it says which were tried (`training["tried"]`)."""
    best = max(made, key=lambda one: one.training["valid"][metric])
    if len(made) == 1:
        return best
    return told(best, tried=[{"seed": one.training["settings"]["seed"], "steps": int(one.training["steps"]),
                              "valid": one.training["valid"][metric]} for one in made])


def steps_of(trained: Trained) -> int:
    """Steps of all trainings that a model was chosen from."""
    return sum(int(one["steps"]) for one in trained.training.get("tried", [trained.training]))


def keep(trained: Trained, split: Split, target: Path | None, place: str) -> None:
    """Save a model, unless this very one stands there: a run that is done twice has nothing to do."""
    if target is None:
        return
    recover(target / place)
    if (target / place / "model.json").exists():
        found = Trained.load(target / place, split)
        said = json.loads(json.dumps(trained.training))
        if (found.name, found.training, found.digest) == (trained.name, said, trained.digest):
            return
    trained.save(target / place)


def told(trained: Trained, name: str = "", **facts: Any) -> Trained:
    """The same model with more to say about how it was made."""
    return replace(trained, name=name or trained.name, training={**trained.training, **facts})
