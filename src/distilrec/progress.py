"""The one place that shows progress: a bar with the time left on a terminal, a line every ten seconds elsewhere.

    with progress.track(len(batches), "training teacher") as bar:
        for batch in batches:
            ...
            bar.advance(1, loss=0.31)

Everything goes to standard error, so that what a command prints as its result can be piped. `progress.quiet()` turns
all of it off for the code inside.
"""

from __future__ import annotations

import contextlib
import contextvars
import sys
import time
from collections.abc import Iterator
from typing import TextIO

__all__ = ["Tracker", "duration", "quiet", "track"]

_EVERY_SECONDS = 10.0
_quiet: contextvars.ContextVar[bool] = contextvars.ContextVar("distilrec_quiet", default=False)


class Tracker:
    """What `track` yields: counts the work done and shows it. This base shows nothing."""

    def __init__(self, total: int | None, what: str) -> None:
        self.total = total
        self.what = what
        self.done = 0
        self.fields: dict[str, float | str] = {}
        self.started = time.monotonic()

    def advance(self, n: int = 1, **fields: float | str) -> None:
        """`n` more steps are done; `fields` (a loss, a metric) are shown beside the bar until they change."""
        self.done += n
        self.fields.update(fields)
        self._show()

    def seconds_left(self) -> float | None:
        """By the mean speed so far; None while that is unknown."""
        if not self.total or not self.done:
            return None
        return (time.monotonic() - self.started) / self.done * max(self.total - self.done, 0)

    def status(self) -> str:
        """One line: what, how far, the fields, the time left."""
        count = f"{self.done:,}" if self.total is None else f"{self.done:,}/{self.total:,}"
        if self.total:
            count += f" ({100 * self.done // self.total} %)"
        left = self.seconds_left()
        parts = [f"{self.what}: {count}", self.shown_fields(), "" if left is None else f"{duration(left)} left"]
        return ", ".join(part for part in parts if part)

    def shown_fields(self) -> str:
        pairs = ((name, f"{value:.4g}" if isinstance(value, float) else value) for name, value in self.fields.items())
        return ", ".join(f"{name} {value}" for name, value in pairs)

    def _show(self) -> None:
        """Nothing: the quiet tracker."""


class _Lines(Tracker):
    """For logs and pipes: a line now and then, the last one when all is done. Quick work prints nothing."""

    def __init__(self, total: int | None, what: str, stream: TextIO) -> None:
        super().__init__(total, what)
        self.stream = stream
        self.shown_at = self.started
        self.printed = False

    def _show(self) -> None:
        now = time.monotonic()
        if now - self.shown_at >= _EVERY_SECONDS:
            self.shown_at = now
            self.printed = True
            print(self.status(), file=self.stream, flush=True)

    def close(self, complete: bool) -> None:
        if self.printed:
            took = duration(time.monotonic() - self.started)
            print(f"{self.what}: {'done' if complete else 'stopped'} after {took}", file=self.stream, flush=True)


@contextlib.contextmanager
def track(total: int | None, what: str) -> Iterator[Tracker]:
    """Show the progress of `total` steps (None: unknown) of the work `what`; yields a tracker with `advance`."""
    if _quiet.get():
        yield Tracker(total, what)
    elif sys.stderr.isatty():
        with _bar(total, what) as tracker:
            yield tracker
    else:
        lines = _Lines(total, what, sys.stderr)
        complete = False
        try:
            yield lines
            complete = True
        finally:
            lines.close(complete)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """No progress is shown by anything that runs inside."""
    token = _quiet.set(True)
    try:
        yield
    finally:
        _quiet.reset(token)


def duration(seconds: float) -> str:
    """Seconds in words that fit the size.

    >>> duration(3.21), duration(75), duration(7300)
    ('3 s', '1 min 15 s', '2 h 2 min')
    """
    whole = max(round(seconds), 0)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


@contextlib.contextmanager
def _bar(total: int | None, what: str) -> Iterator[Tracker]:
    # rich costs 50 ms to import: only a terminal pays it
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"), BarColumn(bar_width=30), MofNCompleteColumn(), TimeElapsedColumn(),
        TextColumn("left"), TimeRemainingColumn(), TextColumn("{task.fields[shown]}"),
    )
    with Progress(*columns, console=Console(stderr=True), transient=True) as display:
        task = display.add_task(what, total=total, shown="")

        class _Bar(Tracker):
            def _show(self) -> None:
                display.update(task, completed=self.done, shown=self.shown_fields())

        yield _Bar(total, what)
