"""The documentation against the code: defaults, names, verbs, links, requirements, tables of results."""

from __future__ import annotations

import ast
import importlib.util
import inspect
import re
import shlex
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import polars as pl
import pytest
import typer.main
import yaml
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

import distilrec
from distilrec.cli import app
from distilrec.data.clean import Cleaning
from distilrec.data.feature_spec import _COMMON, _SETTINGS, MAX_LENGTH
from distilrec.data.layouts import LAYOUTS
from distilrec.data.row_labels import _KEYS as LABEL_KEYS
from distilrec.data.row_split import ROW_METHODS
from distilrec.data.rows import ROLES
from distilrec.data.split import METHODS
from distilrec.errors import RecipeError
from distilrec.losses import LOSSES, ROW_LOSSES
from distilrec.models import (
    BASELINES,
    MODELS,
    ROW_MODELS,
    fitted_settings,
    model_class,
    model_settings,
    row_model_class,
    row_model_settings,
)
from distilrec.recipe import ROW_DEFAULTS, ModelSection, Recipe
from distilrec.recipe_yaml import parse_recipe
from distilrec.teachers import OUTSIDE
from distilrec.teachers.file import FileTeacher
from distilrec.teachers.text_sasrec import DEFAULTS
from distilrec.teachers.trees import DEFAULTS as TREES
from distilrec.training.settings import ROW_SELECTION_METRICS, TrainSettings
from distilrec.training.validate import METRICS as SELECTING

ROOT = Path(__file__).resolve().parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
REQUIREMENTS = [f"{room}{n}" for room, last in zip("ABCDEFG", (8, 7, 15, 7, 5, 11, 6), strict=True)
                for n in range(1, last + 1)]
CLI: Any = typer.main.get_command(app)


def documented(page: Path, heading: str, column: int = 2) -> dict[str, str]:
    """{first cell: another one} of the tables below a heading, both without their backticks."""
    body = page.read_text(encoding="utf-8").split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = [line.strip("|").split(" | ") for line in body.splitlines() if line.startswith("| `")]
    return {row[0].strip("` "): row[column].strip("` ") for row in rows}


