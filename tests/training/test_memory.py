"""Freed memory goes back to the system, although what is kept lies between."""

from __future__ import annotations

import sys

import psutil
import pytest

from distilrec.training import memory


@pytest.mark.skipif(sys.platform != "linux" or memory._trim() is None, reason="a matter of glibc")
def test_pages_between_what_is_kept_go_back() -> None:
    process = psutil.Process()
    blocks = [bytearray(b"x" * 100_000) for _ in range(3000)]  # 300 MB, each below what glibc maps by itself
    kept = blocks[::50]
    full = process.memory_info().rss
    del blocks
    memory.give_back(0)
    assert len(kept) == 60
    assert full - process.memory_info().rss > 150e6


def test_it_is_not_done_too_often(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[int] = []
    monkeypatch.setattr(memory, "_trim", lambda: done.append)
    monkeypatch.setattr(memory, "_last", [0.0])
    for now in (10.0, 12.0, 14.9, 15.0, 16.0):
        monkeypatch.setattr(memory.time, "monotonic", lambda now=now: now)
        memory.give_back(5.0)
    assert len(done) == 2
    monkeypatch.setattr(memory, "_trim", lambda: None)
    memory.give_back(0)
