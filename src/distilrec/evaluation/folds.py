"""From the folds of a cross-validation to one document: means, spreads, and what a difference between models means.

Every row is tested once, by models that did not see it. Two things were drawn by chance, and each has an interval:

- whom the models were tested on (`of_units`): a paired bootstrap over users, requests or rows, that draws the same ones
  in every fold, because a user's rows lie in several. Metrics are averaged over folds, not computed on all rows
  together: scores of models trained apart are not on one scale (Forman and Scholz, SIGKDD Explorations 12, 2010).
- what they were trained on (`of_training`): a t test over the folds' differences. Any two folds share most of their
  training rows, so the plain test is too sure, and no estimate of its variance is free of bias (Bengio and Grandvalet,
  JMLR 5, 2004). The variance is therefore widened by n_test / n_train (Nadeau and Bengio, Machine Learning 52, 2003).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from distilrec.errors import DataError, problem
from distilrec.evaluation.pointwise import Ranked, Statistic
from distilrec.evaluation.row_significance import Sample, centered, compare_samples
from distilrec.evaluation.row_terms import Terms
from distilrec.files import read_json, write_json

__all__ = [
    "SCHEMA", "Asked", "corrected_t", "fold_samples", "folds_document", "read_folds", "validate_folds", "write_folds",
]

SCHEMA = 1
_CHUNK = 400_000  # weights held at a time

_Span = Annotated[list[float], Field(min_length=2, max_length=2)]
_Chance = Annotated[float, Field(ge=0, le=1)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class _Stats(_Strict):
    mean: float | None
    std: float | None  # over folds; not a standard error
    per_fold: list[float | None]


class _Model(_Strict):
    name: str
    role: str
    parameters: int | None
    bytes: int | None
    metrics: dict[str, _Stats]


class _Test(_Strict):
    interval: _Span
    p_value: _Chance
    n: int
    test: str


class _Difference(_Strict):
    a: str
    b: str
    metric: str
    difference: float
    per_fold: list[float]
    of_units: _Test | None  # null for baselines, which are measured by fold alone
    of_training: _Test


class _Document(_Strict):
    schema_version: Literal[1] = Field(alias="schema")
    kind: Literal["cross-validation"]
    task: Literal["rank", "predict", "tag"]
    recipe: str
    metric: str
    folds: Annotated[int, Field(ge=2)]
    seeds: list[int]
    dataset: dict[str, Any]
    protocol: dict[str, Any]
    models: list[_Model]
    comparisons: list[_Difference]
    notes: list[str]
    lineage: dict[str, Any]


class Asked(NamedTuple):
    """One trained model on the test part of one fold."""

    statistics: Mapping[str, Statistic]  # metric -> what can be asked again with other weights of the rows
    units: np.ndarray  # int64 [n]: whose row a row is, numbered over all folds together


def corrected_t(differences: Sequence[float], ratio: float, level: float = 0.95) -> tuple[tuple[float, float], float]:
    """(interval, two-sided p) of the mean difference over k folds (Nadeau and Bengio, Machine Learning 52, 2003).

    ratio: test rows / train rows of a fold. Raises DataError for fewer than two folds.

    >>> (low, high), p = corrected_t([0.1, 0.2, 0.3], 0.5)
    >>> round(low, 4), round(high, 4), round(p, 4)
    (-0.1928, 0.5928, 0.1598)
    """
    from scipy import stats

    d = np.asarray(differences, dtype=np.float64)
    if len(d) < 2:
        raise DataError(problem(f"{len(d)} folds", "at least two, to see a spread"))
    mean, error = float(d.mean()), float(d.std(ddof=1) * np.sqrt(1 / len(d) + ratio))
    if error == 0:
        return (mean, mean), 1.0 if mean == 0 else 0.0
    half = float(stats.t.ppf((1 + level) / 2, len(d) - 1)) * error
    return (mean - half, mean + half), float(2 * stats.t.sf(abs(mean) / error, len(d) - 1))


def fold_samples(
    models: Mapping[str, Sequence[Sequence[Asked]]], *, unit: str, resamples: int = 1000, seed: int = 0
) -> dict[str, dict[str, Sample]]:
    """Every metric of every model, averaged over folds and seeds, on all units and on resamples of them.

    models: name -> for each fold, for each training seed, what it said. Each draw takes as many units as there are
    with replacement, the same for every model and fold.
    """
    size = 1 + max((int(one.units.max(initial=-1)) for folds in models.values() for seeds in folds for one in seeds),
                   default=-1)
    if size == 0:
        raise DataError(problem("no rows to compare on", "at least one test row in a fold"))
    asked = {name: [[_by_unit(one, size) for one in seeds] for seeds in folds] for name, folds in models.items()}
    # a metric that is missing for one instance is not averaged over the others
    metrics = {name: [m for m in folds[0][0] if all(m in one for seeds in folds for one in seeds)]
               for name, folds in asked.items()}
    draws = {name: {m: np.empty(resamples) for m in metrics[name]} for name in asked}
    rng = np.random.default_rng(seed)
    longest = max(len(one.units) for folds in models.values() for seeds in folds for one in seeds)
    step = max(1, _CHUNK // max(size, longest))
    for start in range(0, resamples, step):
        block = slice(start, min(start + step, resamples))
        counts = np.stack([np.bincount(rng.integers(0, size, size, dtype=np.int32), minlength=size)
                           for _ in range(block.start, block.stop)]).astype(np.float64)
        for name, folds in asked.items():
            for m in metrics[name]:
                draws[name][m][block] = _mean_of(folds, m, counts)
    values = {name: {m: float(_mean_of(folds, m, None)) for m in metrics[name]} for name, folds in asked.items()}
    return {name: {m: Sample(value, centered(m, value, draws[name][m]), size, unit) for m, value in of.items()}
            for name, of in values.items()}


def folds_document(
    reports: Sequence[Mapping[str, Any]], samples: Mapping[str, Mapping[str, Sample]], *, recipe: str,
    protocol: Mapping[str, Any], lineage: Mapping[str, Any],
) -> dict[str, Any]:
    """The document of a cross-validation, checked, from the report of each fold and the samples of `fold_samples`.

    Raises DataError for reports of other models, metrics or tasks.
    """
    first = reports[0]
    names = [[model["name"] for model in report["models"]] for report in reports]
    for i, report in enumerate(reports):
        if names[i] != names[0] or report["metric"] != first["metric"] or report["task"] != first["task"]:
            raise DataError(problem(f"fold {i} measured {', '.join(names[i])} by {report['metric']}",
                                    f"{', '.join(names[0])} by {first['metric']}, as fold 0", "run that fold again"))
    parts = [report["dataset"]["parts"] for report in reports]
    ratio = float(np.mean([one["test"] / one["train"] for one in parts]))
    models = {name: _model(name, reports) for name in names[0]}
    document: dict[str, Any] = {
        "schema": SCHEMA, "kind": "cross-validation", "task": first["task"], "recipe": recipe,
        "metric": first["metric"], "folds": len(reports), "seeds": list(first["protocol"]["seeds"]),
        "dataset": {"name": first["dataset"]["name"], "interactions": first["dataset"]["interactions"],
                    "users": first["dataset"]["users"], "items": first["dataset"]["items"], "parts": parts},
        "protocol": {**protocol, "test_rows_per_train_row": ratio},
        "models": list(models.values()),
        "comparisons": [entry for c in first["comparisons"]
                        if (entry := _difference(c["a"], c["b"], c["metric"], models, samples, ratio)) is not None],
        "notes": list(dict.fromkeys(note for report in reports for note in report.get("notes", ()))),
        "lineage": dict(lineage),
    }
    validate_folds(document)
    return document


def validate_folds(document: Any) -> None:
    """Raise DataError with every fault of a document of a cross-validation, each with its place, or return."""
    try:
        _Document.model_validate(document)
    except ValidationError as error:
        lines = [f"    {'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors(include_url=False)]
        raise DataError(problem(f"{len(lines)} fault(s) in the cross-validation:\n" + "\n".join(lines),
                                f"a document of schema {SCHEMA}", "run `distilrec cross-validate` again")) from error


def write_folds(document: Mapping[str, Any], path: str | Path) -> Path:
    """Check the document, then write it atomically."""
    validate_folds(document)
    write_json(path, document)
    return Path(path)


def read_folds(path: str | Path) -> dict[str, Any]:
    """The document at `path`. Raises DataError if it is missing, not JSON, of another schema version, or faulty."""
    try:
        document: dict[str, Any] = read_json(path)
    except FileNotFoundError:
        raise DataError(problem(f"no cross-validation at {path}", "a crossval.json",
                                "run `distilrec cross-validate` first")) from None
    validate_folds(document)
    return document


def _by_unit(asked: Asked, size: int) -> dict[str, Statistic]:
    """The statistics, to be asked with a weight for each unit [size]."""
    out: dict[str, Statistic] = {}
    for name, one in asked.statistics.items():
        if isinstance(one, Ranked):
            out[name] = one.through(asked.units)
        else:
            sums = np.stack([np.bincount(asked.units, column, size) for column in one.sums.T], axis=1)
            out[name] = Terms(sums, one.finish)
    return out


def _mean_of(folds: Sequence[Sequence[Mapping[str, Statistic]]], metric: str, counts: np.ndarray | None) -> np.ndarray:
    values = [np.mean([one[metric].of(counts if counts is not None else None) for one in seeds], axis=0)
              for seeds in folds]
    return np.asarray(np.mean(values, axis=0))


def _model(name: str, reports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    entries = [next(model for model in report["models"] if model["name"] == name) for report in reports]
    metrics = {}
    for metric in entries[0]["metrics"]["test"]:
        values = [entry["metrics"]["test"].get(metric, {}).get("mean") for entry in entries]
        known = None not in values
        metrics[metric] = {"mean": float(np.mean(values)) if known else None,
                           "std": float(np.std(values, ddof=1)) if known and len(values) > 1 else None,
                           "per_fold": [None if value is None else float(value) for value in values]}
    return {"name": name, "role": entries[0]["role"], "parameters": entries[0]["parameters"],
            "bytes": entries[0]["bytes"], "metrics": metrics}


def _difference(
    a: str, b: str, metric: str, models: Mapping[str, Any], samples: Mapping[str, Mapping[str, Sample]], ratio: float
) -> dict[str, Any] | None:
    """a minus b; None where a fold does not define the metric."""
    one, other = (models[name]["metrics"].get(metric, {}).get("per_fold", [None]) for name in (a, b))
    if None in one or None in other:
        return None
    differences = [x - y for x, y in zip(one, other, strict=True)]
    interval, p = corrected_t(differences, ratio)
    pooled = None
    if metric in samples.get(a, {}) and metric in samples.get(b, {}):
        found = compare_samples(samples[a][metric], samples[b][metric])
        pooled = {"interval": list(found.interval), "p_value": found.p_value, "n": found.n,
                  "test": f"{found.test}, the same in every fold"}
    return {
        "a": a, "b": b, "metric": metric, "difference": float(np.mean(differences)), "per_fold": differences,
        "of_units": pooled,
        "of_training": {"interval": list(interval), "p_value": p, "n": len(differences),
                        "test": "t test over folds with the variance of Nadeau and Bengio (2003)"},
    }
