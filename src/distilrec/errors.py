"""The exceptions that distilrec raises on purpose.

Every message answers three questions: what was seen, what was expected, what to do next. `problem`
builds such a message, so that no room invents a form of its own.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "BundleError",
    "DataError",
    "DistilrecError",
    "KnowledgeError",
    "MissingExtraError",
    "RecipeError",
    "TrainingError",
    "nearest",
    "problem",
]


class DistilrecError(Exception):
    """Base of every error that a user can act upon. The command line prints it without a traceback."""


class DataError(DistilrecError):
    """The input tables, the cleaning rules or the split cannot be used as they are."""


class RecipeError(DistilrecError):
    """A recipe or a `--set` value is wrong. All faults of one document are reported together."""


class KnowledgeError(DistilrecError):
    """A knowledge store is damaged, incomplete, or belongs to other data."""


class TrainingError(DistilrecError):
    """Training cannot go on (NaN, a checkpoint of another run, ...)."""


class BundleError(DistilrecError):
    """A bundle is damaged, incomplete or of another version."""


class MissingExtraError(DistilrecError):
    """An optional dependency is not installed; the message holds the exact install line."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(problem(f"{what} is not installed", "it is part of an optional extra",
                                 f"pip install 'distilrec[{extra}]'"))


def problem(seen: str, expected: str = "", do: str = "") -> str:
    """Join the three parts of a message; empty parts are left out.

    >>> print(problem("column 'usr' is missing", "user_id, item_id", "name yours under data.columns"))
    column 'usr' is missing
      expected: user_id, item_id
      what to do: name yours under data.columns
    """
    lines = [seen]
    if expected:
        lines.append(f"  expected: {expected}")
    if do:
        lines.append(f"  what to do: {do}")
    return "\n".join(lines)


def nearest(word: str, known: Iterable[str]) -> str:
    """`", did you mean 'x'?"` when a known name is close to `word`, otherwise the empty string."""
    match = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f", did you mean {match[0]!r}?" if match else ""
