"""From ranked lists and costs to the one document that a run leaves behind (report.json)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from distilrec.errors import DataError, problem
from distilrec.evaluation.catalog import evaluate_catalog
from distilrec.evaluation.doubts import below_popularity
from distilrec.evaluation.metrics import evaluate_groups, evaluate_lists
from distilrec.evaluation.pointwise import CHANCE, base_name
from distilrec.evaluation.schema import ROLES, SCHEMA, read_report, validate_report, write_report
from distilrec.evaluation.significance import Comparison, compare
from distilrec.evaluation.verdict import decide, gain, gap_closed, is_lower_better
from distilrec.types import Recommendations, Split, Task

__all__ = [
    "ModelResult", "build_report", "dataset_facts", "measure", "read_report", "validate_report", "write_report",
]


@dataclass(frozen=True, eq=False)
class ModelResult:
    """One model of a run, over all its seeds.

    Arrays of the test part hold one value per (seed, query). A metric that is no mean over queries (the AUC of rows)
    has one column, its value; NaN there means that the test part does not define it.
    """

    name: str
    role: str  # one of schema.ROLES
    test: Mapping[str, np.ndarray]  # metric@k -> float64 [S, Q], NaN where a query has no target
    parameters: int | None = None  # every number that is read to answer
    bytes: int | None = None  # on disk, as shipped
    train_seconds: float | None = None  # of one seed
    latency_ms: Mapping[str, float] | None = None  # p50, p99 of one request on one core
    valid: Mapping[str, Sequence[float]] = field(default_factory=dict)  # metric@k -> one mean per seed
    groups: Mapping[str, Mapping[str, np.ndarray]] = field(default_factory=dict)  # head, tail -> as `test`
    catalog: Mapping[str, Sequence[float]] = field(default_factory=dict)  # coverage@k, ... -> one value per seed
    curves: Sequence[Mapping[str, Any]] = ()  # {seed, step, seconds, loss, valid}
    control: str | None = None  # of a student: the name of its control; None takes the best one on validation
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)  # metric -> 95 % interval of its mean
    calibration: Mapping[str, Sequence[Mapping[str, float]]] = field(default_factory=dict)  # head -> bins of its curve
    thresholds: Mapping[str, Sequence[float]] = field(default_factory=dict)  # head -> probability, of each class


def measure(
    name: str,
    role: str,
    lists: Sequence[Recommendations],
    split: Split,
    *,
    k: Sequence[int] = (10, 20),
    vectors: np.ndarray | None = None,
    valid: Mapping[str, Sequence[float]] | None = None,
    parameters: int | None = None,
    bytes: int | None = None,  # noqa: A002, the report's own word
    train_seconds: float | None = None,
    latency_ms: Mapping[str, float] | None = None,
    curves: Sequence[Mapping[str, Any]] = (),
    control: str | None = None,
) -> ModelResult:
    """Every metric of one model from its test lists, one `Recommendations` per seed.

    vectors: [I, D] item content for diversity; by default items are alike if the same train users took them.
    The rest goes into the result as it is. Raises DataError for lists of other queries than the test part's.
    """
    each = [evaluate_lists(one, split, "test", k) for one in lists]
    grouped = [evaluate_groups(one, split, "test", k) for one in lists]
    whole = [evaluate_catalog(one, split, k, vectors) for one in lists]
    if not each:
        raise DataError(problem(f"model {name!r} has no recommendations", "one per seed", "rank the test part first"))
    return ModelResult(
        name, role,
        {metric: np.stack([values[metric] for values in each]) for metric in each[0]},
        parameters, bytes, train_seconds, latency_ms, valid or {},
        {group: {m: np.stack([g[group][m] for g in grouped]) for m in grouped[0][group]} for group in grouped[0]},
        {metric: [values[metric] for values in whole] for metric in whole[0] if all(metric in v for v in whole)},
        curves, control,
    )


def dataset_facts(split: Split) -> dict[str, Any]:
    """The "dataset" entry of a report."""
    dataset = split.dataset
    return {
        "name": dataset.name, "digest": dataset.digest, "users": dataset.n_users, "items": dataset.n_items,
        "interactions": len(dataset.interactions),
        "parts": {part: split.n_events(part) for part in ("train", "valid", "test")},
    }


def build_report(
    *,
    task: Task,
    recipe: str | dict[str, Any] | None,
    dataset: Mapping[str, Any],
    protocol: Mapping[str, Any],
    models: Sequence[ModelResult],
    metric: str,
    lineage: Mapping[str, Any],
    metrics: Sequence[str] | None = None,
    resamples: int = 10_000,
    comparer: Callable[[str, str, str], Comparison | None] | None = None,
    notes: Sequence[str] = (),
) -> dict[str, Any]:
    """The report of a run, checked against its schema.

    metric: the recipe's main metric ("ndcg@10"); the verdict and the gap closed read nothing else.
    metrics: what students are compared by with teachers and baselines, and teachers with controls (default: the main
        metric). A student is compared with its control by every metric of both.
    comparer: how two models (by name) are compared by a metric, None where it is not defined; by default query by
        query from `ModelResult.test`.
    notes: what a reader of the numbers must know.
    Raises DataError for unknown roles, a missing main metric, models measured on different users, or a student
    that names a control which is not there.
    """
    _check_models(models, metric)
    teacher = _best([m for m in models if m.role == "teacher"], metric)
    pairs = _pairs(models, metric)
    wanted = dict.fromkeys([metric, *(metrics or ())])
    comparisons: list[dict[str, Any]] = []
    on_main: dict[tuple[str, str], Comparison] = {}
    for a, b, everything in pairs:
        shared = [name for name in a.test if name in b.test and (everything or name in wanted)]
        for name in sorted(shared, key=lambda one: one != metric):
            result = compare(a.test[name], b.test[name], resamples=resamples) if comparer is None else (
                comparer(a.name, b.name, name))
            if result is None:
                continue
            comparisons.append(_comparison_entry(a.name, b.name, name, result))
            if name == metric:
                on_main[a.name, b.name] = result
    report: dict[str, Any] = {
        "schema": SCHEMA, "task": task, "recipe": recipe, "dataset": dict(dataset), "protocol": dict(protocol),
        "metric": metric,
        "models": [_model_entry(one, teacher, _control_of(one, models, metric), on_main, metric) for one in models],
        "comparisons": comparisons, "lineage": dict(lineage),
    }
    for one in report["models"]:  # beside a control that is worse than popularity whoever is better shows nothing
        if one["verdict"] == "distill" and below_popularity(report, one, metric) is not None:
            one["verdict"] = "undecided"
    if notes:
        report["notes"] = list(notes)
    validate_report(report)
    return report


def _pairs(models: Sequence[ModelResult], metric: str) -> list[tuple[ModelResult, ModelResult, bool]]:
    """(a, b, by every metric): student - control first, for it decides; then student - teacher, teacher - control,
    student - baselines, teacher - its members."""
    students = [m for m in models if m.role == "student"]
    teachers = [m for m in models if m.role == "teacher"]
    controls = {s.name: _control_of(s, models, metric) for s in students}
    pairs = [(s, c, True) for s in students if (c := controls[s.name]) is not None]
    others = [(s, m) for s in students for m in models if m.role == "control" and m is not controls[s.name]]
    pairs += [(s, m, False) for s, m in others]
    pairs += [(s, t, False) for s in students for t in teachers]
    pairs += [(t, c, False) for t in teachers for c in models if c.role == "control"]
    pairs += [(s, b, False) for s in students for b in models if b.role in ("baseline", "fusion", "compressed")]
    pairs += [(t, m, False) for t in teachers for m in models if m.role == "member"]
    return pairs


def _control_of(model: ModelResult, models: Sequence[ModelResult], metric: str) -> ModelResult | None:
    if model.role != "student":
        return None
    controls = [m for m in models if m.role == "control"]
    if model.control is None:
        return _best(controls, metric)
    for control in controls:
        if control.name == model.control:
            return control
    raise DataError(problem(
        f"student {model.name!r} names control {model.control!r}",
        f"one of {', '.join(repr(c.name) for c in controls) or 'no control at all'}", "measure that control too",
    ))


def _best(models: Sequence[ModelResult], metric: str) -> ModelResult | None:
    """The best on validation (never on test), the first of equals; without validation numbers the first."""
    def quality(model: ModelResult) -> float:
        sign = -1 if is_lower_better(metric) else 1
        return sign * float(np.mean(model.valid[metric])) if len(model.valid.get(metric, ())) else -np.inf
    return max(models, key=quality, default=None)


def _model_entry(
    model: ModelResult,
    teacher: ModelResult | None,
    control: ModelResult | None,
    on_main: Mapping[tuple[str, str], Comparison],
    metric: str,
) -> dict[str, Any]:
    decided = on_main.get((model.name, control.name)) if control is not None else None
    lead = on_main.get((teacher.name, control.name)) if teacher is not None and control is not None else None
    test = {name: _stats([_mean(seed) for seed in values]) for name, values in model.test.items()}
    for name, interval in model.intervals.items():
        test[name]["interval"] = list(interval)
    entry: dict[str, Any] = {
        "name": model.name,
        "role": model.role,
        "parameters": model.parameters,
        "bytes": model.bytes,
        "compression_ratio": teacher.parameters / model.parameters
        if teacher is not None and teacher.parameters and model.parameters else None,
        "train_seconds": model.train_seconds,
        "latency_ms": None if model.latency_ms is None else dict(model.latency_ms),
        "metrics": {
            "test": {**test, **{name: _stats(values) for name, values in model.catalog.items()}},
            "valid": {name: _stats(values) for name, values in model.valid.items()},
        },
        "groups": {
            group: {name: _stats([_mean(seed) for seed in values]) for name, values in metrics.items()
                    if not np.isnan(values).all()}
            for group, metrics in model.groups.items()
        },
        "gap_closed": gap_closed(decided.mean_a, decided.mean_b, lead, metric) if decided and lead else None,
        "verdict": decide(decided, metric) if decided else None,
    }
    if control is not None:
        entry["control"] = control.name
    if model.curves:
        entry["curves"] = [dict(point) for point in model.curves]
    if model.thresholds:
        entry["thresholds"] = {head: list(values) for head, values in model.thresholds.items()}
    if model.calibration:
        entry["calibration"] = {head: [dict(one) for one in bins] for head, bins in model.calibration.items()}
    return entry


def _comparison_entry(a: str, b: str, metric: str, result: Comparison) -> dict[str, Any]:
    relative, gained = result.relative_interval, gain(result, metric)
    entry: dict[str, Any] = {
        "a": a, "b": b, "metric": metric, "difference": result.difference, "interval": list(result.interval),
        "p_value": result.p_value, "n": result.n, "test": result.test,
        "relative": result.relative, "relative_interval": None if relative is None else list(relative),
    }
    if is_lower_better(metric) or base_name(metric) in CHANCE:  # elsewhere the gain is the relative difference
        entry |= {"gain": gained and gained[0], "gain_interval": gained and list(gained[1])}
    return entry


def _mean(values: np.ndarray) -> float:
    return float(np.nanmean(values)) if values.shape != (1,) else float(values[0])


def _stats(per_seed: Sequence[float]) -> dict[str, Any]:
    """One seed has no spread: its std is null, not 0. What is not defined is null too."""
    values = [float(value) for value in per_seed]
    if np.isnan(values).any():
        return {"mean": None, "std": None, "per_seed": [None if np.isnan(value) else value for value in values]}
    spread = float(np.std(values, ddof=1)) if len(values) > 1 else None
    return {"mean": float(np.mean(values)), "std": spread, "per_seed": values}


def _check_models(models: Sequence[ModelResult], metric: str) -> None:
    queries: dict[int, str] = {}
    for model in models:
        if model.role not in ROLES:
            raise DataError(problem(f"model {model.name!r} has role {model.role!r}", ", ".join(ROLES)))
        if metric not in model.test:
            raise DataError(problem(
                f"model {model.name!r} was not measured by {metric!r}", "the main metric for every model",
                f"measured were {', '.join(model.test)}",
            ))
        for name, values in model.test.items():
            if values.ndim != 2:
                raise DataError(problem(f"{model.name!r}, {name}: shape {values.shape}", "[seeds, queries]"))
            queries.setdefault(values.shape[1], model.name)
    if len(queries) > 1:
        raise DataError(problem(
            "models measured on different users: " + ", ".join(f"{name!r} on {n}" for n, name in queries.items()),
            "the same queries for all", "rank the same split with every model",
        ))
