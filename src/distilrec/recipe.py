"""One typed document for a whole run. Reading YAML into it, with line numbers, is in recipe_yaml.py."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Annotated, Any, Literal, get_type_hints

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from distilrec.errors import DataError, DistilrecError, nearest
from distilrec.training.settings import SELECTION_METRICS, TrainSettings

__all__ = [
    "CONTENT_KEPT", "Control", "Data", "Evaluate", "KnowledgeSettings", "ModelSection", "Recipe", "Shop",
    "StudentSection", "TeacherSection", "Text", "Tune", "expectation", "file_teacher_faults", "semantic_faults",
]

Positive = Annotated[int, Field(ge=1)]
Place = tuple[str, ...]
Fault = tuple[Place, str, str]  # the place, what was seen, what was expected

CONTENT_KEPT = ("add", "only")  # uses of item content in which the model keeps it
_TEXT = "text: {encoder: all-MiniLM-L6-v2}"


class Section(BaseModel):
    """Strict: an unknown key or a value of the wrong type is an error, never ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, protected_namespaces=())


class Shop(Section):
    """The built-in data set, simulated (see data.simulate)."""

    users: Annotated[int, Field(ge=2)] = 2000
    items: Annotated[int, Field(ge=50)] = 1500
    events_per_user: Annotated[float, Field(ge=2)] = 12.0
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
    k: Annotated[list[Positive], Field(min_length=1)] = [10, 20]
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


_OF_THE_RUN = {"device": "device", "seed": "seeds"}  # settings of training that a recipe states once for all


def semantic_faults(recipe: Recipe) -> Iterator[Fault]:
    """(place, what was seen, what was expected) of everything that types alone cannot say."""
    from distilrec.data.layouts import LAYOUTS
    from distilrec.data.rows import ROLES
    from distilrec.data.split import METHODS
    from distilrec.losses import HARD, LOSSES
    from distilrec.models import BASELINES, MODELS
    from distilrec.teachers import TEACHERS

    yield from _name(("teacher", "model"), recipe.teacher.model, [n for n in {**MODELS, **TEACHERS} if n != "ensemble"])
    yield from _name(("student", "model"), recipe.student.model, MODELS)
    if recipe.data.layout is not None:
        yield from _name(("data", "layout"), recipe.data.layout, LAYOUTS)
    for role in recipe.data.columns:
        yield from _name(("data", "columns", role), role, ROLES)
    yield from _cleaning(recipe.data.clean)
    method = recipe.split.get("method", "leave-last-out")
    yield from _name(("split", "method"), method, METHODS)
    if isinstance(method, str) and method in METHODS:
        for key in recipe.split:
            yield from _name(("split", key), key, ["method", "check", "seed", *METHODS[method]])
    for loss in recipe.student.losses:
        yield from _name(("student", "losses", loss), loss, LOSSES)
    for loss in recipe.control.losses:
        yield from _name(("control", "losses", loss), loss, HARD)
    for index, name in enumerate(recipe.evaluate.baselines):
        yield from _name(("evaluate", "baselines", str(index)), name, BASELINES)
    metric, _, cut = recipe.evaluate.metric.partition("@")
    yield from _name(("evaluate", "metric"), metric, SELECTION_METRICS)
    if not cut.isdigit() or int(cut) not in recipe.evaluate.k:
        yield ("evaluate", "metric"), recipe.evaluate.metric, f"metric@k with k among {recipe.evaluate.k}"
    yield from _consistency(recipe)
    yield from _settings(recipe)


