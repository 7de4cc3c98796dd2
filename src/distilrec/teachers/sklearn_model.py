"""A scikit-learn estimator or pipeline as teacher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from distilrec.errors import DataError, nearest, problem
from distilrec.teachers.matrix import FORMS, Source, check_sources, frame, named_or_matrix
from distilrec.teachers.outside import RISK, OutsidePredictor, digest_of, found, library, output_names, spaces_of
from distilrec.types_rows import Head, RowSplit

__all__ = ["sklearn_teacher"]

METHODS = {"probability": "predict_proba", "logit": "decision_function", "value": "predict"}
SUFFIXES = (".joblib", ".pkl", ".pickle", ".skops")


def sklearn_teacher(
    model: Any, split: RowSplit, *, space: str | Mapping[str, str] | None = None, rows: str = "polars",
    inputs: Sequence[Source] | None = None, positive: Any = None, trust: bool = False, name: str = "",
    narrow_logits: bool = False, block: int = 4096,
) -> OutsidePredictor:
    """A teacher that is a fitted estimator or pipeline, or a file of one.

    Args:
        model: an object, or a path to a joblib or skops file; {head: object or path} where every head has its own.
        space: decides the method that is called: probability - predict_proba, logit - decision_function (a margin of an
            SVM is no logit: calibrate it first), value - predict.
        rows: how raw rows are handed over: polars, pandas, arrow, or numpy (objects [n, M] of the raw columns). The
            columns are those that the model was fitted on (`feature_names_in_`), or all raw columns for numpy.
        inputs: sources (see teachers.matrix) that become a matrix of numbers, instead of raw rows; for a model that was
            fitted on numbers. With rows="numpy", the raw columns in the model's order.
        positive: the class that means yes; needed where the classes are not 0 and 1.
        trust: a joblib or pickle file runs code when it is read: only with trust=True. A skops file is read without it
            as long as it holds nothing but types that skops knows to be harmless.
    Raises:
        DataError: an untrusted file; unknown classes, columns or methods; everything that OutsidePredictor refuses.
        MissingExtraError: scikit-learn or skops is not installed.
    """
    library("sklearn", "scikit-learn", "outside")
    spaces = spaces_of(space, split.heads)
    names = [head.name for head in split.heads]
    given = dict(model) if isinstance(model, Mapping) else None
    if given is not None and sorted(given) != sorted(names):
        raise DataError(problem(f"models are given for {', '.join(map(str, given))}", f"each of {', '.join(names)}"))
    if given is None and len(set(spaces)) > 1:
        raise DataError(problem("one model for heads of different spaces", "one method of a model answers all heads",
                                "give a model for every head: {" + ", ".join(f"{one}: ..." for one in names) + "}"))
    groups = [(head,) for head in split.heads] if given is not None else [split.heads]
    models = [_load(one, trust) for one in (given[head.name] for head in split.heads)] if given is not None \
        else [_load(model, trust)]
    methods = [METHODS[spaces_of(space, split.heads)[split.outputs.slices[group[0].name].start]] for group in groups]
    for one, method in zip(models, methods, strict=True):
        if not callable(getattr(one, method, None)):
            raise DataError(problem(f"{type(one).__name__} has no {method}",
                                    "probability - predict_proba, logit - decision_function, value - predict",
                                    "state the space of what the model can answer"))
    readers = [_reader(one, split, rows, inputs) for one in models]

    def score(batch: list[Any]) -> np.ndarray:
        parts = [_columns(_ask(one, method, table), one, method, group, positive)
                 for one, method, group, table in zip(models, methods, groups, batch, strict=True)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    path = Path(model) if isinstance(model, str | Path) else None
    return OutsidePredictor(
        score, split, space=space, rows=lambda split, chosen: [read(split, chosen) for read in readers],
        name=name or (path.stem if path else "sklearn"), parameters=sum(map(_count, models)), block=block,
        digest=digest_of(path, rows, inputs, repr(positive)), narrow_logits=narrow_logits,
    )


def _load(model: Any, trust: bool) -> Any:
    """The estimator itself, out of a file where it is one."""
    if not isinstance(model, str | Path):
        return model
    path = found(model, "a file of a fitted estimator", SUFFIXES)
    if path.suffix == ".skops":
        return _load_skops(path, trust)
    if not trust:
        raise DataError(problem(f"{path.name} is a pickle, and {RISK}", "a file that you made yourself or whose maker "
                                "you trust", "trust=True reads it all the same; better: convert it to ONNX (skl2onnx), "
                                "or save it with skops"))
    try:
        return library("joblib", "joblib (of scikit-learn)", "outside").load(path)
    except Exception as error:
        raise DataError(problem(f"{path.name} cannot be read ({type(error).__name__}: {error})", "a joblib file, made "
                                "with the same version of scikit-learn")) from error


def _load_skops(path: Path, trust: bool) -> Any:
    skops = library("skops.io", "skops", "outside")
    try:
        unknown = skops.get_untrusted_types(file=path)
    except Exception as error:
        raise DataError(problem(f"{path.name} cannot be read ({type(error).__name__}: {error})", "a skops file")) \
            from error
    if unknown and not trust:
        raise DataError(problem(f"{path.name} holds types that skops does not know to be harmless: "
                                f"{', '.join(unknown[:5])}; {RISK}", "a file of known types",
                                "trust=True reads it all the same"))
    return skops.load(path, trusted=unknown)


def _reader(model: Any, split: RowSplit, rows: str, inputs: Sequence[Source] | None) -> Any:
    """(split, rows) -> what the model is called with."""
    if rows not in FORMS:
        raise DataError(problem(f"rows in the form {rows!r}{nearest(rows, FORMS)}", ", ".join(FORMS)))
    if rows == "numpy":
        raw = list(inputs) if inputs is not None else split.raw.column_names
        check_sources(split, raw)

        def objects(split: RowSplit, chosen: np.ndarray) -> np.ndarray:
            out = np.empty((len(chosen), len(raw)), dtype=object)
            for place, values in enumerate(frame(split, chosen, "numpy", raw).values()):
                out[:, place] = values
            return out

        return objects
    if inputs is not None:
        return named_or_matrix(inputs)
    names = getattr(model, "feature_names_in_", None)
    if names is None:
        raise DataError(problem("the columns that the model was fitted on are not known: it has no feature_names_in_",
                                "a model fitted on a table with column names",
                                "give inputs: its columns in their order"))
    check_sources(split, [str(one) for one in names])
    return lambda split, chosen: frame(split, chosen, rows, [str(one) for one in names])


def _ask(model: Any, method: str, table: Any) -> Any:
    try:
        return getattr(model, method)(table)
    except (ValueError, TypeError, KeyError) as error:
        said = " ".join(str(error).split())[:200]
        raise DataError(problem(f"the {type(model).__name__} cannot answer rows ({said})",
                                "rows with the columns and types that it was fitted on",
                                "see rows and inputs; a missing number is NaN, a missing text None")) from error


def _columns(answer: Any, model: Any, method: str, heads: tuple[Head, ...], positive: Any) -> np.ndarray:
    """What a method answered as [n, columns of the heads]."""
    wanted = len(output_names(heads))
    classes = getattr(model, "classes_", None)
    if isinstance(answer, list):  # one [n, classes] per output, as MultiOutputClassifier and forests answer
        if len(answer) != wanted or classes is None:
            raise DataError(problem(f"{method} answered a list of {len(answer)}", f"one for each of {wanted} outputs"))
        return np.stack([_yes(one, known, positive) for one, known in zip(answer, classes, strict=True)], axis=1)
    answer = np.asarray(answer)
    if method == "predict_proba" and wanted == 1 and answer.ndim == 2:
        return _yes(answer, classes, positive)[:, None]
    if method == "decision_function" and wanted == 1 and classes is not None:
        place = _place(list(classes), positive)
        return (answer if place == 1 else -answer).reshape(len(answer), -1)
    if method == "predict_proba" and answer.ndim == 2 and np.allclose(answer.sum(axis=1), 1.0, atol=1e-6):
        raise DataError(problem(f"predict_proba answered {list(answer.shape)} whose rows sum to 1: classes of one head",
                                f"one probability for each of {', '.join(output_names(heads))}",
                                "give a model for every head, or one fitted on an indicator matrix"))
    return answer.reshape(len(answer), -1)


def _yes(answer: np.ndarray, classes: Any, positive: Any) -> np.ndarray:
    if classes is None or answer.shape[1] != len(classes):
        raise DataError(problem(f"predict_proba answered {answer.shape[1]} columns without classes to match",
                                "a classifier with classes_"))
    return answer[:, _place(list(classes), positive)]


def _place(classes: list[Any], positive: Any) -> int:
    """Which of the two classes means yes."""
    classes = [one.item() if isinstance(one, np.generic) else one for one in classes]
    if len(classes) != 2:
        raise DataError(problem(f"the model knows {len(classes)} classes: {', '.join(map(str, classes[:5]))}",
                                "two classes for a head that happens or not",
                                "fit it on both; for more classes give a model for every head"))
    named = [str(int(one)) if isinstance(one, bool | int) or one in (0.0, 1.0) else str(one) for one in classes]
    if positive is None and set(named) == {"0", "1"}:
        return named.index("1")
    if positive is None or positive not in classes:
        said = "which of them means yes is not said" if positive is None else f"{positive!r} is none of them"
        raise DataError(problem(f"the model's classes are {classes[0]!r} and {classes[1]!r}, and {said}",
                                "0 and 1, or a stated class", f"give positive={classes[1]!r}"))
    return classes.index(positive)


def _count(model: Any) -> int:
    """Numbers in the fitted arrays and trees of an estimator and of everything that it is made of."""
    seen: set[int] = set()

    def of(one: Any, depth: int) -> int:
        if id(one) in seen or depth > 12:
            return 0
        seen.add(id(one))
        if isinstance(one, np.ndarray):
            if one.dtype == object:
                return sum(of(inner, depth + 1) for inner in one.ravel())
            return one.size * len(one.dtype.names or (0,))
        if hasattr(one, "node_count") and hasattr(one, "value"):  # sklearn.tree._tree.Tree
            return int(2 * one.node_count + one.value.size)
        if hasattr(one, "nnz") and hasattr(one, "data"):
            return int(one.data.size)
        if isinstance(one, dict):
            return sum(of(inner, depth + 1) for inner in one.values())
        if isinstance(one, list | tuple):
            return sum(of(inner, depth + 1) for inner in one)
        if isinstance(one, float | np.number) and not isinstance(one, bool):
            return 0
        return of(vars(one), depth + 1) if hasattr(one, "__dict__") and not isinstance(one, type) else 0

    return of(model, 0)
