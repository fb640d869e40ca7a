"""Answers given beside the served one: in one thread, from a short queue, dropped where it cannot follow."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable

logger = logging.getLogger(__name__)
Work = Callable[[], None]
_MOST_HUNG = 32  # threads that are given up: enough failures for a guard to act on, and an end of them


class Beside:
    """Do work in the background, or refuse it at once.

    Args:
        depth: how many pieces may wait.

    >>> beside, done = Beside(4), []
    >>> beside.offer(lambda: done.append(1))
    True
    >>> beside.close()
    >>> done
    [1]
    """

    def __init__(self, depth: int) -> None:
        self.depth, self.dropped = depth, 0
        self._waiting: deque[Work] = deque()
        self._wake = threading.Condition()
        self._closing = False
        self._turn = 0  # of the thread that takes work; those before it were given up
        self._begun: float | None = None  # when its piece of work began
        self._thread = self._start()

    def offer(self, work: Work) -> bool:
        """Take the work if there is room, and say so."""
        with self._wake:
            if self._closing or len(self._waiting) >= self.depth:
                self.dropped += 1
                return False
            self._waiting.append(work)
            self._wake.notify_all()
        return True

    def relieve(self, patience: float) -> None:
        """Let another thread go on where the present one takes more than `patience`, s, for a piece."""
        with self._wake:
            late = self._begun is not None and time.monotonic() - self._begun > patience
            if late and not self._closing and self._turn < _MOST_HUNG:
                self._turn += 1
                self._begun = None
                self._thread = self._start()

    def close(self, timeout: float = 30.0) -> None:
        """Do what is waiting, then stop; after `timeout` s leave what hangs and drop what waits."""
        with self._wake:
            self._closing = True
            self._wake.notify_all()
        self._thread.join(timeout)
        with self._wake:
            self.dropped += len(self._waiting)
            self._waiting.clear()

    def _start(self) -> threading.Thread:
        thread = threading.Thread(target=self._run, args=(self._turn,), name="corank-beside", daemon=True)
        thread.start()
        return thread

    def _run(self, turn: int) -> None:
        while (work := self._next(turn)) is not None:
            try:
                work()
            except Exception:
                logger.exception("work beside a request failed")

    def _next(self, turn: int) -> Work | None:
        """Wait for work; None when it is closed, or another thread took over."""
        with self._wake:
            if turn == self._turn:
                self._begun = None
            while turn == self._turn and not self._waiting and not self._closing:
                self._wake.wait()
            if turn != self._turn or not self._waiting:
                return None
            self._begun = time.monotonic()
            return self._waiting.popleft()
