"""`distilrec methods`: everything that a recipe can name, what each is, and what it needs."""

from __future__ import annotations

import ast
import importlib.util
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table

from distilrec.errors import RecipeError, nearest, problem

__all__ = ["Method", "first_sentence", "methods", "print_methods"]

_WIDE = 150  # columns from which on a table leaves room for sentences

# what stands behind the meaning in the docstring of a loss: the shape of what it returns
_SHAPE = re.compile(r":( the shape of its arguments, one value per output:)? \[B\]( or \[B, C\])?\.$")


class Method(NamedTuple):
    """One name of a recipe."""

    task: str
    kind: str  # model, baseline, teacher, loss on ..., or the key of the recipe that takes the name
    name: str
    meaning: str  # one sentence
    needs: str


# where one place in the code serves several names, or speaks of tensors to those who call it
_BASELINE = {"logistic": "One weight per id and per number, trained beside the student: what others should beat."}
_HINT = "The student's last hidden layer resembles the teacher's, through a learned map: mean squared error."
_WAYS: tuple[tuple[str, str, str, str], ...] = (
    ("student.train.weighting", "consistency",
     "A decision counts by the share of the teacher's belief in items that the student, too, has among its "
     "best K.", "response"),
    ("student.train.weighting", "curriculum",
     "The easiest decisions first, those of the least loss, and all of them from the middle of training on.",
     "any of the soft losses"),
    ("student", "own_temperature",
     "A temperature for each decision, so that every soft label is as wide as the median one.", "response"),
    ("student", "audit",
     "Finds the groups of users whom the student serves worse than the control on validation, and leaves out "
     "what the teacher said of them.", "a validation part"),
    ("knowledge.weights", "mean",
     "One weight for each teacher: the geometric mean of what they believe.", "several teachers"),
    ("knowledge.weights", "equal",
     "The plain mean of the teachers' probabilities, after one temperature each has made their lists about as "
     "sharp.", "several teachers"),
    ("knowledge.weights", "agreement",
     "As equal, but each teacher counts by how far its lists agree with the user's train events, and with "
     "events of items as popular as this one.", "several teachers"),
    ("student.train.teacher", "average",
     "Soft labels from the exponential average of the student's own weights, anew at every step.", "no store"),
    ("student.train.teacher", "peer",
     "Soft labels from the same model that starts elsewhere and learns beside the student, anew at every step.",
     "no store"),
    ("student", "generations",
     "Each student teaches the next one; the best on validation stays.", "as its losses"),
    ("student.start", "teacher",
     "The item table starts from the principal directions of the teacher's item vectors.",
     "item vectors of the teacher"),
    ("student.start", "text",
     "The item table starts from the principal directions of a language model's vectors of the item texts.",
     "item texts"),
    ("student.layers", "teacher",
     "The student's first layers are copies of the teacher's, with its final norm and positions of the same "
     "shape.", "a teacher trained here"),
    ("student", "interpolation",
     "Moves the student's item table towards the teacher's after training, by the share that validates best.",
     "item vectors of the teacher"),
)
_WAYS_OF_ROWS: tuple[tuple[str, str, str, str], ...] = (
    ("knowledge.weights", "mean",
     "One weight for each teacher: the mean of their logits, or of their values where a head is a number.",
     "several teachers"),
    ("knowledge.weights", "learned",
     "Weights of at least 0 for every head, fitted to the labels of the validation rows.", "several teachers"),
    ("knowledge.weights", "agreement",
     "Weights of each row's own: a teacher counts by its losses on the validation rows of this user and this "
     "item.", "several teachers"),
    ("student.start", "importance",
     "Each feature's first vectors are in proportion to what the teacher's trees found useful.", "a teacher of trees"),
)


