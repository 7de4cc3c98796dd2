"""All models of a predict or tag run under one protocol: answer the test rows, once, with costs, and report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from distilrec.errors import DataError, nearest, problem
from distilrec.evaluation.contest import Report
from distilrec.evaluation.cost import bundle_bytes, bundle_parameters, row_latency
from distilrec.evaluation.pointwise import (
    NEUTRAL,
    UNWEIGHTED,
    base_name,
    calibration_curve,
    check_rows,
    choose_thresholds,
    evaluate_classes,
    evaluate_rows,
    metric_names,
    probability,
)
from distilrec.evaluation.report import ModelResult, build_report
from distilrec.evaluation.row_significance import Sample, compare_samples, row_samples
from distilrec.evaluation.row_slices import slices_of
from distilrec.evaluation.significance import Comparison
from distilrec.progress import track
from distilrec.types import Task
from distilrec.types_rows import RowSplit

__all__ = ["RowContestant", "row_contest", "row_facts"]


@dataclass(frozen=True, eq=False)
class RowContestant:
    """One model of a run with one trained instance per seed (a baseline has one, which stands for every seed).

    An instance is a Predictor, or a RowBundle: then the thing that is served is measured itself.
    """

    name: str
    role: str
    instances: Sequence[Any]
    valid: Mapping[str, Sequence[float]] = field(default_factory=dict)
    train_seconds: float | None = None
    curves: Sequence[Mapping[str, Any]] = ()
    timed: Any = None  # the bundle that latency is measured on where the instances are none


@dataclass(frozen=True, eq=False)
class _Test:
    """What every contestant is measured on."""

    split: RowSplit
    rows: np.ndarray
    labels: np.ndarray
    groups: np.ndarray | None
    weights: np.ndarray | None
    slices: dict[str, np.ndarray]
    k: Sequence[int]
    resamples: int
    requests: int


def row_contest(
    contestants: Sequence[RowContestant], split: RowSplit, *, metric: str, seeds: Sequence[int] = (0,),
    recipe: str | dict[str, Any] | None = None, lineage: Mapping[str, Any] | None = None, slices: Sequence[str] = (),
    k: Sequence[int] = (1, 3, 5), resamples: int = 1000, requests: int = 500,
) -> Report:
    """Read the test part, once, and report on every contestant. Thresholds are chosen on the validation part.

    metric: the main metric, `[head.]metric[@k]` (see `pointwise.metric_names`).
    slices: raw columns by whose values the metrics are given too, see `row_slices.slices_of`.
    Raises:
        DataError: no test rows, an unknown metric or slice, a contestant with neither one instance nor one per seed,
            answers that are not finite, a bundle of other features or heads.
    """
    rows = split.rows("test")
    known = metric_names(split.heads, split.groups is not None, k)
    if len(rows) == 0:
        raise DataError(problem("the split has no test rows", "at least one row",
                                "look at the counts that `distilrec prepare` printed"))
    if metric not in known or base_name(metric) in NEUTRAL:
        possible = [name for name in known if base_name(name) not in NEUTRAL]
        raise DataError(problem(f"main metric {metric!r}{nearest(metric, possible)}", f"one of {', '.join(possible)}"))
    for one in contestants:
        if len(one.instances) not in (1, len(seeds)):
            raise DataError(problem(f"{one.name!r} has {len(one.instances)} instances",
                                    f"one, or one for each of {len(seeds)} seeds"))
    test = _Test(split, rows, split.label_matrix(rows), None if split.groups is None else split.groups[rows],
                 _weights(split, rows), slices_of(split, rows, slices), k, resamples, requests)
    results: list[ModelResult] = []
    samples: dict[str, dict[str, Sample]] = {}
    notes = _notes_on(test)
    with track(sum(len(one.instances) for one in contestants), "evaluating") as progress:
        for one in contestants:
            result, samples[one.name] = _result(one, test, metric, len(seeds), notes, progress)
            results.append(result)

    def comparer(a: str, b: str, name: str) -> Comparison | None:
        if np.isnan(samples[a][name].value) or np.isnan(samples[b][name].value):
            return None
        return compare_samples(samples[a][name], samples[b][name])

    protocol: dict[str, Any] = {"split": split.method, "selection": "validation", "seeds": list(seeds)}
    if any(head.kind != "number" for head in split.heads):
        protocol["thresholds"] = "highest F1 on the validation part, for each model and seed"
    if split.weights is not None:
        without = [name for name in known if base_name(name) in UNWEIGHTED]
        protocol["weights"] = "rows count by their weight" + (f", but for {', '.join(without)}" if without else "")
    if any(head.kind == "tags" for head in split.heads):
        protocol["k"] = list(k)
    task: Task = "tag" if all(head.kind == "tags" for head in split.heads) else "predict"
    return Report(build_report(
        task=task, recipe=recipe, dataset=row_facts(split, test.slices), protocol=protocol, models=results,
        metric=metric, metrics=known, comparer=comparer, notes=notes,
        lineage={"split_digest": split.digest, **(lineage or {})},
    ))


def row_facts(split: RowSplit, slices: Mapping[str, np.ndarray] | None = None) -> dict[str, Any]:
    """The "dataset" entry of a report: users are groups, interactions rows; base rates are of the test part, weighted
    where its rows are."""
    rows = split.rows("test")
    weights = np.ones(len(rows)) if split.weights is None else split.weights[rows].astype(np.float64)
    heads: dict[str, dict[str, Any]] = {}
    for head in split.heads:
        labels = split.labels[head.name][rows]
        seen = ~np.isnan(labels)
        counts = np.where(seen, weights[:, None], 0.0)
        totals, sizes = (np.nan_to_num(labels) * counts).sum(axis=0), counts.sum(axis=0)
        mean = float(totals.sum() / sizes.sum()) if sizes.any() else None
        heads[head.name] = {"kind": head.kind, "mean" if head.kind == "number" else "base_rate": mean,
                            "observed": int(seen.any(axis=1).sum())}
        if head.kind == "tags":
            heads[head.name]["classes"] = {
                name: float(totals[c] / sizes[c]) if sizes[c] else None
                for c, name in enumerate(head.classes)}
    return {
        "name": split.name, "digest": split.digest, "items": 0, "interactions": len(split),
        "users": 0 if split.groups is None else len(np.unique(split.groups)),
        "unit": "rows" if split.groups is None else "groups",
        "parts": {part: split.n_rows(part) for part in ("train", "valid", "test")}, "heads": heads,
        "slices": {name: int(inside.sum()) for name, inside in (slices or {}).items()},
    }


def _result(
    one: RowContestant, test: _Test, metric: str, n_seeds: int, notes: list[str], progress: Any
) -> tuple[ModelResult, dict[str, Sample]]:
    split, heads = test.split, test.split.heads
    valid_rows = split.rows("valid")
    valid_labels = split.label_matrix(valid_rows)
    answers, thresholds, on_valid, on_test, grouped = [], [], [], [], []
    for instance in one.instances:
        if len(valid_rows):
            before = _answers(instance, split, valid_rows, one.name)
            on_rows = _weights(split, valid_rows)
            chosen = choose_thresholds(before, valid_labels, heads, weights=on_rows)
            groups = None if split.groups is None else split.groups[valid_rows]
            on_valid.append(evaluate_rows(before, valid_labels, groups, heads, chosen, k=test.k, weights=on_rows))
        else:  # without validation rows nothing can be chosen: one half
            chosen = {head.name: 0.0 for head in heads if head.kind != "number"}
        found = _answers(instance, split, test.rows, one.name)
        on_test.append(evaluate_rows(found, test.labels, test.groups, heads, chosen, k=test.k, weights=test.weights))
        grouped.append(_tables(found, test, chosen))
        answers.append(found)
        thresholds.append(chosen)
        progress.advance(1, model=one.name)
    samples = row_samples(np.stack(answers), test.labels, test.groups, heads, thresholds, k=test.k,
                          resamples=test.resamples, weights=test.weights)
    repeat = n_seeds if len(answers) == 1 else 1  # a baseline is the same for every seed
    columns = {name: np.array([[values[name]] for values in on_test] * repeat) for name in on_test[0]}
    served, path, milliseconds = _served(one), getattr(_served(one), "path", None), None
    if served is not None:
        try:
            milliseconds = row_latency(served, split, test.rows, requests=test.requests)
        except DataError as error:  # a report without one number is better than none, but it says so
            notes.append(f"The latency of {one.name} was not measured: {error}")
    valid = {name: [values[name] for values in on_valid] * repeat for name in (on_valid[0] if on_valid else {})}
    valid |= {name: list(v) * (n_seeds if len(v) == 1 else 1) for name, v in one.valid.items()}
    defined = {name for name, values in columns.items() if not np.isnan(values).any()}
    result = ModelResult(
        one.name, one.role, {name: values for name, values in columns.items() if name in defined or name == metric},
        parameters=bundle_parameters(path) if path is not None else getattr(one.instances[0], "parameters", None),
        bytes=bundle_bytes(path) if path is not None else None, train_seconds=one.train_seconds,
        latency_ms=milliseconds, curves=one.curves, calibration=_curves(np.stack(answers), test),
        valid={name: values for name, values in valid.items() if not np.isnan(values).any()},
        groups={name: {m: np.array([[g[name][m]] for g in grouped] * repeat) for m in grouped[0][name]}
                for name in grouped[0]},
        intervals={name: (max(0.0, span[0]) if base_name(name) == "calibration_error" else span[0], span[1])
                   for name in defined if (span := samples[name].interval()) is not None},
        thresholds={name: [float(p) for p in np.atleast_1d(probability(np.mean([c[name] for c in thresholds], axis=0)))]
                    for name in thresholds[0]},
    )
    return result, samples


def _answers(instance: Any, split: RowSplit, rows: np.ndarray, name: str) -> np.ndarray:
    """float32 [n, O]. A bundle is asked itself, the thing that is served."""
    if not hasattr(instance, "scores"):
        found = instance.predict(split, rows)
    else:
        other = [one.name for one in instance.features if split.features.get(one.name) != one]
        if other or [(h.name, h.columns) for h in instance.heads] != [(h.name, h.columns) for h in split.heads]:
            what = f"features {', '.join(other)}" if other else "heads"
            raise DataError(problem(f"the bundle of {name!r} has other {what} than the table", "a bundle of this split",
                                    "export the student of this run"))
        found = instance.scores({one.name: split.columns[one.name][rows] for one in instance.features})
    check_rows(found, split.label_matrix(rows), None, split.heads, repr(name))
    return np.asarray(found)


def _weights(split: RowSplit, rows: np.ndarray) -> np.ndarray | None:
    return None if split.weights is None else split.weights[rows]


def _served(one: RowContestant) -> Any:
    """The bundle that latency and size are of, if there is one."""
    return one.timed or next((instance for instance in one.instances if hasattr(instance, "scores")), None)


def _tables(answers: np.ndarray, test: _Test, thresholds: Mapping[str, Any]) -> dict[str, dict[str, float]]:
    """The metrics of every slice and of every class of tags."""
    heads, tables = test.split.heads, {}
    for name, inside in test.slices.items():
        groups = None if test.groups is None else test.groups[inside]
        weights = None if test.weights is None else test.weights[inside]
        tables[name] = evaluate_rows(answers[inside], test.labels[inside], groups, heads, thresholds, k=test.k,
                                     weights=weights)
    return tables | evaluate_classes(answers, test.labels, heads, thresholds, test.weights)


def _curves(answers: np.ndarray, test: _Test) -> dict[str, list[dict[str, float]]]:
    """The calibration curve of each head over all seeds together; a bin's rows are those of one seed."""
    curves: dict[str, list[dict[str, float]]] = {}
    for head in test.split.heads:
        place = test.split.outputs.slices[head.name]
        values = answers[:, :, place] if head.kind == "number" else probability(answers[:, :, place])
        weights = None if test.weights is None else np.broadcast_to(test.weights[:, None], values.shape)
        bins = calibration_curve(values, np.broadcast_to(test.labels[:, place], values.shape), weights=weights)
        if bins:
            curves[head.name] = [{**one, "rows": round(one["rows"] / len(answers))} for one in bins]
    return curves