def _consistency(recipe: Recipe) -> Iterator[Fault]:
    """What has to hold between sections, found now and not after an hour of training a teacher."""
    if len(recipe.tune.student) != len(recipe.tune.control):
        yield (("tune",),
               f"{len(recipe.tune.student)} trials for the student, {len(recipe.tune.control)} for the control",
               "equally many, so that neither is favored")
    if len(set(recipe.seeds)) != len(recipe.seeds):
        yield ("seeds",), str(recipe.seeds), "each seed once"
    yield from _teacher(recipe)
    if recipe.data.path is not None and recipe.data.shop is not None:
        yield ("data",), "both path and shop", "one source of data"
    for section in ("student", "control"):
        losses = getattr(recipe, section).losses
        if not any(losses.values()):
            yield (section, "losses"), str(losses), "at least one loss with a weight above 0"
    if recipe.text is None and recipe.student.start == "text":
        yield ("student", "start"), "'text' in a recipe without the section text", _TEXT
    use = recipe.student.settings.get("content_use")
    if use in CONTENT_KEPT and recipe.student.start != "none":
        yield (("student", "settings", "content_use"), f"{use!r} with start: {recipe.student.start}",
               "start: none, for the item table is made from the texts")
    for section in ("student", "control"):
        use = getattr(recipe, section).settings.get("content_use")
        if use in CONTENT_KEPT and recipe.text is None:
            yield (section, "settings", "content_use"), f"{use!r} in a recipe without the section text", _TEXT
    if not re.fullmatch(r"cpu|mps|cuda(:\d+)?", recipe.device):
        yield ("device",), repr(recipe.device), "cpu, cuda, cuda:N or mps"
    for section in ("teacher", "student"):
        train = getattr(recipe, section).train
        for key, elsewhere in _OF_THE_RUN.items():
            if getattr(train, key) != TrainSettings.model_fields[key].default:
                yield (section, "train", key), repr(getattr(train, key)), f"`{elsewhere}` of the whole recipe instead"


def _teacher(recipe: Recipe) -> Iterator[Fault]:
    """What one kind of teacher needs, and what another has no use for."""
    teacher = recipe.teacher
    if teacher.model == "text_sasrec" and recipe.text is None:
        yield (("teacher", "model"), "'text_sasrec' in a recipe without the section text",
               f"{_TEXT}, or a teacher that reads no text")
    if teacher.model != "file":
        return
    if teacher.path is None:
        yield ("teacher", "path"), "nothing", "the Parquet file of scores or vectors"
    if teacher.copies > 1:
        yield ("teacher", "copies"), repr(teacher.copies), "1: a file cannot be trained again"
    if teacher.train != TrainSettings():
        yield ("teacher", "train"), "settings of training", "none, for a file is read and not trained"
    yield from file_teacher_faults(teacher.settings)


def file_teacher_faults(given: Mapping[str, Any], place: Place = ("teacher", "settings")) -> Iterator[Fault]:
    """Faults in the settings of a teacher that is a file, by the signature of what reads it."""
    from distilrec.teachers import teacher_function
    from distilrec.teachers.file import FILE_SETTINGS

    types = get_type_hints(teacher_function("file").__init__)
    for key, value in given.items():
        fault = list(_typed((*place, key), value, FILE_SETTINGS, types))
        if not fault and key == "temperature" and not value > 0:
            fault = [((*place, key), repr(value), "greater than 0")]
        yield from fault


def _cleaning(rules: Mapping[str, Any]) -> Iterator[Fault]:
    from distilrec.data.clean import Cleaning, cleaning

    unknown = [rule for rule in rules if rule not in Cleaning.__dataclass_fields__]
    for rule in unknown:
        yield from _name(("data", "clean", rule), rule, Cleaning.__dataclass_fields__)
    for rule, value in rules.items():
        try:
            cleaning({} if rule in unknown else {rule: value})
        except DataError as error:
            yield ("data", "clean", rule), *_two_lines(error)


