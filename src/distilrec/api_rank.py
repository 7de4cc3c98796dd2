"""The ranking half of the API: what `api.distill` does on events. `api_rows` is the same for rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distilrec.api_control import control_settings_of, train_control
from distilrec.api_generations import born_again, interpolated, keep, steps_of, told
from distilrec.api_shared import divide
from distilrec.errors import KnowledgeError, RecipeError, nearest, problem
from distilrec.knowledge.store import KnowledgeStore
from distilrec.knowledge.trust import Trusted
from distilrec.models import MODELS, model_settings
from distilrec.models.trained import Trained
from distilrec.recipe_rank import CONTENT_KEPT
from distilrec.training.audit import audit as compare
from distilrec.training.audit import members
from distilrec.training.train import train
from distilrec.types import Knowledge, Split

__all__ = ["SOFT_LABELS", "START", "distill_on_events"]

SOFT_LABELS = {"cross_entropy": 0.2, "kl": 0.8}
START = ("teacher", "text", "none")
_ALL, _PART, _NOTHING = "all of it", "what harms nobody", "nothing"  # of a teacher's knowledge, after an audit


def distill_on_events(
    name: str, split: Split, store: KnowledgeStore, *, losses: Mapping[str, float] | None, start: str,
    content: np.ndarray | None, control: bool, control_settings: Mapping[str, Any] | None,
    control_losses: Mapping[str, float] | None, scratch: bool, student_settings: Mapping[str, Any] | None,
    layers_from: Any, chosen: Mapping[str, Mapping[str, Any]] | None, trust: Sequence[str], own_temperature: bool,
    audit: bool, generations: int, interpolation: Sequence[float], seed: int, folder: str | Path | None, metric: str,
    seen: str, **settings: Any,
) -> tuple[Trained, Trained | None, Split, Trained | None]:
    """(student, control, split, control from scratch), see api.distill.

    Raises:
        RecipeError, KnowledgeError: what is asked for is unknown, or the store does not hold it.
    """
    _check(name, start, control, audit, generations, interpolation, chosen)
    store.check(split)
    if content is None:
        content = store.vectors("content")
    target = None if folder is None else Path(folder)
    model, training = divide(name, {**settings, **(student_settings or {})}, model_settings(name), seed=seed,
                             call=distill_on_events)
    _check_live(training.teacher, {"trust": trust, "own_temperature": own_temperature, "audit": audit,
                                   "generations": generations > 1})
    beginning = {"teacher": store.vectors("item_vectors"), "text": content, "none": None}[start]
    if start != "none" and beginning is None:
        kind = "item vectors of the teacher" if start == "teacher" else "item content"
        raise KnowledgeError(problem(f"start {start!r} needs {kind}, which the store does not hold",
                                     "start: none, or a teacher with item vectors", "change student.start"))
    kept, best = _kept_content(model, content, start), dict(chosen or {})

    def once(place: str, left_out: np.ndarray | None, said: KnowledgeStore) -> Trained:
        known: Knowledge = said
        if trust or own_temperature or left_out is not None:
            known = Trusted(said, split, trust, left_out=left_out,
                            temperature=training.temperature if own_temperature else None)
        trained = train(name, split, model, training, name="student", content=kept, start=beginning,
                        layers_from=layers_from, losses=losses or SOFT_LABELS, knowledge=known, metric=metric,
                        seen=seen, folder=target / place if target else None, chosen=best.get("student"))
        if isinstance(known, Trusted):
            trained = told(trained, trust=known.facts())
            keep(trained, split, target, place)  # the report reads it there
        return trained

    def taught(place: str, left_out: np.ndarray | None = None, mark: str = "") -> Trained:
        """A student with all that is asked of it, so that two of them differ in nothing but who is left out."""
        if generations == 1 and not interpolation:
            return once(place, left_out, store)
        student = born_again(
            generations, split, store, lambda number, said: once(f"generation-{number}{mark}", left_out, said),
            lambda number: target / f"knowledge-{number}{mark}" if target else None, metric)
        if interpolation:
            student = interpolated(student, split, beginning, interpolation, metric, seen)
        keep(student, split, target, place)
        return student

    # trained once more on what has no validation part: what was found on it holds
    settled = (best.get("student") or {}).get("audit") if audit else None
    harmed = [group["name"] for group in settled["groups"] if group["harmed"]] if settled else []
    left_out = members(split, harmed) if settled and settled["believed"] == _PART else None
    student = taught("student-all" if audit else "student", left_out)
    if not control:
        return student, None, split, None
    own, own_training = control_settings_of(name, split, settings, student_settings or {}, control_settings or {},
                                            steps=steps_of(student), seed=seed)

    def without_teacher(role: str, vectors: np.ndarray | None) -> Trained:
        return train_control(role, name, split, own, own_training, count=generations, steps=steps_of(student),
                             vectors=vectors, losses=dict(control_losses or {"cross_entropy": 1.0}), metric=metric,
                             seen=seen, target=target, chosen=best.get(role))

    known = content if start != "none" or kept is not None else None
    twin = without_teacher("control", known)
    bare = without_teacher("control-scratch", None) if scratch and known is not None else None
    if audit:
        student = _audited(student, twin, split, metric, seen, settled,
                           lambda users: taught("student-without-harm", users, "-without-harm"))
        keep(student, split, target, "student")
    return student, twin, split, bare


def _audited(
    student: Trained, twin: Trained, split: Split, metric: str, seen: str, settled: Mapping[str, Any] | None,
    taught: Callable[[np.ndarray], Trained],
) -> Trained:
    """What validates best of a student, of one taught without the users whom the teacher harms, and of the control.

    `settled`: what an audit has found before, on a validation part that is trained on by now.
    """
    if settled is not None:
        return told(twin if settled["believed"] == _NOTHING else student, name="student", audit=settled)
    found = compare(student, twin, split, metric, seen=seen)
    tried = {_ALL: student}
    if found.harmed and not found.left_out[split.bounds[:, 1] > split.bounds[:, 0]].all():
        tried[_PART] = taught(found.left_out)
    tried[_NOTHING] = told(twin, name="student")
    believed = max(tried, key=lambda one: tried[one].training["valid"][metric])
    return told(tried[believed], audit={**found.facts(), "believed": believed})


def _check(
    name: str, start: str, control: bool, audit: bool, generations: int, interpolation: Sequence[float], chosen: Any
) -> None:
    """Raises RecipeError for what cannot be, before anything is trained."""
    if name not in MODELS:
        raise RecipeError(problem(f"student {name!r} is unknown{nearest(name, MODELS)}", ", ".join(MODELS)))
    if start not in START:
        raise RecipeError(problem(f"start {start!r}{nearest(start, START)}", " | ".join(START)))
    if audit and not control:
        raise RecipeError(problem("an audit without a control", "control=True", "it compares the two"))
    if generations < 1:
        raise RecipeError(problem(f"{generations} generations", "one or more"))
    if interpolation and (start != "teacher" or not all(0 < share <= 1 for share in interpolation)):
        raise RecipeError(problem(f"interpolation {list(interpolation)} with start {start!r}",
                                  "shares in (0, 1], and start: teacher",
                                  "only a table that began as the teacher's lies in its space"))
    before = (chosen or {}).get("student")
    if before is not None and (generations > 1 or interpolation or (audit and "audit" not in before)):
        raise RecipeError(problem("generations, interpolation or an audit for a student without a validation part",
                                  "a split with a validation part of its own", "set refit: false"))


def _check_live(teacher: str, asked: Mapping[str, Any]) -> None:
    """Raises RecipeError for what weighs or makes a store, where training asks none."""
    if teacher == "store":
        return
    if given := [name for name, value in asked.items() if value]:
        raise RecipeError(problem(
            f"{', '.join(given)} with the training setting teacher={teacher!r}", "teacher='store'",
            "such a teacher answers anew at every step, and nothing of the store is read; leave one of them out"))


def _kept_content(model: Mapping[str, Any], content: np.ndarray | None, start: str) -> np.ndarray | None:
    """What a student is given that reads item content for good, instead of only starting from it."""
    use = model.get("content_use")
    if use not in CONTENT_KEPT:
        return None
    if start != "none":
        raise RecipeError(problem(f"content_use {use!r} with start {start!r}", "start 'none'",
                                  "let the student either keep the content or start from vectors"))
    if content is None:
        raise KnowledgeError(problem(f"content_use {use!r} needs item content, which the store does not hold",
                                     "item vectors [I, C]", "give content=item_content(split, encoder)"))
    return content