def _notes_on(test: _Test) -> list[str]:
    """What the labels of the test part do not define, whatever the model."""
    heads, notes = test.split.heads, []
    found = evaluate_rows(np.zeros_like(test.labels), test.labels, test.groups, heads, {
        head.name: 0.0 for head in heads if head.kind != "number"}, k=test.k, weights=test.weights)
    undefined = [name for name, value in found.items() if np.isnan(value)]
    if undefined:
        notes.append(f"{len(undefined)} metrics are not defined on the test part, whose labels are of one class or "
                     f"not observed: {', '.join(undefined)}.")
    for head in heads:
        if head.kind != "binary" or test.groups is None:
            continue
        y = test.labels[:, test.split.outputs.slices[head.name].start]
        seen = ~np.isnan(y)
        names, inverse = np.unique(test.groups[seen], return_inverse=True)
        share = np.bincount(inverse, y[seen], len(names)) / np.maximum(np.bincount(inverse, minlength=len(names)), 1)
        single = int(((share == 0) | (share == 1)).sum())
        if single:
            notes.append(f"GAUC and UAUC of {head.name} leave out {single:,} of {len(names):,} groups, whose labels "
                         "are of one class.")
    if not test.split.n_rows("valid"):
        notes.append("There are no validation rows: thresholds are a probability of one half.")
    return notes
