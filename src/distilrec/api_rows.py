"""The public functions on rows of features (tasks predict and tag); api.py sends calls with a RowSplit here."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from distilrec.api_shared import divide, trained_facts
from distilrec.errors import DataError, RecipeError, nearest, problem
from distilrec.evaluation.contest import Report
from distilrec.evaluation.pointwise import choose_thresholds
from distilrec.evaluation.row_contest import RowContestant, row_contest
from distilrec.evaluation.row_terms import probability
from distilrec.files import digest_json, read_object, recover, write_json
from distilrec.knowledge.extract_rows import extract_rows, importance_of
from distilrec.knowledge.store import KnowledgeStore
from distilrec.losses import ROW_HARD
from distilrec.models import ROW_BASELINES, ROW_MODELS, row_model_settings
from distilrec.models.base_rate import BaseRate
from distilrec.models.predictor import TrainedRows
from distilrec.recipe_rows import ROW_STARTS
from distilrec.teachers import ROW_TEACHERS, outside_settings, row_teacher
from distilrec.training.row_fit import check_row_terms, default_losses
from distilrec.training.row_train import train_rows
from distilrec.training.settings import TrainSettings
from distilrec.types import PARTS
from distilrec.types_rows import Predictor, RowSplit

__all__ = [
    "EachAlone", "decision_thresholds", "default_metric", "distill_on_rows", "evaluate_on_rows",
    "extract_from_rows", "fit_row_baseline", "served_features", "soft_losses", "teach_on_rows", "train_each_alone",
]

_LOGISTIC: dict[str, Any] = {"epochs": 30, "batch_size": 512, "learning_rate": 0.01, "patience": 3}  # of the baseline


def default_metric(split: RowSplit) -> str:
    """The first head's own: AUC, RMSE or micro-F1."""
    first = split.heads[0]
    name = {"binary": "auc", "number": "rmse", "tags": "micro_f1"}[first.kind]
    return name if len(split.heads) == 1 else f"{first.name}.{name}"


def soft_losses(split: RowSplit) -> dict[str, float]:
    """Labels and teacher in equal parts, by kind of head."""
    kinds = {head.kind for head in split.heads}
    out: dict[str, float] = {}
    if kinds & {"binary", "tags"}:
        out |= {"binary_cross_entropy": 0.5, "bernoulli_kl": 0.5}
    if "number" in kinds:
        out |= {"squared_error": 0.5, "output_squared_error": 0.5}
    if "number" in kinds and len(kinds) > 1:  # the logits of the other heads are taught by the divergence already
        out["output_squared_error"] = 0.1
    return out


def served_features(split: RowSplit) -> list[str]:
    """The features that a request can bring: all that a student may read."""
    return [name for name, feature in split.features.items() if feature.available == "request"]


def teach_on_rows(
    name: str, split: RowSplit, *, path: str | Path | None = None, space: str | Mapping[str, str] | None = None,
    trust: bool = False, features: Sequence[str] | None = None, seed: int = 0, folder: str | Path | None = None,
    metric: str | None = None, **settings: Any,
) -> Predictor:
    """Train a teacher on rows, or adopt one that was made elsewhere. See api.teach.

    Args:
        name: a name of models.ROW_MODELS, "trees" (LightGBM), or of teachers.ROW_TEACHERS (onnx, sklearn, file, ...).
        path, space, trust: of an outside teacher: its file, what its output is ("probability", "logit", "value"), and
            whether opening the file may run code.
        features: those it may read; all by default.
    """
    target = None if folder is None else Path(folder)
    chosen = metric or default_metric(split)
    if name in ROW_MODELS:
        model, training = divide(name, settings, row_model_settings(name), seed=seed, call=teach_on_rows)
        return train_rows(name, split, model, training, name=name, features=features, metric=chosen, folder=target)
    known = [*ROW_MODELS, *(one for one in ROW_TEACHERS if one != "ensemble")]
    if name not in known:
        raise RecipeError(problem(f"teacher {name!r} is unknown{nearest(name, known)}", ", ".join(known)))
    if name == "trees":
        return _trees(split, settings, features, seed, target)
    if path is None:
        raise RecipeError(problem(f"a teacher from outside ({name}) needs its path",
                                  f"teach({name!r}, split, path=..., space=...)"))
    taken = outside_settings(name)
    for one in settings:
        if one not in taken:
            raise RecipeError(problem(f"the teacher {name!r} has no setting {one!r}{nearest(one, taken)}",
                                      ", ".join(taken)))
    allowed = {"trust": trust} if "trust" in taken else {}
    return row_teacher(name)(path, split, space=space, **{**allowed, **settings})


