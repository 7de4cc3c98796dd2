"""Recipes from and to YAML. Every fault of a document is reported at once, with its line."""

from __future__ import annotations

import copy
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError
from yaml.constructor import SafeConstructor

from distilrec.errors import RecipeError, nearest
from distilrec.files import atomic_file
from distilrec.recipe import Recipe, StudentSection
from distilrec.recipe_checks import expectation
from distilrec.recipe_rank import rank_faults
from distilrec.recipe_rows import row_faults
from distilrec.training.settings import TrainSettings

__all__ = ["dump_recipe", "load_recipe", "parse_recipe"]

Place = tuple[str, ...]

_IN_A_MODULE = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")  # package.module:function, of a torch teacher


def load_recipe(path: str | Path, overrides: Sequence[str] = (), *, data: str | Path | None = None) -> Recipe:
    """Read a recipe file, apply `--set section.key=value` overrides and `--data`, and check all of it.

    Relative paths in the file count from the recipe's own folder; with `data`, its item and user tables count from
    there instead. Paths in overrides count from the working directory.

    Raises:
        RecipeError: every fault, each with its line, what was seen, what was expected and the nearest valid name.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RecipeError(f"there is no recipe {path}\n  what to do: `distilrec recipes ls` lists those that come with "
                          "distilrec, `distilrec recipes copy NAME` writes one here") from None
    except UnicodeDecodeError as error:
        raise RecipeError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start})\n  expected: a YAML recipe"
                          ) from None
    return parse_recipe(text, overrides, data=data, name=str(path), folder=path.parent)


def parse_recipe(
    text: str, overrides: Sequence[str] = (), *, data: str | Path | None = None, name: str = "recipe",
    folder: Path | None = None,
) -> Recipe:
    """As `load_recipe`, from the text itself."""
    lines: dict[Place, str] = {}
    faults: list[str] = []
    document = _read(text, name, lines, faults)
    if not isinstance(document, dict):
        raise RecipeError(f"{name}: a recipe is a mapping of sections, this is a {type(document).__name__}")
    if folder is not None:
        _resolve(document, folder, None if data is None else Path(data))
    for override in sorted(overrides, key=lambda one: not one.startswith("task=")):  # it decides what is left out
        _override(document, override, lines, faults)
    if folder is not None:
        _resolve(document, Path.cwd())  # what was typed counts from where it was typed
    if data is not None:
        _replace_data(document, data)
    recipe, found = _validate(document, lines)
    faults += found
    if recipe is not None:
        faults_of = rank_faults if recipe.task == "rank" else row_faults
        faults += [_fault(place, lines, seen, expected) for place, seen, expected in faults_of(recipe)]
    if faults or recipe is None:
        count = f"{len(faults)} fault{'s' if len(faults) > 1 else ''}"
        raise RecipeError(f"{name} has {count}:\n" + "\n".join(faults))
    return recipe


def dump_recipe(recipe: Recipe, path: str | Path | None = None) -> str:
    """The recipe as YAML with every default written out; reading it back gives an equal recipe."""
    text = yaml.dump(recipe.model_dump(mode="json"), Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120)
    if path is not None:
        with atomic_file(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return text


def _read(text: str, name: str, lines: dict[Place, str], faults: list[str]) -> Any:
    """The document as plain Python. Aliases are refused: they can nest a document in itself, and nobody needs them."""
    try:
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            if isinstance(event, yaml.AliasEvent):
                line = event.start_mark.line + 1  # type: ignore[union-attr]
                raise RecipeError(f"{name}, line {line}: *{event.anchor} is a YAML alias\n"
                                  "  expected: the value itself")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        return {} if node is None else _plain(node, (), lines, faults)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}" if mark else "somewhere"
        raise RecipeError(f"{name}, {where}: this is not YAML: {getattr(error, 'problem', error)}") from error
    except RecursionError:
        raise RecipeError(f"{name}: this is nested too deeply to be a recipe") from None


def _plain(node: yaml.Node, place: Place, lines: dict[Place, str], faults: list[str]) -> Any:
    """A YAML node as plain Python, remembering the line of every place; doubled keys are faults."""
    lines[place] = f"line {node.start_mark.line + 1}"
    if isinstance(node, yaml.MappingNode):
        out: dict[str, Any] = {}
        for key_node, value_node in node.value:
            key = str(key_node.value)
            if key in out:
                faults.append(f"line {key_node.start_mark.line + 1}: {'.'.join((*place, key))} stands twice")
            out[key] = _plain(value_node, (*place, key), lines, faults)
            lines[(*place, key)] = f"line {key_node.start_mark.line + 1}"
        return out
    if isinstance(node, yaml.SequenceNode):
        return [_plain(child, (*place, str(i)), lines, faults) for i, child in enumerate(node.value)]
    return _scalar(node)


def _scalar(node: yaml.Node) -> Any:
    """YAML 1.1 reads 1e-3 as text; a recipe means the number."""
    value = SafeConstructor().construct_document(node)
    plain = isinstance(value, str) and isinstance(node, yaml.ScalarNode) and node.style is None
    return float(value) if plain and _is_number(value) else value


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return any(c.isdigit() for c in text)


class _Dumper(yaml.SafeDumper):
    """Puts quotes around text that `_scalar` would take for a number."""

    def represent_text(self, text: str) -> yaml.ScalarNode:
        return self.represent_scalar("tag:yaml.org,2002:str", text, style="'" if _is_number(text) else None)


_Dumper.add_representer(str, _Dumper.represent_text)


def _override(document: dict[str, Any], override: str, lines: dict[Place, str], faults: list[str]) -> None:
    key, separator, value = override.partition("=")
    place = tuple(key.strip().split("."))
    if not separator or not all(place):
        faults.append(f"--set {override!r}: expected section.key=value, e.g. student.train.epochs=20")
        return
    inner = document
    for depth, part in enumerate(place[:-1]):
        inner = inner.setdefault(part, _unsaid(document, place[: depth + 1]))
        if not isinstance(inner, dict):
            faults.append(f"--set {override!r}: {part!r} is no section")
            return
    try:
        node = yaml.compose(value, Loader=yaml.SafeLoader)
    except yaml.YAMLError:
        faults.append(f"--set {override!r}: the value is not YAML")
        return
    inner[place[-1]] = None if node is None else _plain(node, place, {}, faults)
    for depth in range(1, len(place) + 1):
        lines.setdefault(place[:depth], f"--set {override}")
    lines[place] = f"--set {override}"


def _unsaid(document: Mapping[str, Any], place: Place) -> dict[str, Any]:
    """What a section that the recipe leaves out holds: a loss that is set joins the default ones, it replaces none."""
    if place == ("student", "losses") and document.get("task", "rank") == "rank":
        return dict(StudentSection.model_fields["losses"].get_default(call_default_factory=True))
    return {}


def _resolve(document: dict[str, Any], folder: Path, data: Path | None = None) -> None:
    """Relative paths count from the recipe's folder; the tables beside a log given by `data` from where that is."""
    beside = folder if data is None else data if data.is_dir() else data.parent
    teacher: Any = document.get("teacher")
    places: list[tuple[Any, str, Path]] = [(document.get("data"), "path", folder), (teacher, "path", folder)]
    places += [(document.get("data"), key, beside) for key in ("items", "users")]
    joins = document["data"].get("joins") if isinstance(document.get("data"), dict) else None
    places += [(one, "path", beside) for one in joins] if isinstance(joins, list) else []
    if isinstance(teacher, dict):
        places.append((teacher.get("settings"), "weights", folder))
    for values, key, base in places:
        if isinstance(values, dict) and isinstance(values.get(key), str) and not _of_python(values, key):
            values[key] = str((base / Path(values[key]).expanduser()).resolve())


