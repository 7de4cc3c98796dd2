"""One typed document for a whole run. Reading YAML into it, with line numbers, is in recipe_yaml.py."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from distilrec.training.settings import TrainSettings

__all__ = [
    "Control", "Data", "Evaluate", "Join", "KnowledgeSettings", "ModelSection", "Recipe", "Shop", "StudentSection",
    "TeacherSection", "Text", "Tune",
]

Positive = Annotated[int, Field(ge=1)]
Space = Literal["probability", "logit", "value"]
Share = Annotated[float, Field(ge=0)]

# Defaults that differ in a pointwise recipe, by section and key; `None` as a metric becomes the first head's own.
ROW_DEFAULTS: dict[str, dict[str, Any]] = {
    "split": {"method": "random"},
    "teacher": {"model": "dcnv2"},
    "student": {"model": "mlp", "start": "none", "losses": {}},
    "control": {"losses": {}},
    "evaluate": {"baselines": ["base_rate", "logistic"]},
}
_METRIC_OF = {"binary": "auc", "number": "rmse", "tags": "micro_f1"}


class Section(BaseModel):
    """Strict: an unknown key or a value of the wrong type is an error, never ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, protected_namespaces=())


class Shop(Section):
    """The built-in data set, simulated (see data.simulate)."""

    users: Annotated[int, Field(ge=2)] = 2000
    items: Annotated[int, Field(ge=50)] = 1500
    events_per_user: Annotated[float, Field(ge=2)] = 12.0
    seed: Annotated[int, Field(ge=0)] = 0
    table: Literal["impressions", "reviews", "numeric"] = "impressions"  # of a pointwise recipe: see data.shop_rows
    rows: Positive | None = None  # at most so many of them


class Join(Section):
    """A table whose columns are added to every row with the same key."""

    path: str
    on: str


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
    joins: list[Join] = []  # predict, tag: further tables


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
    path: str | None = None  # of `model: file`, and of every outside teacher
    copies: Positive = 1  # more than one: an ensemble, each member from a seed of its own
    members: list[ModelSection] = []  # unlike models, whose mean logit (rank: log-probability) teaches
    features: list[str] | None = None  # predict, tag: those it reads; all by default
    space: Space | dict[str, Space] | None = None  # of an outside teacher's output, or by head; never guessed
    trust: bool = False  # let a teacher's file run code when it is opened (unpickling)


class StudentSection(ModelSection):
    start: Literal["teacher", "text", "importance", "none"] = "teacher"
    layers: Literal["none", "teacher"] = "none"  # rank: "teacher" copies its layers as the student's first ones
    losses: dict[str, Share] = {"cross_entropy": 0.2, "kl": 0.8}
    trust: list[str] = []  # rank: rules of knowledge.trust, which decisions of the teacher to believe
    own_temperature: bool = False  # rank: for every decision, so that all soft labels are about as wide
    interpolation: list[Annotated[float, Field(gt=0, le=1)]] = []  # rank: shares of the way back to the start, to try
    generations: Positive = 1  # rank: more than one: each student teaches the next, the best on validation stays
    audit: bool = False  # rank: leave out what harms a group of users on validation, or all of it
    features: list[str] | None = None  # predict, tag: those it reads; by default all that a request can bring
    auxiliary: bool = False  # predict, tag: the teacher speaks to a head of its own, which is thrown away


class Control(Section):
    """How the control differs from the student, beyond having no teacher. Its budget is never smaller."""

    settings: dict[str, Any] = {}
    train: dict[str, Any] = {}
    losses: dict[str, Share] = {"cross_entropy": 1.0}
    scratch: bool = False  # also train one without any content, for comparison with publications
    # predict, tag: also one model for each head alone; settings of its own by head, over those of the control
    single_task: bool | dict[str, dict[str, Any]] = False


class KnowledgeSettings(Section):
    top_k: Positive = 100
    temperature: Annotated[float, Field(gt=0)] = 1.0
    # of several teachers; "equal" for rank (see knowledge.blend), "learned" for predict, tag (see teachers.row_local)
    weights: Literal["mean", "equal", "learned", "agreement"] = "mean"
    item: str | None = None  # predict, tag: with weights: agreement, the feature whose values are the items
    signals: list[str] = []  # rank: query, layers, attention, gradient; what student.losses need comes by itself
    hidden: bool = False  # predict, tag: also the teacher's last hidden layer, for the loss `hint`
    folds: Annotated[int, Field(ge=0)] = 0  # predict, tag: soft labels by copies that did not see the row (0: off)
    extra: Share = 0.0  # predict, tag: rows to ask the teacher beyond those logged, as a multiple of the train rows
    # the features that such a row takes from another row, e.g. the item and what belongs to it; lists are groups, each
    # from a row of its own
    swap: list[str | list[str]] = []


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
    fusion: list[str] = []  # rank: of teacher and student: weighted, rrf, learned
    cascade: list[Positive] = []  # rank: depths at which the teacher re-ranks what the student retrieves
    slices: list[str] = []  # predict, tag: columns whose values get a row of their own in the report


class Recipe(Section):
    """Everything that a run depends on besides the data themselves."""

    name: str
    task: Literal["rank", "predict", "tag"] = "rank"
    data: Data = Data()
    features: dict[str, str | dict[str, Any]] = {}  # predict, tag: name -> kind, or kind with settings
    labels: dict[str, str | dict[str, Any]] = {}  # predict, tag: head -> column, or column with settings
    group: str | None = None  # predict, tag: the column of the user or request, for GAUC and for intervals
    weight: str | None = None  # predict, tag: the column of a row's weight
    split: dict[str, Any] = {"method": "leave-last-out"}
    text: Text | None = None
    teacher: TeacherSection = TeacherSection()
    knowledge: KnowledgeSettings = KnowledgeSettings()
    student: StudentSection = StudentSection()
    control: Control = Control()
    tune: Tune = Tune()
    evaluate: Evaluate = Evaluate()
    refit: bool = True  # rank: where validation was carved from train, train once more on all of train
    seeds: Annotated[list[Annotated[int, Field(ge=0)]], Field(min_length=1)] = [0]
    device: str = "cpu"
    threads: Positive = 1

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_the_task(cls, given: Any) -> Any:
        """A pointwise recipe has other defaults where those of ranking would mean nothing."""
        if not isinstance(given, dict) or given.get("task") not in ("predict", "tag"):
            return given
        out = dict(given)
        for section, values in ROW_DEFAULTS.items():
            if isinstance(out.get(section, {}), dict):
                out[section] = {**values, **out.get(section, {})}
        evaluate = out.get("evaluate")
        if isinstance(evaluate, dict) and "metric" not in evaluate and isinstance(out.get("labels"), dict):
            out["evaluate"] = {**evaluate, "metric": _first_metric(out["labels"])}
        return out


def _first_metric(labels: dict[str, Any]) -> str:
    """That of the first head, by its kind."""
    name, given = next(iter(labels.items()), ("", None))
    own = given if isinstance(given, dict) else {}
    metric = _METRIC_OF.get(str(own.get("kind", "tags" if own.get("classes") else "binary")), "auc")
    return metric if len(labels) == 1 else f"{name}.{metric}"
