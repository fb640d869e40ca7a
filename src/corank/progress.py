"""Progress of long work: a bar with rate and remaining time on a terminal, plain log lines elsewhere."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.progress import Progress

logger = logging.getLogger(__name__)
Item = TypeVar("Item")
_QUIET = 5.0  # seconds between two log lines


class Meter:
    """How far a piece of work is: a bar on a terminal, a log line now and then elsewhere.

    >>> with Meter("count", enabled=False) as meter:
    ...     meter.start(2)
    ...     meter.advance()
    """

    def __init__(self, label: str, *, enabled: bool = True) -> None:
        self.label, self.enabled = label, enabled
        self._bar: Progress | None = None
        self._total: int | None = None
        self._done = self._first = 0
        self._begun = self._told = time.perf_counter()

    def __enter__(self) -> Meter:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def start(self, total: int | None, done: int = 0) -> None:
        """Begin; `done` steps were done before, by a run that was stopped."""
        self._total, self._done, self._first = total, done, done
        self._begun = self._told = time.perf_counter()
        if self.enabled and sys.stderr.isatty():
            self._bar = _make_bar()
            self._bar.add_task(self.label, total=total, completed=done, speed="")
            self._bar.start()

    def advance(self) -> None:
        """Count one step."""
        self._done += 1
        if not self.enabled:
            return
        now = time.perf_counter()
        if self._bar is not None:
            self._bar.update(self._bar.task_ids[0], completed=self._done, speed=self._rate(now))
        elif now - self._told >= _QUIET or self._done == self._total:
            self._told = now
            logger.info("%s: %s", self.label, self._line(now))

    def note(self, text: str) -> None:
        """Say something in between."""
        if self.enabled and self._bar is None:
            logger.info("%s: %s", self.label, text)

    def _rate(self, now: float) -> str:
        return f"{(self._done - self._first) / max(now - self._begun, 1e-9):.1f}/s"

    def _line(self, now: float) -> str:
        line = f"{self._done} of {self._total or 'unknown'}, {self._rate(now)}"
        if self._total is None or self._done == self._first:
            return line
        left = (now - self._begun) / (self._done - self._first) * (self._total - self._done)
        return f"{line}, {left:.0f} s left"


def track(items: Sequence[Item] | Iterable[Item], label: str, *, enabled: bool = True) -> Iterator[Item]:
    """Yield the items and show how far it is, on standard error.

    >>> list(track([1, 2], "count", enabled=False))
    [1, 2]
    """
    with Meter(label, enabled=enabled) as meter:
        meter.start(len(items) if isinstance(items, Sequence) else None)
        for item in items:
            yield item
            meter.advance()


def _make_bar() -> Progress:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[speed]}"),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
