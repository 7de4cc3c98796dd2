"""Whatever can teach: trained models, the text model, files made elsewhere, ensembles.

`TEACHERS` maps the name used in a recipe to what makes the teacher, each with arguments of its own; any name of
models.MODELS is a teacher too. All of them give a `types.Ranker` with a `digest` that changes with its answers.

`ROW_TEACHERS` is the same for the pointwise tasks, and gives a `types_rows.Predictor`. Those of OUTSIDE are called with
(model or path, split, space=..., settings), and the command line names them as `kind:path`.
"""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Any

from distilrec.errors import RecipeError, nearest, problem

__all__ = [
    "OUTSIDE", "ROW_TEACHERS", "TEACHERS", "outside_settings", "parse_outside", "row_teacher", "teacher_function",
]

TEACHERS = {
    "text_sasrec": "distilrec.teachers.text_sasrec:text_sasrec",
    "file": "distilrec.teachers.file:FileTeacher",
    "ensemble": "distilrec.teachers.ensemble:Ensemble",
}
ROW_TEACHERS = {
    "trees": "distilrec.teachers.trees:fit_trees",
    "ensemble": "distilrec.teachers.row_ensemble:RowEnsemble",
    "onnx": "distilrec.teachers.onnx_model:onnx_teacher",
    "sklearn": "distilrec.teachers.sklearn_model:sklearn_teacher",
    "lightgbm": "distilrec.teachers.lightgbm_model:lightgbm_teacher",
    "keras": "distilrec.teachers.keras_model:keras_teacher",
    "torch": "distilrec.teachers.torch_module:torch_teacher",
    "file": "distilrec.teachers.row_file:RowFile",
}
OUTSIDE = ("onnx", "sklearn", "lightgbm", "keras", "torch", "file")


def teacher_function(name: str) -> Any:
    """The function or class behind a name of TEACHERS."""
    module, _, attribute = TEACHERS[name].partition(":")
    return getattr(import_module(module), attribute)


def row_teacher(name: str) -> Any:
    """The function or class behind a name of ROW_TEACHERS.

    Raises:
        RecipeError: no such teacher.
    """
    if name not in ROW_TEACHERS:
        raise RecipeError(problem(f"teacher {name!r} is unknown{nearest(name, ROW_TEACHERS)}", ", ".join(ROW_TEACHERS)))
    module, _, attribute = ROW_TEACHERS[name].partition(":")
    return getattr(import_module(module), attribute)


def outside_settings(name: str) -> list[str]:
    """What may be said about an outside teacher beside its file and the table: space, inputs, output, trust, ..."""
    parameters = inspect.signature(row_teacher(name)).parameters.values()
    return [one.name for one in parameters if one.kind is inspect.Parameter.KEYWORD_ONLY]


def parse_outside(text: str) -> tuple[str, str]:
    """A teacher as the command line names it: (kind, path).

    >>> parse_outside("onnx:models/click.onnx")
    ('onnx', 'models/click.onnx')
    >>> parse_outside("torch:shop.nets:click_net")
    ('torch', 'shop.nets:click_net')

    Raises:
        RecipeError: no kind, an unknown one, or nothing behind it.
    """
    kind, colon, path = text.partition(":")
    if not colon or kind not in OUTSIDE or not path:
        raise RecipeError(problem(f"{text!r} names no outside teacher{nearest(kind, OUTSIDE)}",
                                  ", ".join(f"{one}:PATH" for one in OUTSIDE),
                                  "for torch the path is package.module:function or a file"))
    return kind, path
