"""What a recipe may say about its input columns, checked before any data is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from distilrec.errors import nearest
from distilrec.features import KINDS

__all__ = ["Fault", "feature_settings", "feature_sources", "spec_faults"]

Fault = tuple[tuple[str, ...], str, str]  # (place, what was seen, what was expected)

_COMMON = ("kind", "column", "available", "required")
_COUNTED = ("min_count", "max_size", "hash")  # how the vocabulary is cut
# kind -> its own settings
_SETTINGS: dict[str, tuple[str, ...]] = {
    "category": (*_COUNTED, "columns", "cross", "buckets", "edges"),
    "number": ("log",),
    "list": (*_COUNTED, "max_length", "delimiter"),
    "sequence": ("of", "max_length", "delimiter"),
    "text": (*_COUNTED, "max_length"),
    "vector": (),
}
_LEAST = {"min_count": 1, "max_size": 1, "hash": 1, "buckets": 2, "max_length": 1}
MAX_LENGTH = {"list": 16, "sequence": 30, "text": 32}
_WAYS = ("hash", "buckets", "edges")  # of making ids; a feature has at most one of them


def feature_settings(given: str | Mapping[str, Any]) -> dict[str, Any]:
    """The settings of one feature as a mapping: a bare word is its kind, and a cross is a category."""
    settings = {"kind": given} if isinstance(given, str) else dict(given)
    crossed = settings.pop("cross", None)
    if crossed is not None:
        settings = {"kind": "category", "columns": crossed, **settings}
    return settings


def feature_sources(name: str, settings: Mapping[str, Any]) -> tuple[str, ...]:
    """The raw columns of a feature: `columns`, else `column`, else the one of its own name."""
    return tuple(settings.get("columns") or (settings.get("column", name),))


def spec_faults(spec: Any) -> Iterator[Fault]:
    """(place, seen, expected) for every fault of a specification of features that shows without data."""
    if not isinstance(spec, Mapping) or not spec:
        yield (), f"features: {spec!r:.60}", "{feature: kind} or {feature: {kind: ..., ...}}, at least one"
        return
    for name, given in spec.items():
        if not isinstance(name, str) or not name:
            yield (str(name),), f"the feature name {name!r}", "text"
        elif not isinstance(given, str | Mapping):
            yield (name,), f"{given!r:.60}", "a kind, or a mapping with a kind"
        elif isinstance(given, Mapping) and "cross" in given and "columns" in given:
            yield (name, "cross"), "both 'cross' and 'columns'", "one of them"
        else:
            yield from _feature_faults(name, feature_settings(given), spec)


def _feature_faults(name: str, settings: dict[str, Any], spec: Mapping[str, Any]) -> Iterator[Fault]:
    kind = settings.get("kind")
    if kind is None:
        yield (name, "kind"), "no kind", ", ".join(KINDS)
        return
    if kind not in _SETTINGS:
        yield (name, "kind"), f"unknown kind {kind!r}{nearest(str(kind), KINDS)}", ", ".join(KINDS)
        return
    known = (*_COMMON, *_SETTINGS[kind])
    for key in settings:
        if key not in known:
            owners = [other for other, keys in _SETTINGS.items() if key in keys]
            hint = f" (a setting of the kind {' and '.join(owners)})" if owners else nearest(str(key), known)
            yield (name, str(key)), f"a {kind} has no setting {key!r}{hint}", ", ".join(known)
    for key, value in settings.items():
        if key in known:
            yield from _value_faults(name, key, value)
    if "column" in settings and "columns" in settings:
        yield (name, "column"), "both 'column' and 'columns'", "one of them"
    ways = [key for key in _WAYS if settings.get(key) is not None]
    if len(ways) > 1:
        yield (name, ways[0]), f"{' and '.join(ways)} together", "one way to make ids"
    if ways:
        for key in ("min_count", "max_size"):
            if key in settings:
                yield (name, key), f"{key} with {ways[0]}", "it cuts a vocabulary, and there is none"
    if {"buckets", "edges"} & set(ways) and len(feature_sources(name, settings)) > 1:
        yield (name, ways[0]), f"{ways[0]} of a cross", "one number column"
    if kind == "sequence":
        yield from _of_faults(name, settings.get("of"), spec)


def _value_faults(name: str, key: str, value: Any) -> Iterator[Fault]:
    place = (name, key)
    if key in _LEAST:
        if not isinstance(value, int) or isinstance(value, bool) or value < _LEAST[key]:
            yield place, f"{value!r:.60}", f"a whole number from {_LEAST[key]}"
    elif key in ("log", "required"):
        if not isinstance(value, bool):
            yield place, f"{value!r:.60}", "true or false"
    elif key == "available":
        if value not in ("request", "training"):
            yield place, f"{value!r:.60}{nearest(str(value), ('request', 'training'))}", "request or training"
    elif key in ("column", "delimiter"):
        if not isinstance(value, str) or not value:
            yield place, f"{value!r:.60}", "the name of a column" if key == "column" else "text, such as '|'"
    elif key == "columns":
        whole = isinstance(value, list | tuple) and all(isinstance(one, str) and one for one in value)
        if not whole or not value or len(set(value)) < len(value):
            yield place, f"{value!r:.60}", "a list of different column names"
    elif key == "edges":
        numbers = isinstance(value, list | tuple) and all(
            isinstance(one, int | float) and not isinstance(one, bool) and abs(one) < float("inf") for one in value
        )
        if not numbers or not value or list(value) != sorted(set(value)):
            yield place, f"{value!r:.60}", "a list of rising finite numbers"


def _of_faults(name: str, of: Any, spec: Mapping[str, Any]) -> Iterator[Fault]:
    categories = []
    for other, given in spec.items():
        if isinstance(given, str | Mapping):
            settings = feature_settings(given)
            plain = settings.get("buckets") is None and settings.get("edges") is None
            # no value of a history could be a value of a bucket or of a cross
            if settings.get("kind") == "category" and plain and len(feature_sources(str(other), settings)) == 1:
                categories.append(str(other))
    if of not in categories:
        seen = "no 'of'" if of is None else f"of {of!r}{nearest(str(of), categories)}"
        yield (name, "of"), seen, "a category feature with one column: " + (", ".join(categories) or "there is none")
