"""Whatever can teach: trained models, the text model, files made elsewhere, ensembles.

`TEACHERS` maps the name used in a recipe to what makes the teacher, each with arguments of its own; any name of
models.MODELS is a teacher too. All of them give a `types.Ranker` with a `digest` that changes with its answers.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__all__ = ["TEACHERS", "teacher_function"]

TEACHERS = {
    "text_sasrec": "distilrec.teachers.text_sasrec:text_sasrec",
    "file": "distilrec.teachers.file:FileTeacher",
    "ensemble": "distilrec.teachers.ensemble:Ensemble",
}


def teacher_function(name: str) -> Any:
    """The function or class behind a name of TEACHERS."""
    module, _, attribute = TEACHERS[name].partition(":")
    return getattr(import_module(module), attribute)