def print_methods(name: str | None = None, console: Console | None = None) -> None:
    """All methods, or those whose name contains `name`: a table in a wide terminal, a list in a narrow one, and where
    there is no terminal a line each: task, kind, name, meaning and needs with tabs between them. Loads no torch.

    Raises:
        RecipeError: no name contains this.
    """
    console = console or Console()
    shown = every = list(methods())
    if name is not None:
        shown = [one for one in every if name.lower() in one.name]
        if not shown:
            known = sorted({one.name for one in every})
            raise RecipeError(problem(f"no method has {name!r} in its name{nearest(name, known)}", ", ".join(known),
                                      "`distilrec methods` says what each of them is"))
    if not console.is_terminal:
        console.file.writelines("\t".join(one) + "\n" for one in shown)
        return
    for task in dict.fromkeys(one.task for one in shown):
        of_task = [one for one in shown if one.task == task]
        if console.width >= _WIDE:
            console.print(_table(task, of_task))
            continue
        console.print(f"[bold]task: {task}[/]")
        for one in of_task:
            needs = f"; needs {one.needs}" if one.needs else ""
            console.print(Padding(f"[bold]{escape(one.name)}[/]  {escape(one.kind)}{escape(needs)}", (0, 0, 0, 2)))
            console.print(Padding(escape(one.meaning), (0, 0, 0, 6)), highlight=False)


def methods() -> Iterator[Method]:
    """Every model, baseline, teacher, loss, rule and start, by task."""
    from distilrec.knowledge.trust import RULES
    from distilrec.losses import HARD, LOSSES, ROW_HARD, ROW_LOSSES, SOFT
    from distilrec.models import BASELINES, MODELS, ROW_BASELINES, ROW_MODELS
    from distilrec.teachers import ROW_TEACHERS, TEACHERS

    rank, rows = "rank", "predict, tag"
    yield from _registered(rank, {"model": MODELS, "baseline": BASELINES, "teacher": TEACHERS}, {})
    yield from _losses(rank, LOSSES, {**SOFT, **dict.fromkeys(HARD, "labels")}, {})
    for name, rule in RULES.items():
        yield Method(rank, "student.trust", name, first_sentence(f"{rule.__module__}:{rule.__name__}"), "response")
    yield from (Method(rank, *way) for way in _WAYS)
    yield from _registered(rows, {"model": ROW_MODELS, "baseline": ROW_BASELINES, "teacher": ROW_TEACHERS}, _BASELINE)
    yield from _losses(rows, ROW_LOSSES, {**dict.fromkeys(ROW_HARD, "labels"), "hint": "hidden"}, {"hint": _HINT})
    yield from (Method(rows, *way) for way in _WAYS_OF_ROWS)


def _registered(task: str, kinds: Mapping[str, Mapping[str, str]], baselines: Mapping[str, str]) -> Iterator[Method]:
    for kind, entries in kinds.items():
        own = baselines if kind == "baseline" else {}
        for name, place in entries.items():
            yield Method(task, kind, name, own.get(name) or first_sentence(place), "")


def _losses(
    task: str, entries: Mapping[str, str], needs: Mapping[str, str], own: Mapping[str, str]
) -> Iterator[Method]:
    for name, place in entries.items():
        need = needs.get(name, "response")
        meaning = own.get(name) or _SHAPE.sub(".", first_sentence(place))
        yield Method(task, f"loss on {'labels' if need == 'labels' else 'knowledge'}", name, meaning, need)


def _table(task: str, shown: Sequence[Method]) -> Table:
    table = Table(title=f"task: {task}", title_justify="left")
    for column in ("kind", "name", "what it is", "needs"):
        table.add_column(column, no_wrap=column != "what it is", overflow="fold")
    before = shown[0].kind
    for one in shown:
        if re.split(r"[ .]", one.kind)[0] != re.split(r"[ .]", before)[0]:
            table.add_section()
        before = one.kind
        table.add_row(*(escape(cell) for cell in one[1:]))
    return table


def first_sentence(place: str) -> str:
    """The first sentence of the docstring at "package.module:name" or "package.module:Class.method", read from the
    source without loading it; of the module where there is no such name."""
    module, _, name = place.partition(":")
    found = importlib.util.find_spec(module)
    if found is None or found.origin is None:
        return ""
    tree = ast.parse(Path(found.origin).read_text(encoding="utf-8"))
    kinds = (ast.ClassDef, ast.FunctionDef)
    node: Any = tree
    for part in name.split("."):
        node = next((n for n in getattr(node, "body", ()) if isinstance(n, kinds) and n.name == part), None)
    text = (ast.get_docstring(node) if node else None) or ast.get_docstring(tree) or ""
    paragraph = " ".join(text.split("\n\n")[0].split())
    return paragraph.split(". ")[0].removesuffix(".") + "."
