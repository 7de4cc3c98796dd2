"""What the command line prints besides reports: plans, next steps, guessed recipes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from distilrec.models import BASELINES
from distilrec.recipe import ModelSection, Recipe
from distilrec.recipe_models import answers_by_user

__all__ = ["pairs", "print_next", "print_plan", "recipe_text", "row_recipe_text"]


def pairs(title: str, rows: Mapping[str, Any]) -> Table:
    """A table of names and values."""
    table = Table(title=escape(title), title_justify="left", show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows.items():
        table.add_row(escape(name), escape(f"{value:,}" if type(value) is int else str(value)))
    return table


def print_plan(recipe: Recipe, out: Path, console: Console | None = None) -> None:
    """What a run will do, before it does it."""
    trials = len(recipe.tune.student)
    rows = {
        "data": _source(recipe), "split": ", ".join(f"{k}: {v}" for k, v in recipe.split.items()),
        "teacher": _teacher(recipe), **(_of_ranking(recipe) if recipe.task == "rank" else _of_rows(recipe)),
        "student": f"{_model(recipe.student)}; losses {_losses(recipe.student.losses)}; "
                   f"starts from {'nothing' if recipe.student.start == 'none' else 'the ' + recipe.student.start}",
        "control": f"the same without the teacher; losses {_losses(recipe.control.losses)}",
        "tuning": f"{trials} trials each for student and control" if trials else "none",
        "measured": f"{recipe.evaluate.metric}{_over(recipe)}, beside "
                    f"{', '.join(recipe.evaluate.baselines) or 'no baseline'}{_together(recipe)}",
        "seeds": ", ".join(map(str, recipe.seeds)), "on": f"{recipe.device}, {recipe.threads} thread(s)",
        "goes to": str(out), "takes": _duration(recipe, out),
    }
    (console or Console()).print(pairs(f"{recipe.name}: prepare, teach, extract, distill, export, evaluate", rows))


def print_next(recipe: Recipe, out: Path, console: Console | None = None) -> None:
    """Where everything is after a run, and what to do with it."""
    console = console or Console()
    rows = {
        "report": out / "report" / "report.html", "numbers": out / "report.json", "card": out / "report" / "card.md",
        "bundle": out / "bundle", "models": out / "students", "knowledge": out / "knowledge",
        "recipe": out / "recipe.yaml",
    }
    console.print(pairs("Where it is", {name: str(path) for name, path in rows.items() if path.exists()}))
    console.print("[bold]Next[/]")
    offline = ("recommend", "--users") if recipe.task == "rank" else ("predict", "--rows")
    for line in (f"distilrec serve {out / 'bundle'}",
                 f"distilrec {offline[0]} {out / 'bundle'} {offline[1]} FILE --out FILE", f"distilrec inspect {out}"):
        console.print(f"  {escape(line)}", soft_wrap=True)


def recipe_text(found: Mapping[str, Any], *, name: str) -> str:
    """The YAML of a recipe from what `data.guess` found; paths are absolute, so the file can be moved."""
    data: dict[str, Any] = {"path": str(Path(found["interactions"]).resolve())}
    for key in ("items", "users"):
        if found[key]:
            data[key] = str(Path(found[key]).resolve())
    if found["layout"]:
        data["layout"] = found["layout"]
    for key in ("columns", "text", "clean"):
        if found[key]:
            data[key] = found[key]
    document: dict[str, Any] = {"name": name, "data": data, "split": {"method": found["split"]}}
    training = {"epochs": 50, "patience": 5}
    notes = list(found["notes"])
    if found["split"] == "random":  # a sequence model would learn an order that nobody knows
        document |= _unordered()
        notes.append("without order, factorizations instead of sequence models: ALS teaches a small one")
        return _with_notes(name, document, notes)
    if found["text"]:
        document["text"] = {"encoder": "all-MiniLM-L6-v2"}
    teacher = "text_sasrec" if found["text"] else "sasrec"
    document["teacher"] = {"model": teacher, "settings": {"dim": 128}, "train": dict(training)}
    document["student"] = {"model": "sasrec", "settings": {"dim": 32}, "train": dict(training)}
    document["seeds"] = [0]
    return _with_notes(name, document, notes)


def _unordered() -> dict[str, Any]:
    """Teacher, student and control for a log without order."""
    training = {"epochs": 30, "batch_size": 256, "learning_rate": 0.03, "schedule": "cosine", "negatives": 2048}
    return {
        "teacher": {"model": "als", "settings": {"dim": 128, "alpha": 20.0, "regularization": 10.0}},
        "student": {"model": "mf", "settings": {"dim": 20}, "losses": {"kl": 1.0},
                    "train": {**training, "temperature": 0.3}},
        "control": {"train": {"epochs": 60, "weight_decay": 0.1, "temperature": 1.0}},
        "seeds": [0],
    }


def row_recipe_text(found: Mapping[str, Any], *, name: str) -> str:
    """The YAML of a recipe from what `data.guess_rows` found; the path is absolute, so the file can be moved."""
    document: dict[str, Any] = {
        "name": name, "task": found["task"], "data": {"path": str(Path(found["path"]).resolve())},
        "features": found["features"], "labels": found["labels"],
    }
    if found["group"]:
        document["group"] = found["group"]
    document["split"] = found["split"]
    document["teacher"] = {
        "model": found["teacher"], "settings": {"dim": 16, "embedding_dropout": 0.2},
        "train": {"epochs": 20, "batch_size": 512, "weight_decay": 0.1, "patience": 4},
    }
    document["student"] = {"model": found["student"], "settings": {"dim": 8, "hidden": [64]},
                           "train": {"epochs": 20, "batch_size": 512, "patience": 4}}
    document["seeds"] = [0]
    return _with_notes(name, document, found["notes"])


def _with_notes(name: str, document: Mapping[str, Any], notes: Sequence[str]) -> str:
    told = "".join(f"#   {note}\n" for note in notes)
    body = yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=120, default_flow_style=None)
    return f"# {name}: guessed by `distilrec new`; look it over.\n{told}{body}"


def _teacher(recipe: Recipe) -> str:
    teacher = recipe.teacher
    if teacher.members:
        how = recipe.knowledge.weights
        begin = "the mean of " if how == "mean" else f"a blend, weights: {how}, of "
        return begin + ", ".join(_model(one) for one in teacher.members)
    if teacher.path is not None:
        return f"{teacher.model}: {teacher.path}"
    return (f"{teacher.copies} x " if teacher.copies > 1 else "") + _model(teacher)


def _of_ranking(recipe: Recipe) -> dict[str, str]:
    return {"item texts": f"read by {recipe.text.encoder}" if recipe.text else "not read",
            "knowledge": f"the teacher's top {recipe.knowledge.top_k} {_when_asked(recipe)}"}


def _when_asked(recipe: Recipe) -> str:
    """How often the teacher answers, by what it is; see knowledge.extract."""
    several = recipe.teacher.members or [recipe.teacher]
    if any(one.model == "file" for one in several):
        return "for every user, or at every train decision where its file holds vectors"
    return "for every user" if all(map(answers_by_user, several)) else "at every train decision"


def _of_rows(recipe: Recipe) -> dict[str, str]:
    by = f", by {recipe.knowledge.folds} copies that did not see the row" if recipe.knowledge.folds else ""
    extra = recipe.knowledge.extra
    more = f", and to {extra:g} times as many that nobody logged" if extra else ""
    return {"features": ", ".join(recipe.features), "predicts": ", ".join(recipe.labels),
            "knowledge": f"the teacher's answer to every train row{by}{more}"}


def _together(recipe: Recipe) -> str:
    """The rows of the report in which teacher and student answer together, by their names there."""
    names = [*(f"fusion-{how}" for how in recipe.evaluate.fusion), *(f"cascade-{n}" for n in recipe.evaluate.cascade)]
    return f"; teacher and student together: {', '.join(names)}" if names else ""


def _over(recipe: Recipe) -> str:
    if recipe.task != "rank":
        return " over the test rows"
    return " over " + ("all items" if recipe.evaluate.candidates == "full" else f"{recipe.evaluate.candidates} items")


def _source(recipe: Recipe) -> str:
    if recipe.data.shop is not None:
        shop = recipe.data.shop
        return f"the built-in shop, {shop.users:,} users and {shop.items:,} items, seed {shop.seed}"
    return recipe.data.path or "not named: give --data"


def _model(section: ModelSection) -> str:
    settings = ", ".join(f"{key} {value}" for key, value in section.settings.items())
    epochs = "" if section.model in (*BASELINES, "trees", "file") else f", up to {section.train.epochs} epochs"
    return f"{section.model}{f' ({settings})' if settings else ''}{epochs}"


def _losses(losses: Mapping[str, float]) -> str:
    return " + ".join(f"{weight:g} {name}" for name, weight in losses.items()) or "as the heads ask for"


def _duration(recipe: Recipe, out: Path) -> str:
    """As long as an earlier run in the same place trained; otherwise training says how long as it goes."""
    from distilrec.errors import DataError
    from distilrec.evaluation.schema import read_report
    from distilrec.progress import duration

    try:
        report = read_report(out / "report.json")
    except (DataError, OSError):
        return "not known before the first epoch; the time left is shown beside each bar"
    seconds = sum(model["train_seconds"] or 0.0 for model in report["models"]) * len(recipe.seeds)
    return f"about {duration(seconds)} of training, by the last run here; what is finished is not done again"