def _of_python(values: Mapping[str, Any], key: str) -> bool:
    """Whether this names something in a Python module, which is imported and lies in no folder."""
    return values.get("model") == "torch" and _IN_A_MODULE.fullmatch(values[key]) is not None


def _replace_data(document: dict[str, Any], data: str | Path) -> None:
    """--data takes the place of the recipe's own data, be it files or the built-in shop."""
    if document.get("data") is None:
        document["data"] = {}
    if isinstance(document["data"], dict):
        document["data"].pop("shop", None)
        document["data"]["path"] = str(data)


def _validate(document: dict[str, Any], lines: dict[Place, str]) -> tuple[Recipe | None, list[str]]:
    """(recipe, faults). Whatever is wrong is taken out, so that the rest can be checked in the same breath."""
    faults: list[str] = []
    sound = copy.deepcopy(document)
    for _ in range(100):
        try:
            return Recipe.model_validate(sound), faults
        except ValidationError as error:
            found = _faults_of(error, sound)
            faults += [_fault(place, lines, *text) for place, text in found.items()]
            for place in found:
                _take_out(sound, place)
    return None, faults


def _faults_of(error: ValidationError, document: dict[str, Any]) -> dict[Place, tuple[str, str]]:
    """place -> (seen, expected); the branches of a union are one fault."""
    found: dict[Place, tuple[str, str]] = {}
    for entry in error.errors(include_url=False):
        place = tuple(str(part) for part in entry["loc"])
        if entry["type"] == "extra_forbidden":
            known = _fields(place[:-1])
            found[place] = (f"unknown key{_elsewhere(place) or nearest(place[-1], known)}", ", ".join(known))
        elif entry["type"] == "missing":
            found[place] = ("is missing", "a value")
        else:
            place = place[:_depth(document, place)]
            before = found.get(place)
            expected = expectation(entry) if before is None else f"{before[1]} or {expectation(entry)}"
            found[place] = (repr(_at(document, place)), expected)
    return found


