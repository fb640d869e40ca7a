"""One model's answer to one request: timed, read, and its failure kept rather than raised."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from corank.errors import CorankError
from corank.rollout.readings import Reading, plain
from corank.rollout.rows import CHALLENGER, Observation, Run

Model = Callable[[Any], Any]


@dataclass(slots=True)
class Done:
    """What came of a call: the answer, what it took, what was read off it, or why it failed."""

    output: Any = None
    run: Run = field(default_factory=lambda: Run(0.0))
    reading: Reading = field(default_factory=Reading)
    error: Exception | None = None


def answer_with(model: Model, inputs: Any, read: Callable[[Any], Reading]) -> Done:
    """Call a model; an exception, an answer that cannot be read, or one that is not finite is a failure.

    >>> answer_with(lambda x: 1 / x, 0, lambda output: Reading()).run.failed
    True
    """
    done = Done()
    begun = time.perf_counter()
    try:
        done.output = model(inputs)
    except Exception as error:  # the model's own
        done.error = error
    ms = (time.perf_counter() - begun) * 1e3
    if done.error is None:
        try:
            done.reading = plain(read(done.output))
        except Exception as error:  # an answer that cannot be read is none
            done.error = error
    if done.error is None and not done.reading.finite:
        done.error = CorankError("the answer is not finite.")
    done.run = Run(ms, done.error is not None, done.reading.confidence)
    return done


class Pending:
    """The calls under way, so that one that never comes back is counted as a failure all the same.

    Args:
        patience: seconds after which a call has failed.

    >>> pending = Pending(10.0)
    >>> call = pending.begin(Observation("r-1", 1, "challenger"), "challenger", now=0.0)
    >>> [side for _, side, _ in pending.overdue(now=11.0)], pending.end(call)
    (['challenger'], False)
    """

    def __init__(self, patience: float) -> None:
        self.patience = patience
        self._calls: dict[int, tuple[Observation, str, float]] = {}
        self._lock = threading.Lock()
        self._next = 0

    def begin(self, row: Observation, side: str, now: float) -> int:
        """Note a call of one side's model, and what is known of the request; the number is for `end`."""
        with self._lock:
            self._next += 1
            self._calls[self._next] = (row, side, now)
            return self._next

    def end(self, call: int) -> bool:
        """Strike a call out; False where it was given up before."""
        with self._lock:
            return self._calls.pop(call, None) is not None

    def overdue(self, now: float) -> list[tuple[Observation, str, Run]]:
        """Give up the calls that take too long: the row of each request, whose model failed, its run."""
        with self._lock:
            late = [number for number, one in self._calls.items() if now - one[2] > self.patience]
            calls = [self._calls.pop(number) for number in late]
        late_rows = []
        for row, side, begun in calls:
            run = Run((now - begun) * 1e3, failed=True)
            row = replace(row, challenger=run) if side == CHALLENGER else replace(row, champion=run)
            late_rows.append((row, side, run))
        return late_rows