def recipe_defaults(model: type[BaseModel] = Recipe, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(key, default as in YAML) of every key; training settings are left to their own table."""
    for name, field in model.model_fields.items():
        kinds = [k for k in (*getattr(field.annotation, "__args__", ()), field.annotation) if inspect.isclass(k)]
        inner = next((k for k in kinds if issubclass(k, BaseModel)), None)
        listed = field.annotation == list[inner] if inner is not None else False
        if inner is None or field.default is None or listed:
            yield prefix + name, field.default
        if listed and inner is ModelSection:
            continue
        if inner is TrainSettings:
            yield prefix + name, "see [Training](#training)"
        elif inner is not None:
            yield from recipe_defaults(inner, f"{prefix}{name}.")


def assert_same(written: dict[str, str], real: dict[str, Any]) -> None:
    assert sorted(written) == sorted(real), set(written) ^ set(real)
    values = {key: value if value.startswith("see ") else yaml.safe_load(value) for key, value in written.items()}
    assert values == real


def test_every_key_of_a_recipe_is_documented_with_its_default() -> None:
    page, written = ROOT / "docs" / "recipe.md", {}
    for heading in ("Run", "Data", "Teacher, knowledge", "Student, control, tuning", "Evaluation"):
        written |= documented(page, heading)
    real = {key: "required" if value is PydanticUndefined else value for key, value in recipe_defaults()}
    assert real["name"] == "required"
    assert_same(written, real)


def test_defaults_of_rows_are_told_where_they_differ() -> None:
    lines = (ROOT / "docs" / "recipe.md").read_text(encoding="utf-8").splitlines()
    for section, values in ROW_DEFAULTS.items():
        for key, value in values.items():
            name = section if section == "split" else f"{section}.{key}"
            line = next(line for line in lines if line.startswith(f"| `{name}`"))
            shown = "{method: random}" if section == "split" else yaml.safe_dump(value, default_flow_style=True)
            assert f"`{shown.splitlines()[0].strip()}`" in line.split("rows: ")[1], name


def test_every_setting_of_a_feature_is_documented_with_its_kinds() -> None:
    written = documented(ROOT / "docs" / "recipe.md", "Rows", column=1)
    kinds: dict[str, set[str]] = {f"features.{key}": {"all"} for key in _COMMON}
    for kind, keys in _SETTINGS.items():
        for key in keys:
            kinds.setdefault(f"features.{key}", set()).add(kind)
    kinds["features.encoder"] = {"vector"}  # read before the features are made
    assert {key: set(cell.split(", ")) for key, cell in written.items() if key.startswith("features.")} == kinds
    lengths = documented(ROOT / "docs" / "recipe.md", "Rows")["features.max_length"]
    assert lengths == "`, `".join(map(str, MAX_LENGTH.values()))


def test_every_setting_of_a_label_is_documented() -> None:
    written = documented(ROOT / "docs" / "recipe.md", "Rows")
    assert {key for key in written if key.startswith("labels.")} == {f"labels.{key}" for key in LABEL_KEYS}


def test_every_setting_of_a_split_of_rows_is_documented_with_its_default() -> None:
    real = {f"{method}.{key}": list(value) if isinstance(value, tuple) else value
            for method, known in ROW_METHODS.items() for key, value in known.items()}
    assert_same(documented(ROOT / "docs" / "recipe.md", "Split of rows"), real)


def test_every_setting_of_a_model_of_rows_is_documented_with_its_default() -> None:
    real: dict[str, Any] = {}
    for name in ROW_MODELS:
        parameters = inspect.signature(row_model_class(name).__init__).parameters
        for key in row_model_settings(name):
            value = parameters[key].default
            real[f"{name}.{key}"] = list(value) if isinstance(value, tuple) else value
    assert_same(documented(ROOT / "docs" / "recipe.md", "Models of rows"), real)


def test_every_teacher_from_outside_and_every_setting_of_trees_is_documented() -> None:
    page = (ROOT / "docs" / "teachers.md").read_text(encoding="utf-8")
    assert all(f"| `{kind}` |" in page for kind in OUTSIDE)
    assert all(f"`{key}` {f'{value:g}'.replace('-', '−')}" in page for key, value in TREES.items())


def test_every_training_setting_is_documented_with_its_default() -> None:
    of_students = {"balance", "decay", "experts", "teacher", "temperature", "weighting"}
    real = {f"{'student.' * (key in of_students)}train.{key}": value for key, value in recipe_defaults(TrainSettings)}
    assert_same(documented(ROOT / "docs" / "recipe.md", "Training"), real)


def test_every_setting_of_a_model_is_documented_with_its_default() -> None:
    real: dict[str, Any] = {f"text_sasrec.{key}": value for key, value in DEFAULTS.items()}
    for name in MODELS:
        parameters = inspect.signature(model_class(name).__init__).parameters
        real |= {f"{name}.{key}": parameters[key].default for key in model_settings(name)}
    real |= {f"{name}.{key}": value for name in BASELINES for key, value in fitted_settings(name).items()
             if key != "temperature"}
    real |= {f"file.{key}": parameter.default for key, parameter in inspect.signature(FileTeacher).parameters.items()
             if key not in ("path", "split")}
    assert_same(documented(ROOT / "docs" / "recipe.md", "Settings of models"), real)


def test_every_rule_of_cleaning_is_documented_with_its_default_in_the_order_of_running() -> None:
    written = documented(ROOT / "docs" / "recipe.md", "Cleaning")
    assert_same(written, {f"clean.{field.name}": field.default for field in fields(Cleaning)})
    assert list(written) == [f"clean.{field.name}" for field in fields(Cleaning)]


def test_every_setting_of_a_split_is_documented_with_its_default() -> None:
    written = documented(ROOT / "docs" / "recipe.md", "Split")
    real = {f"{method}.{key}": value for method, known in METHODS.items() for key, value in known.items()}
    assert_same({key: value for key, value in written.items() if "." in key}, real)
    assert {key.split(".")[0] for key in written} == set(METHODS)


@pytest.mark.parametrize(("key", "names"), [("data.layout", LAYOUTS), ("data.columns", ROLES),
                                            ("evaluate.metric", SELECTING),
                                            ("evaluate.metric", ROW_SELECTION_METRICS)])
def test_the_names_that_a_key_allows_are_listed(key: str, names: Any) -> None:
    lines = (ROOT / "docs" / "recipe.md").read_text(encoding="utf-8").splitlines()
    line = next(line for line in lines if line.startswith(f"| `{key}`"))
    assert set(names) <= set(re.findall(r"`([\w-]+)`", line))


def test_every_loss_has_a_row() -> None:
    body = (ROOT / "docs" / "losses.md").read_text(encoding="utf-8")
    every = {**LOSSES, **ROW_LOSSES}
    assert {name for name in every if f"\n| `{name}` |" in body} == set(every)


def test_every_requirement_stands_once_in_the_table_of_features_with_a_state() -> None:
    body = (ROOT / "docs" / "features.md").read_text(encoding="utf-8")
    lines = [line.split("|")[1:-1] for line in body.splitlines() if re.match(r"\| [A-G]\d", line)]
    rows = [[cell.strip() for cell in line] for line in lines]
    assert [row[0] for row in rows] == REQUIREMENTS
    assert {row[2] for row in rows} <= {"works", "part", "planned"}
    assert not [row[0] for row in rows if row[2] != "planned" and not row[3]]
    assert not [row[0] for row in rows if row[2] == "part" and "Missing: " not in row[3]]


def test_no_page_names_a_key_of_students_that_a_recipe_does_not_have() -> None:
    bare = re.compile(r"(?<![\w.])train\.(teacher|balance|weighting|experts|decay|temperature)\b")
    for page in PAGES:
        lines = page.read_text(encoding="utf-8").splitlines()
        assert not [line for line in lines if bare.search(line)], page.name


def anchors(page: Path) -> set[str]:
    """Headings as GitHub turns them into anchors."""
    heads = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    # pictures of a run are made by one: only the folder is asked for
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text(encoding="utf-8")):
        if link.startswith(("http://", "https://")):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert (target.parent if "images" in target.parts else target).exists(), f"{page.name}: {link}"
        assert not anchor or anchor in anchors(target), f"{page.name}: {link}"


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), re.S)


@pytest.mark.req("A7")
def test_the_rows_of_the_quickstart_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (text,) = blocks(ROOT / "docs" / "quickstart.md", "python")
    assert len(text.splitlines()) <= 15
    rng = np.random.default_rng(0)
    price = rng.uniform(1, 9, 600)
    pl.DataFrame({
        "user": [f"u{k}" for k in rng.integers(0, 40, 600)], "item": [f"i{k}" for k in rng.integers(0, 20, 600)],
        "price": price, "click": (rng.random(600) < 1 / price).astype(int),
    }).write_parquet(tmp_path / "ads.parquet")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(compile(re.sub(r"epochs=\d+", "epochs=2", text), "quickstart.md", "exec"), names)  # our own page
    assert names["clicks"].shape == (1,)
    assert names["best"] in ([0], [1])


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "python")], ids=lambda page: page.name)
def test_python_examples_call_public_functions_with_arguments_that_they_have(page: Path) -> None:
    for block in blocks(page, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "dr":
                assert node.attr in distilrec.__all__
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and \
                    isinstance(node.func.value, ast.Name) and node.func.value.id == "dr":
                signature = inspect.signature(getattr(distilrec, node.func.attr))
                signature.bind(*node.args, **{str(keyword.arg): keyword.value for keyword in node.keywords})


def whole(block: str) -> list[str]:
    """The recipes that a block can be a part of: one that ranks, one of rows."""
    if "name:" in block:
        return [block]
    rows = {"features": "item: category, price: number, hour: number", "labels": "click: click"}
    own = "".join(f"{key}: {{{value}}}\n" for key, value in rows.items() if f"{key}:" not in block)
    return [f"name: example\ntext: {{encoder: all-MiniLM-L6-v2}}\n{block}",
            f"name: example\ntask: predict\ngroup: user\n{own}{block}"]


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page, "yaml")], ids=lambda page: page.name)
def test_recipes_in_the_docs_are_good(page: Path) -> None:
    for block in blocks(page, "yaml"):
        faults = []
        for text in whole(block):
            try:
                assert parse_recipe(text).name
                break
            except RecipeError as error:
                faults.append(str(error))
        else:
            pytest.fail("\n".join([block, *faults]))


def commands(page: Path) -> list[list[str]]:
    """Every `distilrec ...` of a page, in words, without what follows a comment sign or a pipe."""
    text = page.read_text(encoding="utf-8")
    found = re.findall(r"^    (distilrec .+)$", text, re.M) + re.findall(r"`(distilrec [^`]+)`", text)
    return [shlex.split(line, comments=True)[1:] for line in found]


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=lambda page: page.name)
def test_verbs_and_options_in_the_docs_exist(page: Path) -> None:
    for words in commands(page):
        command: Any = CLI
        for word in words:
            if hasattr(command, "commands") and not word.startswith("-"):
                assert word in command.commands, f"{page.name}: distilrec {' '.join(words)}"
                command = command.commands[word]
            elif word.startswith("-"):
                known = {option for parameter in command.params for option in parameter.opts}
                assert word in known, f"{page.name}: distilrec {' '.join(words)}"


def table_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("results_table", ROOT / "benchmarks" / "results_table.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tables_of_results_are_those_of_the_committed_reports() -> None:
    assert table_script().main(["--check"]) == 0
