"""The public functions, one per stage, on objects in memory. The pipeline runs the same functions on a run folder."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distilrec import models
from distilrec.api_rank import distill_on_events
from distilrec.api_rows import (
    decision_thresholds,
    distill_on_rows,
    evaluate_on_rows,
    extract_from_rows,
    teach_on_rows,
)
from distilrec.api_shared import divide, trained_facts
from distilrec.errors import DataError, RecipeError, nearest, problem
from distilrec.evaluation.contest import Contestant, Report, contest, timed_teacher, together
from distilrec.knowledge.blend import blend as blend_stores
from distilrec.knowledge.extend import extend as extend_store
from distilrec.knowledge.extract import extract as extract_knowledge
from distilrec.knowledge.store import KnowledgeStore
from distilrec.models import MODELS, model_class, model_settings
from distilrec.models.predictor import TrainedRows
from distilrec.models.trained import Trained
from distilrec.recipe_rank import file_teacher_faults
from distilrec.teachers import TEACHERS, teacher_function
from distilrec.teachers.fitted import fit_teacher
from distilrec.training.train import train
from distilrec.types import Ranker, Split
from distilrec.types_rows import Predictor, RowSplit

__all__ = [
    "BASELINES", "Student", "blend", "distill", "evaluate", "export", "extend", "extract", "fit_baseline",
    "item_content", "teach",
]

BASELINES = ("popularity", "item_knn")

RANK_METRIC = "ndcg@10"  # where none is named; rows have that of their first head


@dataclass(frozen=True, eq=False)
class Student:
    """A distilled student and its control: the same model trained with the same budget but without the teacher."""

    model: Trained | TrainedRows
    control: Trained | TrainedRows | None
    split: Split | RowSplit
    scratch: Trained | None = None  # the control once more, without any item content

    def __repr__(self) -> str:
        return f"Student({self.model}, control={self.control})"

    @property
    def name(self) -> str:
        return self.model.name

    @property
    def parameters(self) -> int:
        return self.model.parameters


def item_content(split: Split, encoder: str, *, cache: str | Path | None = None) -> np.ndarray:
    """float32 [I, C]: the items' texts through a Hugging Face encoder; rows of items without text are zero.

    Raises:
        DataError: no item has a text.
    """
    from distilrec.data import encode_texts

    texts = split.dataset.item_texts()
    if not any(texts):
        raise DataError(problem(
            f"data set {split.dataset.name!r} has no item texts", "an item table with a text column",
            "name it under data.text, or choose a teacher that needs no text",
        ))
    return encode_texts(texts, encoder, cache=None if cache is None else Path(cache))


def teach(
    name: str, /, split: Split | RowSplit, *, encoder: str | None = None, content: np.ndarray | None = None,
    path: str | Path | None = None, seed: int = 0, folder: str | Path | None = None, metric: str | None = None,
    seen: str = "drop", chosen: Mapping[str, Any] | None = None, **settings: Any,
) -> Any:
    """Train a teacher, or adopt one that was made elsewhere: a Ranker, or a Predictor of rows.

    Args:
        name: a name of teachers.TEACHERS, models.MODELS or models.BASELINES; for rows one of models.ROW_MODELS or
            teachers.ROW_TEACHERS, with the further arguments of api_rows.teach_on_rows.
        encoder: read the items' texts with this language model ("all-MiniLM-L6-v2" works offline).
        content: item vectors [I, C] of your own instead.
        path: of `name="file"`, the Parquet file of scores or vectors.
        chosen: of a teacher of the same settings that was validated on a part of this train part, its `training`: the
            new one is trained as many epochs as were best there, without validation (see data.split.whole_train).
        settings: of the model (dim, layers, ...) or of training (epochs, learning_rate, ...), in any order.
    Raises:
        RecipeError: an unknown name or setting; DataError: texts are needed and missing.

    >>> teacher = teach("text_sasrec", split, encoder="all-MiniLM-L6-v2", dim=128)  # doctest: +SKIP
    """
    if isinstance(split, RowSplit):
        return teach_on_rows(name, split, path=path, seed=seed, folder=folder, metric=metric, **settings)
    # several of these make an ensemble: teachers.ensemble
    known = [one for one in {**MODELS, **models.BASELINES, **TEACHERS} if one != "ensemble"]
    if name not in known:
        raise RecipeError(problem(f"teacher {name!r} is unknown{nearest(name, known)}", ", ".join(known)))
    if name == "file":
        if path is None:
            raise RecipeError(problem("a teacher from a file needs its path",
                                      "teach('file', split, path='scores.parquet')"))
        if faults := list(file_teacher_faults(settings, ())):
            raise RecipeError("\n".join(problem(f"a teacher from a file: {'.'.join(place)}: {found}", expected)
                                        for place, found, expected in faults))
        return teacher_function("file")(path, split, **settings)
    target = None if folder is None else Path(folder)
    if name in models.BASELINES:
        return fit_teacher(name, split, settings, seed=seed, folder=target, metric=metric or RANK_METRIC, seen=seen,
                           chosen=chosen)
    architecture = "sasrec" if name == "text_sasrec" else name
    model, training = divide(architecture, settings, model_settings(architecture), seed=seed, call=teach)
    if content is None and encoder is not None:
        content = item_content(split, encoder)
    if name == "text_sasrec":
        return teacher_function(name)(split, model, training, content=content, folder=target,
                                      metric=metric or RANK_METRIC, seen=seen, chosen=chosen)
    return train(architecture, split, model, training, name=name, content=content, folder=target,
                 metric=metric or RANK_METRIC, seen=seen, chosen=chosen)


def extract(
    teacher: Ranker | Predictor, split: Split | RowSplit, *, top_k: int = 100, folder: str | Path | None = None,
    content: np.ndarray | None = None, temperature: float = 1.0, signals: Collection[str] = (), **of_rows: Any,
) -> KnowledgeStore:
    """Write down what a teacher knows: its top-K answer at every train decision, and its item vectors.

    `signals` asks for more of it: "query" (vectors, for hints and relations), "layers", "attention", "gradient"; which
    loss needs which says losses.SOFT.
    On rows: its output for every train row, importances where it has them, and with the arguments of
    api_rows.extract_from_rows (hidden, extra, swap, ...) more than that.
    Without a `folder` the store goes to a temporary one, which lasts as long as the machine keeps it.
    """
    if isinstance(split, RowSplit):
        return extract_from_rows(teacher, split, folder=folder, **of_rows)  # type: ignore[arg-type]
    if of_rows:
        raise RecipeError(problem(f"{', '.join(of_rows)}: not of the rank task", "top_k, content, temperature"))
    target = Path(folder) if folder is not None else Path(tempfile.mkdtemp(prefix="distilrec-knowledge-"))
    if content is None:
        content = getattr(teacher, "content", None)
    return extract_knowledge(teacher, split, target,  # type: ignore[arg-type]
                             top_k=top_k, content=content, temperature=temperature, signals=signals)


def blend(
    stores: Sequence[KnowledgeStore], split: Split, *, weights: str = "agreement",
    top_k: int | None = None, folder: str | Path | None = None,
) -> KnowledgeStore:
    """Several teachers' stores of one split as one, each weighed per user and per item; see knowledge.blend.

    Without a `folder` as `extract`.
    """
    target = Path(folder) if folder is not None else Path(tempfile.mkdtemp(prefix="distilrec-knowledge-"))
    return blend_stores(stores, split, target, weights=weights, top_k=top_k)


def extend(
    store: KnowledgeStore, old: Split, teacher: Ranker, new: Split, *, content: np.ndarray | None = None,
    folder: str | Path | None = None,
) -> KnowledgeStore:
    """The store of `old` carried over to `new`, which has more interactions: what was asked before is copied, only the
    rest is asked; see knowledge.extend. `manifest["teacher"]` tells how many decisions were `copied` and `asked`,
    and how many `left_out` because the old teacher was trained on validation or test events of `new`.

    Without a `folder` as `extract`.
    """
    target = Path(folder) if folder is not None else Path(tempfile.mkdtemp(prefix="distilrec-knowledge-"))
    return extend_store(store, old, teacher, new, target, content=content)[0]


def distill(
    name: str, split: Split | RowSplit, knowledge: KnowledgeStore, *, losses: Mapping[str, float] | None = None,
    start: str | None = None, content: np.ndarray | None = None, control: bool = True,
    control_settings: Mapping[str, Any] | None = None, control_losses: Mapping[str, float] | None = None,
    scratch: bool = False, student_settings: Mapping[str, Any] | None = None, layers_from: Any = None,
    chosen: Mapping[str, Mapping[str, Any]] | None = None, trust: Sequence[str] = (), own_temperature: bool = False,
    audit: bool = False, generations: int = 1, interpolation: Sequence[float] = (), seed: int = 0,
    folder: str | Path | None = None, metric: str | None = None, seen: str = "drop", **settings: Any,
) -> Student:
    """Train a student on knowledge and labels, and its control on labels alone.

    The control is the same model with the same settings, at least as many steps, its own early stop, and the same
    item content: where the student's table starts from a teacher that read texts, the control's starts from the
    principal components of the vectors of those texts.

    Args:
        start: "teacher" (projected item vectors, the default), "text" (principal components of `content`), or "none",
            which a student with the setting `content_use` "add" or "only" needs: it is given `content` itself.
        content: item vectors [I, C]; by default those kept in the store.
        control_settings: settings that differ for the control, for instance its own tuned dropout.
        student_settings: settings that differ for the student, for instance those of its best trial. What shapes the
            model (width, layers, ...) holds for the control too; dropout and training settings do not.
        control_losses: the plain losses of the control; {"cross_entropy": 1.0} by default.
        scratch: also train the control without any item content, for comparison with publications.
        layers_from: a trained teacher of equal inner width whose layers the student starts with.
        chosen: role -> `training` of models that were validated on a part of this train part; see `teach`.
        trust: rules of knowledge.trust.RULES ("confidence", "agreement", "label_gate"): which decisions to believe. As
            own_temperature, audit and generations, only where the training setting `teacher` is "store".
        own_temperature: a temperature for every decision, so that all soft labels are about as wide.
        audit: compare student and control on the validation part; leave out the users on whom the teacher harms, and
            keep what validates best: all of the knowledge, the rest of it, or none (see training.audit).
        generations: more than 1: the student teaches the next one like it, and the best on validation stays. So does
            the best of as many controls, each from a seed of its own and of at least the steps of all generations.
        interpolation: shares by which the item table may go back towards the teacher's after training; validation
            chooses among them and 0.
        settings: of the model or of training, as in `teach`; on rows also `features`, `auxiliary` and the other
            arguments of api_rows.distill_on_rows.
    Raises:
        RecipeError, KnowledgeError: what is asked for is unknown, or the store does not hold it.
    """
    if isinstance(split, RowSplit):
        made = distill_on_rows(
            name, split, knowledge, losses=losses, start=start or "none", control=control,
            control_settings=control_settings, control_losses=control_losses, student_settings=student_settings,
            seed=seed, folder=folder, metric=metric, **settings)
        return Student(*made, split)
    return Student(*distill_on_events(
        name, split, knowledge, losses=losses, start=start or "teacher", content=content, control=control,
        control_settings=control_settings, control_losses=control_losses, scratch=scratch,
        student_settings=student_settings, layers_from=layers_from, chosen=chosen, trust=trust,
        own_temperature=own_temperature, audit=audit, generations=generations,
        interpolation=interpolation, seed=seed, folder=folder, metric=metric or RANK_METRIC, seen=seen,
        **settings))


def export(
    student: Student | Trained | TrainedRows, path: str | Path, split: Split | RowSplit | None = None, *,
    card: str | None = None, seen: str = "drop",
) -> Any:
    """Write the student as a bundle and open it. The bundle needs neither torch nor this data set.

    Args:
        split: the data it was trained on, for vocabularies and titles; a `Student` brings its own.
        seen: "drop" or "keep", whether items of the history may be recommended again by default.
    Raises:
        BundleError: ONNX and torch disagree, a feature that no request can bring, or the folder cannot be written;
            nothing is left behind.
    """
    from distilrec.bundle.runtime import load

    trained = student.model if isinstance(student, Student) else student
    data = student.split if split is None and isinstance(student, Student) else split
    if data is None:
        raise DataError(problem("a trained model alone does not know its items' keys", "the split it was trained on",
                                "export(model, path, split)"))
    facts = {"student": trained.name, "architecture": trained.architecture}
    if isinstance(data, RowSplit):
        from distilrec.bundle.row_export import export_rows

        decide: dict[str, Any] = {"thresholds": decision_thresholds(trained, data)}  # type: ignore[arg-type]
        export_rows(trained, data, path, card=card, metadata={**facts, **decide})  # type: ignore[arg-type]
    else:
        from distilrec.bundle.export import export as write

        write(trained.model, data, path, card=card, metadata=facts, seen=seen)
    bundle = load(path)
    bundle.origin = student
    return bundle


def evaluate(
    split: Split | RowSplit, *, teacher: Any = None, student: Any = None, control: Any = None,
    baselines: Sequence[str] | None = None, metric: str | None = None, k: Sequence[int] = (10, 20),
    seen: str = "drop", candidates: Any = "full", slices: Sequence[str] = (), fusion: Sequence[str] = (),
    cascade: Sequence[int] = (),
) -> Report:
    """Measure teacher, student, control and baselines on the test part under one protocol.

    Args:
        student: a `Student`, a `Trained` model, or a bundle. The control of a `Student`, or of the bundle that
            `export` made of one in this process, is measured too.
        control: needed for a verdict in every other case.
        baselines: names; by default popularity and item-kNN, on rows the base rate and a logistic regression.
        slices: on rows, raw columns whose values get a row of their own.
        fusion: "weighted", "rrf", "learned": teacher and student as one (see evaluation.fusion).
        cascade: depths at which the teacher re-ranks what the student retrieves.
    """
    contestants: list[Contestant] = []
    origin = getattr(student, "origin", None)
    whole = student if isinstance(student, Student) else origin
    scratch = whole.scratch if isinstance(whole, Student) else None
    if control is None and isinstance(origin, Student):
        control = origin.control
    if isinstance(student, Student):
        control, student = control or student.control, student.model
    if isinstance(split, RowSplit):
        if fusion or cascade:
            raise RecipeError(problem("fusion or cascade of a table of rows", "neither", "they are of the task rank"))
        return evaluate_on_rows(split, teacher=teacher, student=student, control=control, metric=metric, slices=slices,
                                baselines=baselines)
    metric = metric or RANK_METRIC
    if teacher is not None:
        contestants.append(Contestant("teacher", "teacher", [teacher], **trained_facts([teacher])))
    if student is not None:
        known = origin.model if isinstance(origin, Student) else student
        contestants.append(Contestant("student", "student", [student], **trained_facts([known])))
    if control is not None:
        contestants.append(Contestant("control", "control", [control], **trained_facts([control])))
    if scratch is not None:
        contestants.append(Contestant("control-scratch", "control", [scratch], **trained_facts([scratch])))
    if fusion or cascade:
        if teacher is None or student is None:
            raise DataError(problem("fusion or cascade of one model", "teacher and student"))
        contestants[0] = timed_teacher(contestants[0])
        contestants += together([(teacher, student)], fusion, cascade, metric=metric, seen=seen,
                                learn_from=[(teacher, student, split)])
    named = BASELINES if baselines is None else baselines
    contestants += [Contestant(name, "baseline", [fit_baseline(name, split)]) for name in named]
    model = whole.model if isinstance(whole, Student) else student
    seed = getattr(model, "training", {}).get("settings", {}).get("seed", 0)
    return contest(contestants, split, metric=metric, k=k, seen=seen, candidates=candidates, seeds=[seed])


def fit_baseline(name: str, split: Split) -> Ranker:
    """A baseline of models.BASELINES, fitted to the train part.

    Raises:
        RecipeError: no such baseline.
    """
    if name not in models.BASELINES:
        raise RecipeError(problem(f"baseline {name!r} is unknown{nearest(name, models.BASELINES)}",
                                  ", ".join(models.BASELINES)))
    return model_class(name).fit(split)
