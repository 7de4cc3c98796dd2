"""Giving freed memory back to the system."""

from __future__ import annotations

import contextlib
import ctypes
import time
from collections.abc import Callable
from functools import cache

__all__ = ["give_back"]

_last = [0.0]  # when it was done last, by the clock of this process


def give_back(every: float = 5.0) -> None:
    """Hand the pages of freed tensors back, at most once in `every` seconds; nothing where the C library cannot.

    Every batch has another number of decisions, and so its tensors other sizes. glibc keeps blocks below 32 MB in its
    heap and seldom finds a free one that fits: the heap of a long training grows to several times what is in use.
    """
    now, trim = time.monotonic(), _trim()
    if trim is not None and now - _last[0] >= every:
        trim(0)
        _last[0] = now


@cache
def _trim() -> Callable[[int], int] | None:
    with contextlib.suppress(AttributeError, OSError, TypeError):  # musl, macOS, Windows
        return ctypes.CDLL(None).malloc_trim
    return None
