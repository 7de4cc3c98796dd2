"""What a teacher thinks, beside what it answers: query vectors, states of its layers, where it looks, what its answer
depends on."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from distilrec.errors import KnowledgeError, problem
from distilrec.types import Split

__all__ = ["BY_DECISION", "INNER", "inner", "lacks"]

INNER = ("query", "layers", "attention", "gradient")
BY_DECISION = ("query", "layers")  # the others are kept once per user
_ROWS = 512  # histories of one call
_EVENTS = 2**15  # of the histories of one call, unless one alone is longer: what is said of each is in memory at once
_NEEDS = {
    "query": ("vectors", "a model that answers by query and item vectors"),
    "layers": ("layers", "a transformer with one layer or more (sasrec, bert4rec, hstu)"),
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
    """float16 [n, W], or [n, S, H] of layers: one signal at n decisions.

    query: the vector that is compared with the items'. layers: the state after each of the S layers, lowest first.
    attention, gradient: one number per past event, by steps back
    from the latest one (column 0), 0 where there is none. gradient is that of the score of the teacher's best item.

    Args:
        users, start, stop: of the decisions [n], a user's together and by rising length.
        best: int32 [n], the teacher's best item.
    Raises:
        KnowledgeError: numbers that float16 cannot hold.
    """
    values = _at_decisions(teacher, name, split, users, start, stop) if name in BY_DECISION else \
        _by_step_back(teacher, name, split, users, start, stop, best)
    if not np.isfinite(values).all() or np.abs(values).max(initial=0) > np.finfo(np.float16).max:
        raise KnowledgeError(problem(f"{name!r} of the teacher {teacher.name!r} is not finite, or beyond float16",
                                     "numbers up to 65,504", "mend the teacher"))
    return values.astype(np.float16)


def _at_decisions(
    teacher: Any, name: str, split: Split, users: np.ndarray, start: np.ndarray, stop: np.ndarray
) -> np.ndarray:
    method = _NEEDS[name][0]
    once, stepwise = getattr(teacher, method), getattr(teacher, f"step_{method}", None)
    parts: list[np.ndarray] = []
    if stepwise is None:
        for begin in range(0, len(users), _ROWS):
            rows = slice(begin, begin + _ROWS)
            parts.append(once(split.between(users[rows], start[rows], stop[rows])))
        return np.concatenate(parts)
    first = np.flatnonzero(np.diff(users, prepend=-1))
    last = np.append(first[1:], len(users))
    for few in _blocks(stop[last - 1] - start[first]):  # in one pass over each user's history
        a, b = first[few], last[few]
        whole = slice(a[0], b[-1])
        histories = split.between(users[a], start[a], stop[b - 1])
        offset = np.repeat(histories.offsets[:-1], b - a)
        parts.append(stepwise(histories)[offset + stop[whole] - start[whole] - 1])
    return np.concatenate(parts)


def _blocks(lengths: np.ndarray) -> Iterator[slice]:
    """Neighbors that one call asks for: at most _ROWS histories, and _EVENTS events unless one alone has more."""
    end = np.cumsum(lengths)
    begin = 0
    while begin < len(lengths):
        before = end[begin] - lengths[begin]
        stop = max(begin + 1, min(begin + _ROWS, int(np.searchsorted(end, before + _EVENTS, "right"))))
        yield slice(begin, stop)
        begin = stop


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
