"""Answers given beside the served one: in one thread, from a short queue, dropped where it cannot follow."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable

logger = logging.getLogger(__name__)
Work = Callable[[], None]


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
        self.dropped = 0
        self._queue: queue.Queue[Work | None] = queue.Queue(depth)
        self._thread = threading.Thread(target=self._run, name="corank-beside", daemon=True)
        self._thread.start()

    def offer(self, work: Work) -> bool:
        """Take the work if there is room, and say so."""
        try:
            self._queue.put_nowait(work)
        except queue.Full:
            self.dropped += 1
            return False
        return True

    def close(self, timeout: float = 30.0) -> None:
        """Do what is waiting, then stop."""
        if self._thread.is_alive():
            self._queue.put(None)
            self._thread.join(timeout)

    def _run(self) -> None:
        while (work := self._queue.get()) is not None:
            try:
                work()
            except Exception:
                logger.exception("work beside a request failed")
