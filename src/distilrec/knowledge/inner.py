"""What a teacher thinks, beside what it answers: query vectors, where it looks, what its answer depends on."""

from __future__ import annotations

from typing import Any

import numpy as np

from distilrec.errors import KnowledgeError, problem
from distilrec.types import Split

__all__ = ["INNER", "inner", "lacks"]

INNER = ("query", "attention", "gradient")
_ROWS = 512  # histories of one call
_NEEDS = {
    "query": ("vectors", "a model that answers by query and item vectors"),
    "attention": ("attention", "a transformer (sasrec, bert4rec, hstu)"),
    "gradient": ("sensitivity", "a trained sequence model"),
}


def lacks(teacher: Any, name: str) -> str | None:
    """What a teacher would have to be to give this signal; None where it can."""
    method, kind = _NEEDS[name]
    return None if getattr(teacher, method, None) is not None else kind


def inner(
    teacher: Any, name: str, split: Split, users: np.ndarray, start: np.ndarray, stop: np.ndarray, best: np.ndarray
) -> np.ndarray:
    """float16 [n, W]: one signal at n decisions.

    query: the vector that is compared with the items'. attention, gradient: one number per past event, by steps back
    from the latest one (column 0), 0 where there is none. gradient is that of the score of the teacher's best item.

    Args:
        users, start, stop: of the decisions [n], a user's together and by rising length.
        best: int32 [n], the teacher's best item.
    Raises:
        KnowledgeError: numbers that float16 cannot hold.
    """
    values = _queries(teacher, split, users, start, stop) if name == "query" else \
        _by_step_back(teacher, name, split, users, start, stop, best)
    if not np.isfinite(values).all() or np.abs(values).max(initial=0) > np.finfo(np.float16).max:
        raise KnowledgeError(problem(f"{name!r} of the teacher {teacher.name!r} is not finite, or beyond float16",
                                     "numbers up to 65,504", "mend the teacher"))
    return values.astype(np.float16)


def _queries(teacher: Any, split: Split, users: np.ndarray, start: np.ndarray, stop: np.ndarray) -> np.ndarray:
    stepwise = getattr(teacher, "step_vectors", None)
    parts: list[np.ndarray] = []
    if stepwise is None:
        for begin in range(0, len(users), _ROWS):
            rows = slice(begin, begin + _ROWS)
            parts.append(teacher.vectors(split.between(users[rows], start[rows], stop[rows])))
        return np.concatenate(parts)
    first = np.flatnonzero(np.diff(users, prepend=-1))
    last = np.append(first[1:], len(users))
    for begin in range(0, len(first), _ROWS):  # in one pass over each user's history
        a, b = first[begin : begin + _ROWS], last[begin : begin + _ROWS]
        whole = slice(a[0], b[-1])
        histories = split.between(users[a], start[a], stop[b - 1])
        offset = np.repeat(histories.offsets[:-1], b - a)
        parts.append(stepwise(histories)[offset + stop[whole] - start[whole] - 1])
    return np.concatenate(parts)


def _by_step_back(
    teacher: Any, name: str, split: Split, users: np.ndarray, start: np.ndarray,
    stop: np.ndarray, best: np.ndarray,
) -> np.ndarray:
    parts = []
    for begin in range(0, len(users), _ROWS):
        rows = slice(begin, begin + _ROWS)
        histories = split.between(users[rows], start[rows], stop[rows])
        parts.append(teacher.attention(histories) if name == "attention" else
                     teacher.sensitivity(histories, best[rows]))
    return np.concatenate(parts)
