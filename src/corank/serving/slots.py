"""So many calls at once: a place is taken before a thread is waited for, and always given back."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Generic, TypeVar

Result = TypeVar("Result")


class Slots:
    """Counts calls until they end, also those that nobody waits for any more; from any thread.

    >>> slots = Slots(1)
    >>> call = slots.take(lambda: 3)
    >>> slots.take(lambda: 4) is None, call(), slots.count
    (True, 3, 0)
    """

    def __init__(self, most: int) -> None:
        self.most, self.count = most, 0
        self._lock = threading.Lock()

    def take(self, call: Callable[[], Result]) -> Slot[Result] | None:
        """Return the call with a place of its own, or None where there is none."""
        with self._lock:
            if self.count >= self.most:
                return None
            self.count += 1
        return Slot(self, call)

    def give_back(self) -> None:
        """Let another call in."""
        with self._lock:
            self.count -= 1


class Slot(Generic[Result]):
    """A call that gives its place back when it ends, or when it is left before it begins."""

    def __init__(self, slots: Slots, call: Callable[[], Result]) -> None:
        self._slots, self._call = slots, call
        self._lock, self._settled = threading.Lock(), False

    def __call__(self) -> Result | None:
        """Call, unless it was left before."""
        if not self._settle():
            return None
        try:
            return self._call()
        finally:
            self._slots.give_back()

    def leave(self) -> None:
        """Say that nobody waits; a call that has begun keeps its place until it ends."""
        if self._settle():
            self._slots.give_back()

    def _settle(self) -> bool:
        with self._lock:
            first, self._settled = not self._settled, True
            return first
