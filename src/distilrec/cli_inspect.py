"""Looking into what distilrec made: bundles, knowledge stores, runs, data, models, reports, recipes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from distilrec.cli_views import pairs, print_plan
from distilrec.errors import DataError, problem
from distilrec.evaluation.folds import read_folds
from distilrec.evaluation.folds_view import print_folds
from distilrec.evaluation.schema import read_report
from distilrec.evaluation.terminal import print_report
from distilrec.evaluation.verdict import is_lower_better
from distilrec.evaluation.words import column_title, headline, human_bytes, human_count
from distilrec.files import read_json
from distilrec.recipe import Recipe

__all__ = ["print_anything", "print_comparison"]


def print_anything(path: Path, console: Console | None = None) -> None:
    """Recognize what lies at `path` and print what it holds.

    Raises:
        DataError: nothing there, or nothing that distilrec made; BundleError, KnowledgeError: it is damaged.
    """
    console = console or Console()
    if not path.exists():
        raise DataError(problem(f"there is nothing at {path}", "something that distilrec made", "check the path"))
    if path.is_file():
        if path.suffix in (".yaml", ".yml"):
            _recipe(path, console)
        elif path.name in ("model.json", "trees.json"):
            _model(path.parent, console)
        elif path.name == "crossval.json":
            _folds(path.parent, console)
        else:
            print_report(read_report(path), console=console)
        return
    for mark, show in _KINDS:
        if (path / mark).is_file():
            show(path, console)
            return
    raise DataError(problem(f"{path} is nothing that distilrec made",
                            "a run, bundle, knowledge, data or model folder, a report.json, or a recipe"))


def print_comparison(a: Path, b: Path, console: Console | None = None) -> None:
    """The models of two reports side by side, by the main metric of the first.

    Raises:
        DataError: one of them is no report, or they share no metric.
    """
    console = console or Console()
    first, second = (read_report(_report_file(path)) for path in (a, b))
    metric = first["metric"]
    if not any(metric in model["metrics"]["test"] for model in second["models"]):
        raise DataError(problem(f"{b} was not measured by {metric}, the main metric of {a}",
                                "two runs with a metric in common", "set evaluate.metric and run one again"))
    if first["dataset"]["digest"] != second["dataset"]["digest"]:
        console.print("[yellow]These runs are on different data: their numbers cannot be compared.[/]")
    elif first["protocol"] != second["protocol"]:
        differing = [key for key in first["protocol"] if first["protocol"][key] != second["protocol"].get(key)]
        console.print(f"[yellow]The protocols differ in {', '.join(differing)}.[/]")
    lower = is_lower_better(metric)
    table = Table(title=f"{column_title(metric)}, test", title_justify="left", caption_justify="left",
                  caption="↓ lower is better: B - A below 0 is a gain of B" if lower else None)
    table.add_column("model")
    for name in ("A", "B", "B - A", "params A", "params B"):
        table.add_column(name, justify="right", no_wrap=True)
    models = [{model["name"]: model for model in report["models"]} for report in (first, second)]
    for name in dict.fromkeys([*models[0], *models[1]]):
        one, other = (side.get(name) for side in models)
        values = [_mean(model, metric) for model in (one, other)]
        change = "–" if None in values else f"{values[1] - values[0]:+.4f}"  # type: ignore[operator]
        table.add_row(escape(name), *("–" if value is None else f"{value:.4f}" for value in values), change,
                      *("–" if model is None else human_count(model["parameters"]) for model in (one, other)))
    for letter, path, report in (("A", a, first), ("B", b, second)):
        console.print(f"{letter}: {escape(str(path))}", soft_wrap=True)
        console.print(f"   {headline(report)}")
    console.print(table)
    console.print("Differences between runs carry no interval: a paired test needs both models in one run.")


def _mean(model: dict[str, Any] | None, metric: str) -> float | None:
    return None if model is None or metric not in model["metrics"]["test"] else model["metrics"]["test"][metric]["mean"]


def _report_file(path: Path) -> Path:
    file = path / "report.json" if path.is_dir() else path
    if not file.is_file():
        raise DataError(problem(f"there is no report at {file}", "a report.json, or a run folder that holds one",
                                "finish the run with `distilrec evaluate`"))
    return file


def _bundle(path: Path, console: Console) -> None:
    from distilrec.bundle.config import bundle_digest, read_config, verify

    files = verify(path)
    config = read_config(path)
    ranking = {
        "items": config["items"], "longest history": config["max_length"],
        "items seen before": "dropped" if config["seen"] == "drop" else "kept",
    } if config["task"] == "rank" else {}
    rows = {
        "task": config["task"], "parameters": config["parameters"], **ranking,
        "in": ", ".join(f"{i['name']} {i['dtype']} {i['shape']}" for i in config["inputs"]),
        "out": ", ".join(o["name"] for o in config["outputs"]),
        "files": ", ".join(f"{name} ({human_bytes((path / name).stat().st_size)})" for name in files),
        "made by": f"distilrec {config.get('distilrec', '(unknown)')}", "digest": bundle_digest(path),
        "whole": "yes, every file has the digest it was exported with",
    }
    console.print(pairs(f"Bundle {path}", rows))


def _manifest(path: Path, console: Console) -> None:
    (_store if "signals" in read_json(path / "manifest.json") else _data)(path, console)


def _store(path: Path, console: Console) -> None:
    from distilrec.knowledge.store import KnowledgeStore

    manifest = KnowledgeStore(path).manifest
    teacher = ", ".join(f"{key} {value}" for key, value in manifest["teacher"].items())
    console.print(pairs(f"Knowledge store {path}", {
        "teacher": teacher, "data set": manifest["dataset_digest"], "split": manifest["split_digest"],
        "whole": "yes, every file has the digest it was written with",
    }))
    table = Table()
    for name in ("signal", "kind", "key", "space", "rows", "size"):
        table.add_column(name)
    for name, entry in manifest["signals"].items():
        signal = entry["signal"]
        table.add_row(escape(name), signal["kind"], signal["key"], str(signal.get("space") or "–"),
                      f"{signal['rows']:,}", human_bytes(entry["bytes"]))
    console.print(table)


def _data(path: Path, console: Console) -> None:
    manifest = read_json(path / "manifest.json")
    console.print(pairs(f"Data {path}", {
        "name": manifest["name"], "split": manifest["method"],
        **{key: manifest[key] for key in ("users", "items", "interactions", "rows") if key in manifest},
        **manifest["parts"], **{reason: count for reason, count in _counts(manifest["counts"]) if count},
        "digest": manifest["digest"]["split"] if isinstance(manifest["digest"], dict) else manifest["digest"],
    }))


def _counts(counts: dict[str, Any]) -> list[tuple[str, int]]:
    """Those of a split stand under `dataset` and `split`, those of a table by themselves."""
    nested = [count for count in counts.values() if isinstance(count, dict)]
    return [pair for one in (nested or [counts]) for pair in one.items()]


def _model(path: Path, console: Console) -> None:
    trees = (path / "trees.json").is_file()
    described = read_json(path / ("trees.json" if trees else "model.json"))
    training = described.get("training") or {}
    if trees:
        console.print(pairs(f"Trees {path}", {"name": described["name"], "predicts": ", ".join(described["outputs"]),
                                              "columns": len(described["columns"]), **described["notes"]}))
        return
    console.print(pairs(f"Model {path}", {
        "name": described["name"], "architecture": described["architecture"], "parameters": described["parameters"],
        **described["settings"],
        **{f"validation {name}": f"{value:.4f}" for name, value in training.get("valid", {}).items()},
        **{key: training[key] for key in ("steps", "losses") if key in training}, "split": described["split_digest"],
    }))


def _run(path: Path, console: Console) -> None:
    from distilrec.recipe_yaml import load_recipe

    recipe = load_recipe(path / "recipe.yaml")
    print_plan(recipe, path, console)
    console.print(pairs("Stages", _stages(recipe, path)))
    if (path / "report.json").is_file():
        if _other_weights(path):
            console.print("The report that follows is of other models than those that lie here now.",
                          style="bold yellow")
        print_report(read_report(path / "report.json"), console=console)


def _other_weights(out: Path) -> bool:
    """Whether a model of the report has been trained again since."""
    weights = read_json(out / "report.json")["lineage"].get("weights", {})
    return any((out / place / "model.json").is_file() and read_json(out / place / "model.json").get("digest") != digest
               for place, digest in weights.items())


def _stages(recipe: Recipe, out: Path) -> dict[str, str]:
    """Which stages are done, by the files that each of them writes last."""
    teacher, students = recipe.teacher, out / "students"
    places = [out / "teachers" / f"seed-{seed}" for seed in recipe.seeds if teacher.path is None]
    several = len(teacher.members) or teacher.copies
    if several > 1:
        places = [place / f"member-{i}" for place in places for i in range(several)]
    kinds = [one.model for one in teacher.members] or [teacher.model] * several
    written = ["trees.json" if kind == "trees" else "model.json" for kind in kinds]
    taught = [place / written[i % several] for i, place in enumerate(places)]
    pairs_of = [students / f"seed-{seed}" / role for seed in recipe.seeds for role in ("student", "control")]
    marks = {
        "prepare": [out / "data" / "manifest.json", out / "data.json"],
        "teach": taught,
        "extract": [out / "knowledge" / f"seed-{seed}" / "manifest.json" for seed in recipe.seeds],
        "distill": [place / "model.json" for place in pairs_of],
        "export": [*(place.with_name(f"{place.name}.json") for place in pairs_of), out / "bundle" / "digests.json"],
        "evaluate": [out / "report.json", out / "bundle" / "metrics.json"],
    }
    shown = {}
    for stage, files in marks.items():
        there = sum(file.is_file() for file in files)
        part = f"begun, {there} of {len(files)} parts are there" if there else "not yet"
        shown[stage] = "done" if there == len(files) else part
    if shown["export"] == "done" and any(_newer(place / "model.json", place.with_name(f"{place.name}.json"))
                                         for place in pairs_of):
        shown["export"] = "out of date, a model was trained after it"
    if shown["evaluate"] == "done" and _other_weights(out):
        shown["evaluate"] = "out of date, of other models"
    if not places:
        shown["teach"] = "nothing to do, the teacher is a file"
    return shown


def _newer(a: Path, b: Path) -> bool:
    return a.stat().st_mtime_ns > b.stat().st_mtime_ns


def _recipe(path: Path, console: Console) -> None:
    from distilrec.recipe_yaml import load_recipe

    recipe = load_recipe(path)
    print_plan(recipe, Path("runs") / recipe.name, console)


def _report(path: Path, console: Console) -> None:
    print_report(read_report(path / "report.json"), console=console)


def _folds(path: Path, console: Console) -> None:
    print_folds(read_folds(path / "crossval.json"), console)


# the file by which a folder is known, the most telling first
_KINDS: tuple[tuple[str, Callable[[Path, Console], None]], ...] = (
    ("recipe.yaml", _run), ("digests.json", _bundle), ("manifest.json", _manifest), ("model.json", _model),
    ("trees.json", _model), ("report.json", _report), ("crossval.json", _folds),
)