def _settings(recipe: Recipe) -> Iterator[Fault]:
    """Settings of models against the constructors; this imports torch, so it comes last."""
    from distilrec.models import MODELS, model_settings
    from distilrec.teachers.text_sasrec import DEFAULTS

    student = recipe.student
    text = recipe.teacher.model == "text_sasrec"
    architecture, defaults = ("sasrec", DEFAULTS) if text else (recipe.teacher.model, {})
    if architecture in MODELS:
        yield from _arguments(("teacher", "settings"), architecture, recipe.teacher.settings, defaults)
    yield from _train(("control", "train"), recipe.control.train, student.train)
    if student.model not in MODELS:
        return
    yield from _arguments(("student", "settings"), student.model, student.settings, {})
    yield from _arguments(("control", "settings"), student.model, recipe.control.settings, student.settings)
    known = model_settings(student.model)
    for role, trials in (("student", recipe.tune.student), ("control", recipe.tune.control)):
        for index, trial in enumerate(trials):
            place = ("tune", role, str(index))
            for key in trial:
                yield from _name((*place, key), key, sorted({*known, *TrainSettings.model_fields}))
            of_model = {key: value for key, value in trial.items() if key in known}
            of_training = {key: value for key, value in trial.items() if key in TrainSettings.model_fields}
            yield from _arguments(place, student.model, of_model, student.settings)
            yield from _train(place, of_training, student.train)


def _arguments(place: Place, model: str, given: Mapping[str, Any], defaults: Mapping[str, Any]) -> Iterator[Fault]:
    """Names and types by the signature; for what it cannot say (do the heads divide the width?) a small one is made."""
    from distilrec.models import model_class, model_settings

    build, known = model_class(model), model_settings(model)
    types = get_type_hints(build.__init__)
    sound = True
    for key, value in given.items():
        fault = list(_typed((*place, key), value, known, types))
        if not fault and type(value) is int and types[key] is not float and value < 1:
            fault = [((*place, key), repr(value), "at least 1")]
        sound = sound and not fault
        yield from fault
    if sound and given:
        try:
            users = {"n_users": 2} if "n_users" in types else {}
            build(n_items=2, **users, **{key: value for key, value in {**defaults, **given}.items() if key in known})
        except DistilrecError as error:
            yield place, *_two_lines(error)
        except (TypeError, ValueError, RuntimeError) as error:
            yield place, str(error), f"settings that {model} can be built with"


def _typed(place: Place, value: Any, known: Iterable[str], types: Mapping[str, Any]) -> Iterator[Fault]:
    """A setting that is unknown, or of another type than the signature says."""
    fault = list(_name(place, place[-1], known))
    yield from fault
    if fault:
        return
    try:
        TypeAdapter(types[place[-1]], config=ConfigDict(strict=True)).validate_python(value)
    except ValidationError as error:
        yield place, repr(value), " or ".join(expectation(entry) for entry in error.errors())


def _train(place: Place, given: Mapping[str, Any], base: TrainSettings) -> Iterator[Fault]:
    """Training settings that stand on top of others, as a plain mapping."""
    unknown = [key for key in given if key not in TrainSettings.model_fields]
    for key in unknown:
        yield from _name((*place, key), key, TrainSettings.model_fields)
    for key, elsewhere in _OF_THE_RUN.items():
        if key in given:
            yield (*place, key), repr(given[key]), f"`{elsewhere}` of the whole recipe instead"
    try:
        TrainSettings.model_validate({**dict(base), **{k: v for k, v in given.items() if k not in unknown}})
    except ValidationError as error:
        for entry in error.errors():
            yield (*place, *map(str, entry["loc"])), repr(entry["input"]), expectation(entry)


def expectation(entry: Mapping[str, Any]) -> str:
    """What pydantic expected, in its words; with the nearest of the allowed values."""
    text = str(entry["msg"]).removeprefix("Input should be ").removeprefix("Input should have ")
    if entry["type"] == "literal_error":
        text += nearest(str(entry["input"]), re.findall(r"'([^']*)'", text))
    return text


def _two_lines(error: DistilrecError) -> tuple[str, str]:
    """(seen, expected) of a message made by errors.problem."""
    lines = str(error).splitlines()
    return lines[0], " ".join(line.strip().removeprefix("expected: ") for line in lines[1:2])


def _name(place: Place, seen: Any, known: Any) -> Iterator[Fault]:
    if not isinstance(seen, str) or seen not in known:
        yield place, f"{seen!r}{nearest(str(seen), known)}", ", ".join(known)