def _trees(
    split: RowSplit, settings: Mapping[str, Any], features: Sequence[str] | None, seed: int, folder: Path | None
) -> Predictor:
    """Trees that are trained once: those found in the folder, if they are of these data and settings."""
    from distilrec.teachers.trees import Trees, fit_trees

    read = None if features is None else list(features)
    of_trees = {key: value for key, value in settings.items() if key != "threads"}  # which change no tree
    identity = digest_json(["trees", split.digest, of_trees, read, seed])
    if folder is not None:
        recover(folder)
        stamp = folder.with_name(f"{folder.name}.json")
        there = stamp.exists() and (folder / "trees.json").exists()
        if there and read_object(stamp, {"identity": str})["identity"] == identity:
            found = Trees.load(folder)
            return replace(found, training={**found.training, "threads": settings.get("threads", 1)})
        stamp.unlink(missing_ok=True)
    trees = fit_trees(split, settings, features=features, seed=seed)
    if folder is not None:
        trees.save(folder)
        write_json(stamp, {"identity": identity})
    return trees


def extract_from_rows(
    teacher: Predictor, split: RowSplit, *, folder: str | Path | None = None, hidden: bool = False,
    held_out: Predictor | None = None, extra: float = 0.0,
    swap: Sequence[str | Sequence[str]] = (), seed: int = 0,
) -> KnowledgeStore:
    """Write down a pointwise teacher's outputs for every train row. See knowledge.extract_rows."""
    target = Path(folder) if folder is not None else Path(tempfile.mkdtemp(prefix="distilrec-knowledge-"))
    return extract_rows(teacher, split, target, hidden=hidden, held_out=held_out, extra=extra, swap=swap,
                        seed=seed)


