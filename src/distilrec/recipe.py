"""One typed document for a whole run. Reading YAML into it, with line numbers, is in recipe_yaml.py."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from distilrec.errors import nearest
from distilrec.training.settings import TrainSettings

__all__ = [
    "Control", "Data", "Evaluate", "KnowledgeSettings", "ModelSection", "Recipe", "Shop", "StudentSection",
    "TeacherSection", "Text", "Tune", "semantic_faults",
]

Positive = Annotated[int, Field(ge=1)]


class Section(BaseModel):
    """Strict: an unknown key or a value of the wrong type is an error, never ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, protected_namespaces=())


class Shop(Section):
    """The built-in data set, simulated (see data.simulate)."""

    users: Annotated[int, Field(ge=2)] = 2000
    items: Annotated[int, Field(ge=50)] = 1500
    events_per_user: Annotated[float, Field(ge=2)] = 20.0
    seed: Annotated[int, Field(ge=0)] = 0


class Data(Section):
    """Where the log is and how it is read; `shop` stands in for files."""

    path: str | None = None  # a file or a folder; --data takes its place
    layout: str | None = None  # a name of data.layouts.LAYOUTS; None: recognized by its files
    columns: dict[str, str] = {}  # role -> column, for roles with another name in your log
    items: str | None = None  # item table, if it is not where the layout says
    users: str | None = None
    text: list[str] = ["title"]  # item columns that make up an item's text
    clean: dict[str, Any] = {}  # rules of data.clean.Cleaning
    shop: Shop | None = None


class Text(Section):
    """The language model that reads the items' texts."""

    encoder: str = "all-MiniLM-L6-v2"


class ModelSection(Section):
    """A model, its own settings, and how it is trained."""

    model: str = "sasrec"
    settings: dict[str, Any] = {}  # constructor arguments of the model: dim, layers, dropout, ...
    train: TrainSettings = TrainSettings()


class TeacherSection(ModelSection):
    model: str = "text_sasrec"
    path: str | None = None  # of `model: file`
    copies: Positive = 1  # more than one: an ensemble, each member from a seed of its own


class StudentSection(ModelSection):
    start: Literal["teacher", "text", "none"] = "teacher"
    losses: dict[str, Annotated[float, Field(ge=0)]] = {"cross_entropy": 0.2, "kl": 0.8}


class Control(Section):
    """How the control differs from the student, beyond having no teacher. Its budget is never smaller."""

    settings: dict[str, Any] = {}
    train: dict[str, Any] = {}
    losses: dict[str, Annotated[float, Field(ge=0)]] = {"cross_entropy": 1.0}
    scratch: bool = False  # also train one without any content, for comparison with publications


class KnowledgeSettings(Section):
    top_k: Positive = 100
    temperature: Annotated[float, Field(gt=0)] = 1.0


class Tune(Section):
    """Trials of settings, chosen by validation on the first seed; as many for the control as for the student."""

    student: list[dict[str, Any]] = []
    control: list[dict[str, Any]] = []


class Evaluate(Section):
    metric: str = "ndcg@10"
    k: list[Positive] = [10, 20]
    seen: Literal["drop", "keep"] = "drop"
    candidates: Literal["full"] | dict[Literal["sampled"], Positive] = "full"
    baselines: list[str] = ["popularity", "item_knn"]


class Recipe(Section):
    """Everything that a run depends on besides the data themselves."""

    name: str
    task: Literal["rank"] = "rank"
    data: Data = Data()
    split: dict[str, Any] = {"method": "leave-last-out"}
    text: Text | None = None
    teacher: TeacherSection = TeacherSection()
    knowledge: KnowledgeSettings = KnowledgeSettings()
    student: StudentSection = StudentSection()
    control: Control = Control()
    tune: Tune = Tune()
    evaluate: Evaluate = Evaluate()
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] = [0]
    device: str = "cpu"
    threads: Positive = 1