def _elsewhere(place: Place) -> str:
    """Where a setting belongs that was written into the section of a model itself, or outside all of them."""
    if place == ("train",):
        return ", write student.train, control.train or teacher.train"
    from distilrec.models import MODELS, model_settings  # in the face of a fault only: this loads torch

    if len(place) != 2 or place[0] not in ("teacher", "student", "control"):
        return ""
    if place[1] in TrainSettings.model_fields:
        return f", did you mean '{place[0]}.train.{place[1]}'?"
    known = any(place[1] in model_settings(model) for model in MODELS)
    return f", did you mean '{place[0]}.settings.{place[1]}'?" if known else ""


def _depth(document: Any, place: Place) -> int:
    """How much of a place is in the document itself: pydantic names the branch of a union behind it."""
    for depth, part in enumerate(place):
        if isinstance(document, dict) and part in document:
            document = document[part]
        elif isinstance(document, list) and part.isdigit() and int(part) < len(document):
            document = document[int(part)]
        else:
            return depth
    return len(place)


def _at(document: Any, place: Place) -> Any:
    for part in place:
        document = document[int(part)] if isinstance(document, list) else document[part]
    return document


def _take_out(document: dict[str, Any], place: Place) -> None:
    """Remove a faulty value (a list as a whole); what is missing gets a stand-in."""
    if place == ("name",):
        document["name"] = "recipe"
        return
    inner: Any = document
    for part in place[:-1]:
        if isinstance(inner.get(part), list):
            inner.pop(part)
            return
        if part not in inner:  # it went out with another fault
            return
        inner = inner[part]
    inner.pop(place[-1], None)


def _fields(place: Place) -> list[str]:
    """The keys that the section at `place` has."""
    model: Any = Recipe
    for part in place:
        field = model.model_fields.get(part) if isinstance(model, type) and issubclass(model, BaseModel) else None
        if field is None:
            return []
        options = [field.annotation, *getattr(field.annotation, "__args__", ())]
        model = next((o for o in options if isinstance(o, type) and issubclass(o, BaseModel)), None)
    return list(model.model_fields) if model is not None else []


def _fault(place: Place, lines: Mapping[Place, str], seen: str, expected: str) -> str:
    return f"{_where(place, lines)}: {'.'.join(place)}: {seen}" + (f"\n  expected: {expected}" if expected else "")


def _where(place: Place, lines: Mapping[Place, str]) -> str:
    """The line of a place, or of the nearest section around it."""
    for depth in range(len(place), -1, -1):
        if place[:depth] in lines:
            return lines[place[:depth]]
    return "by default"