def distill_on_rows(
    name: str, split: RowSplit, knowledge: KnowledgeStore, *, losses: Mapping[str, float] | None = None,
    start: str = "none", auxiliary: bool = False, features: Sequence[str] | None = None, control: bool = True,
    control_settings: Mapping[str, Any] | None = None, control_losses: Mapping[str, float] | None = None,
    student_settings: Mapping[str, Any] | None = None, seed: int = 0, folder: str | Path | None = None,
    metric: str | None = None, **settings: Any,
) -> tuple[TrainedRows, TrainedRows | None]:
    """(student, control) on rows; the control has the same model, features and settings and at least as many steps.

    Args:
        start: "none", or "importance": the first vectors of each feature are scaled by what the teacher's trees found
            useful.
        auxiliary: the teacher speaks to an auxiliary head.
        features: those that the student may read; by default all that a request can bring.
    """
    if name not in ROW_MODELS:
        raise RecipeError(problem(f"student {name!r} is unknown{nearest(name, ROW_MODELS)}", ", ".join(ROW_MODELS)))
    if start not in ROW_STARTS:
        raise RecipeError(problem(f"start {start!r}{nearest(start, ROW_STARTS)}", " or ".join(ROW_STARTS)))
    target = None if folder is None else Path(folder)
    chosen = metric or default_metric(split)
    read = list(features) if features is not None else served_features(split)
    terms = dict(losses or soft_losses(split))
    knowledge.check(split)
    check_row_terms(terms, split.heads, knowledge)
    known = row_model_settings(name)
    model, training = divide(name, {**settings, **(student_settings or {})}, known, seed=seed, call=distill_on_rows)
    student = train_rows(
        name, split, model, training, name="student", features=read, losses=terms, knowledge=knowledge, metric=chosen,
        auxiliary=auxiliary, importance=importance_of(knowledge) if start == "importance" else None,
        folder=target / "student" if target else None,
    )
    if not control:
        return student, None
    steps = int(student.training["steps"])
    shape = {k: v for k, v in (student_settings or {}).items() if k in known and "dropout" not in k}
    own, own_training = divide(name, {**settings, **shape, **(control_settings or {})}, known, seed=seed)
    per_epoch = -(-split.n_rows("train") // own_training.batch_size)
    own_training = own_training.model_copy(update={"epochs": max(own_training.epochs, -(-steps // per_epoch))})
    plain = dict(control_losses or default_losses(split.heads))
    twin = train_rows(name, split, own, own_training, name="control", features=read, losses=plain, metric=chosen,
                      folder=target / "control" if target else None, min_steps=steps)
    return student, twin


@dataclass(frozen=True, eq=False)
class EachAlone:
    """One model for each head, none of which saw another head's labels, answering together. A Predictor."""

    name: str
    members: Sequence[TrainedRows]
    views: Sequence[RowSplit]

    def predict(self, split: RowSplit, rows: np.ndarray) -> np.ndarray:
        """float32 [n, O]; rows are those of the table that the models were trained on."""
        if len(split) != len(self.views[0]):
            raise DataError(problem(f"a table of {len(split)} rows", f"the one of {len(self.views[0])} rows"))
        return np.concatenate([one.predict(view, rows) for one, view in zip(self.members, self.views, strict=True)], 1)

    @property
    def parameters(self) -> int:
        return sum(one.parameters for one in self.members)

    @property
    def digest(self) -> str:
        return digest_json([one.digest for one in self.members])


def train_each_alone(
    name: str, split: RowSplit, *, features: Sequence[str] | None = None, losses: Mapping[str, float] | None = None,
    own: Mapping[str, Mapping[str, Any]] | None = None, steps: int = 0, seed: int = 0,
    folder: str | Path | None = None, **settings: Any,
) -> EachAlone:
    """Single-task controls: the architecture of the student once for each head, trained on that head's labels alone.

    Each sees the rows that have its label, in batches that hold as many labels as those of the student, and has at
    least as many steps. A head `after` another one stands by itself.

    Args:
        features, losses: as in distill_on_rows. own: head -> settings over `settings`. steps: those of the student.
    """
    read = list(features) if features is not None else served_features(split)
    members, views = [], []
    for head in split.heads:
        known = ~np.isnan(split.labels[head.name]).all(axis=1)
        view = replace(split, heads=(replace(head, after=None),), labels={head.name: split.labels[head.name]},
                       parts=np.where(known | (split.parts == PARTS.index("test")), split.parts, -1).astype(np.int8))
        mine = (own or {}).get(head.name, {})
        model, training = divide(name, {**settings, **mine}, row_model_settings(name), seed=seed)
        share = view.n_rows("train") / split.n_rows("train")
        size = training.batch_size if "batch_size" in mine else max(1, round(training.batch_size * share))
        terms = losses or default_losses(view.heads)
        epochs = max(training.epochs, -(-steps // -(-view.n_rows("train") // size)))
        members.append(train_rows(
            name, view, model, training.model_copy(update={"batch_size": size, "epochs": epochs}),
            name=f"{head.name} alone", features=read, metric=default_metric(view), min_steps=steps,
            losses={key: weight for key, weight in terms.items() if head.kind in ROW_HARD[key]},
            folder=None if folder is None else Path(folder) / head.name,
        ))
        views.append(view)
    return EachAlone("single-task", members, views)


def fit_row_baseline(name: str, split: RowSplit, *, metric: str | None = None, seed: int = 0) -> Predictor:
    """"base_rate", or "logistic": a regression on what a request can bring.

    Raises:
        RecipeError: no such baseline.
    """
    if name == "base_rate":
        return BaseRate.fit(split)
    if name != "logistic":
        raise RecipeError(problem(f"baseline {name!r} is unknown{nearest(name, ROW_BASELINES)}",
                                  ", ".join(ROW_BASELINES)))
    settings = TrainSettings(**{**_LOGISTIC, "seed": seed})
    return train_rows("logistic", split, {}, settings, name="logistic", features=served_features(split),
                      metric=metric or default_metric(split))


def evaluate_on_rows(
    split: RowSplit, *, teacher: Predictor | None = None, student: Any = None, control: Any = None,
    baselines: Sequence[str] | None = None, metric: str | None = None, slices: Sequence[str] = (),
) -> Report:
    """Measure teacher, student, control and baselines on the test rows under one protocol. See api.evaluate."""
    chosen = metric or default_metric(split)
    contestants = [
        RowContestant(role, role, [one], **trained_facts([getattr(one, "origin", one)]))
        for role, one in (("teacher", teacher), ("student", student), ("control", control)) if one is not None
    ]
    if not contestants:
        raise DataError(problem("nothing to measure", "a teacher, a student or a control"))
    contestants += [RowContestant(n, "baseline", [fit_row_baseline(n, split, metric=chosen)])
                    for n in (ROW_BASELINES if baselines is None else baselines)]
    seed = getattr(student, "training", {}).get("settings", {}).get("seed", 0)
    return row_contest(contestants, split, metric=chosen, seeds=[seed], slices=slices)


def decision_thresholds(trained: TrainedRows, split: RowSplit) -> dict[str, float | list[float]]:
    """{head: probability, or one per tag} from where on a served bundle says yes: those that evaluation measures with,
    of the highest F1 on the validation part. Nothing without validation rows; heads of numbers have none."""
    rows = split.rows("valid")
    if not len(rows):
        return {}
    found = choose_thresholds(trained.predict(split, rows), split.label_matrix(rows), split.heads,
                              weights=None if split.weights is None else split.weights[rows])
    return {name: probability(np.asarray(cut)).tolist() for name, cut in found.items()}