def semantic_faults(recipe: Recipe) -> Iterator[tuple[tuple[str, ...], str, str]]:
    """(place, what was seen, what was expected) of everything that types alone cannot say."""
    from distilrec.data.clean import Cleaning
    from distilrec.data.layouts import LAYOUTS
    from distilrec.data.split import METHODS
    from distilrec.evaluation.metrics import METRICS
    from distilrec.losses import HARD, LOSSES
    from distilrec.models import BASELINES, MODELS
    from distilrec.teachers import TEACHERS

    yield from _name(("teacher", "model"), recipe.teacher.model, [n for n in {**MODELS, **TEACHERS} if n != "ensemble"])
    yield from _name(("student", "model"), recipe.student.model, MODELS)
    if recipe.data.layout is not None:
        yield from _name(("data", "layout"), recipe.data.layout, LAYOUTS)
    for rule in recipe.data.clean:
        yield from _name(("data", "clean", rule), rule, Cleaning.__dataclass_fields__)
    method = recipe.split.get("method", "leave-last-out")
    yield from _name(("split", "method"), method, METHODS)
    if method in METHODS:
        for key in recipe.split:
            yield from _name(("split", key), key, ["method", "check", "seed", *METHODS[method]])
    for loss in recipe.student.losses:
        yield from _name(("student", "losses", loss), loss, LOSSES)
    for loss in recipe.control.losses:
        yield from _name(("control", "losses", loss), loss, HARD)
    for index, name in enumerate(recipe.evaluate.baselines):
        yield from _name(("evaluate", "baselines", str(index)), name, BASELINES)
    metric, _, cut = recipe.evaluate.metric.partition("@")
    yield from _name(("evaluate", "metric"), metric, METRICS)
    if not cut.isdigit() or int(cut) not in recipe.evaluate.k:
        yield ("evaluate", "metric"), recipe.evaluate.metric, f"metric@k with k among {recipe.evaluate.k}"
    if len(recipe.tune.student) != len(recipe.tune.control):
        yield (("tune",), f"{len(recipe.tune.student)} trials for the student, {len(recipe.tune.control)} for the control",
               "equally many, so that neither is favored")
    if len(set(recipe.seeds)) != len(recipe.seeds):
        yield ("seeds",), str(recipe.seeds), "each seed once"
    if recipe.teacher.model == "file" and recipe.teacher.path is None:
        yield ("teacher", "path"), "nothing", "the Parquet file of scores or vectors"
    yield from _settings(recipe)


def _settings(recipe: Recipe) -> Iterator[tuple[tuple[str, ...], str, str]]:
    """Settings of models against the constructors; this imports torch, so it comes last."""
    from distilrec.models import MODELS, model_class

    teacher = "sasrec" if recipe.teacher.model == "text_sasrec" else recipe.teacher.model
    training = TrainSettings.model_fields
    for section, model, given in (
        ("teacher", teacher, recipe.teacher.settings), ("student", recipe.student.model, recipe.student.settings),
        ("control", recipe.student.model, recipe.control.settings),
    ):
        if model in MODELS:
            known = set(inspect.signature(model_class(model).__init__).parameters) - {"self", "n_items", "n_users", "content"}
            for key in given:
                yield from _name((section, "settings", key), key, sorted(known))
            if section != "teacher":
                for role, trials in (("student", recipe.tune.student), ("control", recipe.tune.control)):
                    for index, trial in enumerate(trials if role == section else []):
                        for key in trial:
                            yield from _name(("tune", role, str(index), key), key, sorted(known | set(training)))
    for key in recipe.control.train:
        yield from _name(("control", "train", key), key, training)


def _name(place: tuple[str, ...], seen: Any, known: Any) -> Iterator[tuple[tuple[str, ...], str, str]]:
    if seen not in known:
        yield place, f"{seen!r}{nearest(str(seen), known)}", ", ".join(known)
