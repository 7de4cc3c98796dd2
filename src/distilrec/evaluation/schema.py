"""The form of report.json: checked when it is written and when it is read, all faults at once."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from distilrec.errors import DataError, nearest, problem
from distilrec.files import read_json, write_json

__all__ = ["ROLES", "SCHEMA", "read_report", "validate_report", "write_report"]

SCHEMA = 1
ROLES = ("teacher", "member", "student", "control", "baseline", "fusion", "compressed")

_METRIC = re.compile(r"([^\W\d][\w -]*\.)?[a-z][a-z0-9_]*(@[1-9][0-9]*)?")

# How a shape reads: a type; a frozenset of allowed values; None for null; a tuple of alternatives; [shape] for a list;
# {"key": shape} for an object ("?key" may be absent, "..." allows further keys), {"*": shape} for any keys,
# {"@": shape} for keys that are metric names.
_NUMBER = (float, int)
_MAYBE = (float, int, None)
_STATS = {"mean": _MAYBE, "std": _MAYBE, "per_seed": [_MAYBE], "?interval": [_NUMBER]}  # null: not defined
_BIN = {"prediction": _NUMBER, "label": _NUMBER, "rows": int}
_LATENCY = {
    "p50": _NUMBER, "p99": _NUMBER, "?cpu_p50": _NUMBER, "?cpu_p99": _NUMBER,
    "?of_100": {"p50": _NUMBER, "p99": _NUMBER, "cpu_p50": _NUMBER, "cpu_p99": _NUMBER},  # a request of 100 candidates
}
_CURVE = {"seed": int, "step": int, "seconds": _NUMBER, "loss": _MAYBE, "valid": _MAYBE, "?metric": str}
_MODEL = {
    "name": str,
    "role": frozenset(ROLES),
    "parameters": (int, None),
    "bytes": (int, None),
    "?compression_ratio": _MAYBE,
    "train_seconds": _MAYBE,
    "latency_ms": (_LATENCY, None),
    "metrics": {"test": {"@": _STATS}, "valid": {"@": _STATS}},
    "groups": {"*": {"@": _STATS}},
    "gap_closed": _MAYBE,
    "verdict": frozenset({"distill", "do not distill", "undecided", None}),
    "?control": (str, None),
    "?curves": [_CURVE],
    "?calibration": {"*": [_BIN]},  # head -> bins by rising prediction
    "?thresholds": {"*": [_NUMBER]},  # head -> probability from which on it counts as given, for each class
}
_COMPARISON = {
    "a": str, "b": str, "metric": str, "difference": _NUMBER, "interval": [_NUMBER], "p_value": _NUMBER, "n": int,
    "test": str, "?relative": _MAYBE, "?relative_interval": ([_NUMBER], None),
    "?gain": _MAYBE, "?gain_interval": ([_NUMBER], None),  # share of b's room, positive where a is better
}
_REPORT = {
    "schema": frozenset({SCHEMA}),
    "task": frozenset({"rank", "predict", "tag", "write"}),
    "recipe": (str, dict, None),
    "dataset": {"name": str, "digest": str, "users": int, "items": int, "interactions": int, "...": None},
    "protocol": {
        "split": str, "?candidates": (str, dict), "selection": frozenset({"validation"}), "seeds": [int], "?k": [int],
        "?seen": frozenset({"drop", "keep"}), "...": None,
    },
    "metric": str,
    "models": [_MODEL],
    "comparisons": [_COMPARISON],
    "lineage": dict,
    "?notes": [str],
}
_OF_RANKING = ("candidates", "k", "seen")  # what the protocol of a rank report holds beyond that of rows


def validate_report(report: Any) -> None:
    """Raise DataError with every fault of `report`, each with its place, or return."""
    faults = list(_faults(report, _REPORT, "report"))
    if not faults:
        faults = list(_contradictions(report))
    if faults:
        raise DataError(problem(
            f"{len(faults)} fault(s) in the report:\n" + "\n".join(f"    {fault}" for fault in faults),
            f"a report of schema {SCHEMA}", "write reports with distilrec.evaluation.report.build_report",
        ))


def write_report(report: Mapping[str, Any], path: str | Path) -> Path:
    """Check `report`, then write it atomically. Raises DataError before anything is written."""
    validate_report(report)
    write_json(path, report)
    return Path(path)


def read_report(path: str | Path) -> dict[str, Any]:
    """The report at `path`. Raises DataError if it is missing, not JSON, of another schema version, or faulty."""
    try:
        report = read_json(path)
    except FileNotFoundError:
        raise DataError(problem(f"no report at {path}", "a report.json", "run `distilrec evaluate` first")) from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(problem(f"{path} is not JSON: {error}", "a report.json", "write it again")) from None
    version = report.get("schema") if isinstance(report, dict) else None
    if version != SCHEMA:
        raise DataError(problem(
            f"{path} has schema {version!r}", f"schema {SCHEMA}",
            "read it with the version of distilrec that wrote it, or evaluate again",
        ))
    validate_report(report)
    return report


def _faults(value: Any, shape: Any, place: str) -> Iterator[str]:
    alternatives = shape if isinstance(shape, tuple) else (shape,)
    failures: list[list[str]] = []
    for one in alternatives:
        failures.append(list(_faults_of_one(value, one, place)))
        if not failures[-1]:
            return
    # of several alternatives report the one of the right type, if there is one: it knows the place best
    deeper = [found for found in failures if not found[0].startswith(f"{place} is ")]
    if deeper:
        yield from deeper[0]
    else:
        yield f"{place} is {_show(value)}, expected {' or '.join(_name(one) for one in alternatives)}"


def _faults_of_one(value: Any, shape: Any, place: str) -> Iterator[str]:
    wrong = f"{place} is {_show(value)}, expected {_name(shape)}"
    if isinstance(shape, frozenset):
        if isinstance(value, (list, dict)) or value not in shape:
            yield wrong
    elif shape is None or isinstance(shape, type):
        if not _is(value, shape):
            yield wrong
    elif isinstance(shape, list):
        if not isinstance(value, list):
            yield wrong
            return
        for i, entry in enumerate(value):
            yield from _faults(entry, shape[0], f"{place}[{i}]")
    elif not isinstance(value, dict):
        yield wrong
    elif "*" in shape or "@" in shape:
        for key, entry in value.items():
            if "@" in shape and not _METRIC.fullmatch(key):
                yield f"{place} has key {key!r}, expected a metric name like 'ndcg@10'"
            yield from _faults(entry, shape.get("*", shape.get("@")), f"{place}.{key}")
    else:
        yield from _object_faults(value, shape, place)


def _object_faults(value: dict[str, Any], shape: dict[str, Any], place: str) -> Iterator[str]:
    known = {key.removeprefix("?"): inner for key, inner in shape.items() if key != "..."}
    for key, inner in known.items():
        if key in value:
            yield from _faults(value[key], inner, f"{place}.{key}")
        elif key in shape:
            yield f"{place}.{key} is missing"
    if "..." not in shape:
        for key in value.keys() - known.keys():
            yield f"{place} has unknown key {key!r}{nearest(key, known)}"


def _is(value: Any, kind: type | None) -> bool:
    if kind is None:
        return value is None
    if isinstance(value, bool) and kind is not bool:
        return False
    return isinstance(value, kind) and not (isinstance(value, float) and not math.isfinite(value))


def _contradictions(report: dict[str, Any]) -> Iterator[str]:
    """What no shape can see: names that point nowhere, numbers that cannot be."""
    for key in _OF_RANKING if report["task"] == "rank" else ():
        if key not in report["protocol"]:
            yield f"report.protocol.{key} is missing"
    names = [model["name"] for model in report["models"]]
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"report.models has {names.count(name)} models named {name!r}"
    for i, model in enumerate(report["models"]):
        if report["metric"] not in model["metrics"]["test"]:
            yield f"report.models[{i}].metrics.test lacks the main metric {report['metric']!r}"
    for i, comparison in enumerate(report["comparisons"]):
        place = f"report.comparisons[{i}]"
        for side in ("a", "b"):
            if comparison[side] not in names:
                yield f"{place}.{side} is {comparison[side]!r}, which is no model of the report"
        interval = comparison["interval"]
        if len(interval) != 2 or interval[0] > interval[1]:
            yield f"{place}.interval is {interval}, expected [low, high]"
        if not 0 <= comparison["p_value"] <= 1:
            yield f"{place}.p_value is {comparison['p_value']}, expected 0 to 1"


def _name(shape: Any) -> str:
    if isinstance(shape, frozenset):
        return " or ".join(sorted("null" if v is None else json.dumps(v) for v in shape))
    if shape is None:
        return "null"
    if isinstance(shape, type):
        return {int: "a whole number", float: "a finite number", str: "text", dict: "an object"}[shape]
    return "a list" if isinstance(shape, list) else "an object"


def _show(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
