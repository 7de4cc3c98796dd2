"""Progress: a log gets lines with the time left, quick work and quiet work get nothing."""

import io
import sys

import pytest

from distilrec import progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch):
    now = [1000.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])

    def forward(seconds: float) -> None:
        now[0] += seconds

    return forward


def test_lines_every_ten_seconds_with_time_left(clock, capsys: pytest.CaptureFixture[str]) -> None:
    with progress.track(10, "training") as bar:
        for _ in range(10):
            clock(4.0)
            bar.advance(1, loss=0.5)
    lines = capsys.readouterr().err.splitlines()
    # 4 s a step: a line after 12, 24 and 36 s
    assert lines[0] == "training: 3/10 (30 %), loss 0.5, 28 s left"
    assert lines[2] == "training: 9/10 (90 %), loss 0.5, 4 s left"
    assert lines[3] == "training: done after 40 s"
    assert len(lines) == 4


def test_quick_work_prints_nothing(clock, capsys: pytest.CaptureFixture[str]) -> None:
    with progress.track(2, "reading") as bar:
        clock(1.0)
        bar.advance(2)
    assert capsys.readouterr().err == ""


def test_a_failure_says_stopped(clock, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match="broken"), progress.track(None, "reading") as bar:
        clock(11.0)
        bar.advance(7)
        raise ValueError("broken")
    assert capsys.readouterr().err.splitlines() == ["reading: 7", "reading: stopped after 11 s"]


def test_quiet_hides_everything_and_counts_on(clock, capsys: pytest.CaptureFixture[str]) -> None:
    with progress.quiet(), progress.track(5, "reading") as bar:
        clock(60.0)
        bar.advance(3)
    assert bar.done == 3
    assert capsys.readouterr().err == ""


def test_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    with progress.track(4, "encoding") as bar:
        bar.advance(4, speed="7/s")
    assert "encoding" in stream.getvalue()
    assert "4/4" in stream.getvalue()


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.2, "0 s"), (59.4, "59 s"), (60, "1 min 0 s"), (3599, "59 min 59 s"), (3600, "1 h 0 min")]
)
def test_duration(seconds: float, words: str) -> None:
    assert progress.duration(seconds) == words
