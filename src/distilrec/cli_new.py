"""`distilrec new`: which half of distilrec a table belongs to, and the recipe that is guessed for it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from distilrec.errors import DataError, RecipeError, nearest, problem

__all__ = ["guessed"]

_TASKS = ("rank", "predict", "tag")


def guessed(data: Path, task: str | None, labels: Sequence[str]) -> tuple[str, list[str]]:
    """(the text of a recipe for `data`, what was seen and why it was chosen).

    Without a task: a table with labels is for predict or tag, everything else is a log for rank.

    Raises:
        RecipeError: an unknown task, labels of a log. DataError: the columns cannot be told apart.
    """
    from distilrec.data.guess_rows import is_table

    if task is not None and task not in _TASKS:
        raise RecipeError(problem(f"task {task!r}{nearest(task, _TASKS)}", ", ".join(_TASKS)))
    if labels and task == "rank":
        raise RecipeError(problem("--label with --task rank", "--task predict or tag", "a log has no labels"))
    name = data.resolve().name.split(".")[0] or "data"
    rows = task != "rank" if task is not None or labels else is_table(data)
    if not rows:
        return _log(data, name, task is None)
    text, notes, found = _table(data, name, labels)
    if task is not None and task != found:
        seen = "no tags" if task == "tag" else "nothing but tags"
        raise DataError(problem(f"--task {task}, and {seen} to predict in {data}", f"--task {found}",
                                "name the column to predict with --label"))
    return text, notes if task else [f"a table with labels (task {found}); a log of who took what is --task rank",
                                     *notes]


def _table(data: Path, name: str, labels: Sequence[str]) -> tuple[str, list[str], str]:
    from distilrec.cli_views import row_recipe_text
    from distilrec.data.guess_rows import guess_rows

    found = guess_rows(data, labels)
    return row_recipe_text(found, name=name), found["notes"], found["task"]


def _log(data: Path, name: str, unsure: bool) -> tuple[str, list[str]]:
    from distilrec.cli_views import recipe_text
    from distilrec.data.guess import guess

    try:
        found = guess(data)
    except DataError as error:
        if not unsure:
            raise
        try:
            text, notes, task = _table(data, name, [])
        except DataError:
            raise DataError(f"{error}\n  or: for a table of examples name what to predict with --label COLUMN"
                            ) from None
        return text, [f"no log of who took what, but a table with labels (task {task})", *notes]
    notes = list(found["notes"])
    if unsure:
        notes.append("taken for a log of who took what; to predict a rating or a label of each row: --task predict")
    return recipe_text(found, name=name), notes
