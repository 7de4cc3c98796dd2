"""Recipes from and to YAML. Every fault of a document is reported at once, with its line."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from distilrec.errors import RecipeError, nearest
from distilrec.files import atomic_file
from distilrec.recipe import Recipe, semantic_faults

__all__ = ["dump_recipe", "load_recipe", "parse_recipe"]

Place = tuple[str, ...]


def load_recipe(path: str | Path, overrides: Sequence[str] = (), *, data: str | Path | None = None) -> Recipe:
    """Read a recipe file, apply `--set section.key=value` overrides and `--data`, and check all of it.

    Relative data paths count from the recipe's own folder.

    Raises:
        RecipeError: every fault, each with its line, what was seen, what was expected and the nearest valid name.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RecipeError(f"there is no recipe {path}\n  what to do: `distilrec recipes ls` lists those that come with "
                          "distilrec, `distilrec recipes copy NAME` writes one here") from None
    return parse_recipe(text, overrides, data=data, name=str(path), folder=path.parent)


def parse_recipe(
    text: str, overrides: Sequence[str] = (), *, data: str | Path | None = None, name: str = "recipe",
    folder: Path | None = None,
) -> Recipe:
    """As `load_recipe`, from the text itself."""
    lines: dict[Place, str] = {}
    faults: list[str] = []
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        document = _plain(node, (), lines, faults) if node is not None else {}
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"line {mark.line + 1}" if mark else "somewhere"
        raise RecipeError(f"{name}, {where}: this is not YAML: {getattr(error, 'problem', error)}") from error
    if not isinstance(document, dict):
        raise RecipeError(f"{name}: a recipe is a mapping of sections, this is a {type(document).__name__}")
    for override in overrides:
        _override(document, override, lines, faults)
    if data is not None:
        document.setdefault("data", {})["path"] = str(data)
    elif folder is not None and isinstance(document.get("data"), dict):
        _resolve(document["data"], folder)
    recipe, found = _validate(document, lines)
    faults += found
    if recipe is not None:
        faults += [f"{_where(place, lines)}: {'.'.join(place)}: {seen}\n  expected: {expected}"
                   for place, seen, expected in semantic_faults(recipe)]
    if faults or recipe is None:
        count = f"{len(faults)} fault{'s' if len(faults) > 1 else ''}"
        raise RecipeError(f"{name} has {count}:\n" + "\n".join(faults))
    return recipe


def dump_recipe(recipe: Recipe, path: str | Path | None = None) -> str:
    """The recipe as YAML with every default written out; reading it back gives an equal recipe."""
    text = yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=120)
    if path is not None:
        with atomic_file(path) as temporary:
            temporary.write_text(text, encoding="utf-8")
    return text


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
    value = yaml.safe_load(yaml.serialize(node))
    if isinstance(value, str) and isinstance(node, yaml.ScalarNode) and node.style is None:
        try:
            return float(value) if any(c.isdigit() for c in value) else value
        except ValueError:
            return value
    return value


def _override(document: dict[str, Any], override: str, lines: dict[Place, str], faults: list[str]) -> None:
    key, separator, value = override.partition("=")
    place = tuple(key.strip().split("."))
    if not separator or not all(place):
        faults.append(f"--set {override!r}: expected section.key=value, e.g. student.train.epochs=20")
        return
    inner = document
    for part in place[:-1]:
        inner = inner.setdefault(part, {})
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


def _resolve(data: dict[str, Any], folder: Path) -> None:
    for key in ("path", "items", "users"):
        if isinstance(data.get(key), str):
            data[key] = str((folder / data[key]).resolve())


def _validate(document: dict[str, Any], lines: dict[Place, str]) -> tuple[Recipe | None, list[str]]:
    try:
        return Recipe.model_validate(document), []
    except ValidationError as error:
        faults = []
        for entry in error.errors(include_url=False):
            place = tuple(str(part) for part in entry["loc"])
            text = f"{_where(place, lines)}: {'.'.join(place)}: "
            if entry["type"] == "extra_forbidden":
                known = _fields(place[:-1])
                text += f"unknown key{nearest(place[-1], known)}\n  expected: {', '.join(known)}"
            elif entry["type"] == "missing":
                text += "is missing"
            else:
                text += f"{entry['input']!r}: {entry['msg'][0].lower()}{entry['msg'][1:]}"
            faults.append(text)
        return None, faults


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


def _where(place: Place, lines: dict[Place, str]) -> str:
    """The line of a place, or of the nearest section around it."""
    for depth in range(len(place), -1, -1):
        if place[:depth] in lines:
            return lines[place[:depth]]
    return "by default"
