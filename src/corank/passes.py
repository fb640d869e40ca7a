"""Forward passes that halt inside a layer, wait there, and go on: a thread each, of which one is awake."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, ClassVar

import torch


class _Stopped(BaseException):
    """Ends a pass from outside; no `except Exception` of a network catches it."""


class HaltedPass:
    """A run that code inside it can halt; whoever started it sees where, and lets it go on.

    It runs without gradients. Only one side is awake at a time, so nothing happens in parallel and the order
    of all work is fixed. Python has no other way to leave a network's own forward in the middle.

    >>> run = HaltedPass(lambda: HaltedPass.halt("here", 7))
    >>> run.resume()
    >>> run.at, run.value
    ('here', 7)
    >>> run.resume()
    >>> run.at is None
    True
    """

    _of_thread: ClassVar[threading.local] = threading.local()

    def __init__(self, work: Callable[[], Any]) -> None:
        self.at: str | None = None  # where it waits; None before its start and after its end
        self.value: Any = None
        self._work = work
        self._go, self._rest = threading.Semaphore(0), threading.Semaphore(0)
        self._error: BaseException | None = None
        self._stopped = False
        self._thread: threading.Thread | None = None

    def resume(self) -> None:
        """Start it, or let it go on, until it halts or ends; what it raises is raised here."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._main, daemon=True)
            self._thread.start()
        elif self.at is not None:
            self.at = self.value = None
            self._go.release()
        else:
            return
        self._rest.acquire()
        if self._error is not None:
            raise self._error

    def stop(self) -> None:
        """End it where it waits."""
        self._stopped = True
        if self._thread is not None and self.at is not None:
            self.at = self.value = None
            self._go.release()
            self._thread.join()

    @classmethod
    def halt(cls, at: str, value: Any) -> None:
        """Wait here, in the run that this code is part of; outside of any it does nothing."""
        run: HaltedPass | None = getattr(cls._of_thread, "run", None)
        if run is None:
            return
        run.at, run.value = at, value
        run._rest.release()
        run._go.acquire()
        if run._stopped:
            raise _Stopped

    def _main(self) -> None:
        self._of_thread.run = self
        try:
            with torch.no_grad():  # the mode belongs to a thread
                self._work()
        except _Stopped:
            return
        except BaseException as error:
            self._error = error
        self._rest.release()
