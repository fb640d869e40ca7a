"""One thread that writes what a router sees, acknowledges outcomes after their commit, and folds."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, TypeVar

from corank.errors import StoreError
from corank.rollout.batches import Batch, is_of_a_row
from corank.rollout.policy import Policy
from corank.rollout.records import Recorded, View
from corank.rollout.rows import Labels, Observation

if TYPE_CHECKING:
    from corank.rollout.store import Store

logger = logging.getLogger(__name__)
Item = TypeVar("Item")
_MOST = 1000  # rows of a kind in one transaction
_DEEP = 50_000  # observations that wait; more are dropped and counted


class Recorder:
    """Between a router's threads and the store.

    Observations are written behind, many in one transaction. An outcome's future is done when its transaction
    is committed; while one commits, the next ones gather, so that many share a commit. A row that cannot be
    written is refused alone.

    Args:
        store: of the roll-out, open.
        policy: of the roll-out.
        refresh: seconds between two folds, after which a move by another process is seen.
        before_fold: called before each fold.
    """

    def __init__(
        self,
        store: Store,
        policy: Policy,
        refresh: float = 0.25,
        before_fold: Callable[[], None] | None = None,
    ) -> None:
        self.store, self.policy, self.refresh, self._before_fold = store, policy, refresh, before_fold
        self.dropped = 0
        self.view = store.fold(policy, time.time())[0]
        self.seen = time.monotonic()  # when the store last answered
        self._observations: deque[Observation] = deque()
        self._shadows: deque[tuple[str, Labels, float]] = deque()
        self._outcomes: deque[tuple[Recorded, Future[bool]]] = deque()
        self._wake = threading.Condition()
        self._closing = self._failing = False
        self._thread = threading.Thread(target=self._run, name="corank-rollout", daemon=True)
        self._thread.start()

    def observe(self, row: Observation) -> None:
        """Take an observation; it is written soon."""
        if len(self._observations) >= _DEEP:
            self.dropped += 1
        else:
            self._observations.append(row)

    def shadow(self, request: str, labels: Labels) -> None:
        """Take the labels that were given beside those served."""
        if len(self._shadows) < _DEEP:
            self._shadows.append((request, labels, time.time()))

    def record(self, outcome: Recorded) -> Future[bool]:
        """Take an outcome; the future says, after its commit, whether it is new.

        Raises: StoreError, when closed.
        """
        future: Future[bool] = Future()
        with self._wake:
            if self._closing:
                raise StoreError("rollout: this router is closed. Make another.")
            self._outcomes.append((outcome, future))
            self._wake.notify()
        return future

    def age(self) -> float:
        """Return the seconds since the store last answered."""
        return time.monotonic() - self.seen

    def take(self, view: View) -> None:
        """Take a view that somebody else got from the store just now."""
        self.view, self.seen = view, time.monotonic()

    def close(self, timeout: float = 30.0) -> None:
        """Write what is waiting, then stop."""
        with self._wake:
            self._closing = True
            self._wake.notify()
        self._thread.join(timeout)

    def _run(self) -> None:
        folded = time.monotonic()
        while True:
            with self._wake:
                if not self._outcomes and not self._closing:
                    self._wake.wait(self.refresh)
                closing = self._closing
            try:
                while self._flush() and (closing or time.monotonic() - folded < self.refresh):
                    pass  # a steady stream must not put the fold off; only the end drains it wholly
                if time.monotonic() - folded >= self.refresh or closing:
                    folded = time.monotonic()
                    self._fold()
                self._failing = False
            except Exception as error:  # whatever it is, outcomes must not wait for ever
                if not self._failing:
                    logger.warning("%s", error, exc_info=not isinstance(error, StoreError))
                self._failing = True
                if not closing:
                    time.sleep(self.refresh)
            if closing:
                self._refuse_rest()
                return

    def _flush(self) -> bool:
        """Write up to so many rows of each kind; say whether more are waiting."""
        batch = Batch(_take(self._outcomes), _take(self._observations), _take(self._shadows))
        if not len(batch):
            return False
        self._write(batch)
        return bool(self._outcomes) or len(self._observations) >= _MOST

    def _write(self, batch: Batch) -> None:
        """Write a batch and tell those who wait; where a row is to blame, part it until that row is alone."""
        try:
            new = self.store.write([one for one, _ in batch.outcomes], batch.observations, batch.shadows)
        except Exception as error:
            blamed = is_of_a_row(error)
            if blamed and len(batch) > 1:
                for part in batch.parts():
                    self._write(part)
                return
            self.dropped += len(batch.observations)
            for _, future in batch.outcomes:
                _tell(future, error=error)
            if not blamed:
                raise
            logger.warning("rollout %s: a row was refused: %s", self.store.name, error)
            return
        for one, future in batch.outcomes:
            _tell(future, one.request in new)
            new.discard(one.request)  # of two alike in one batch the second is not new

    def _refuse_rest(self) -> None:
        """Tell those who still wait at the end that nothing was written."""
        for _, future in self._outcomes:
            _tell(future, error=StoreError("rollout: closed before it was written. Try again."))

    def _fold(self) -> None:
        if self._before_fold is not None:
            self._before_fold()
        view, move = self.store.fold(self.policy, time.time())
        self.take(view)
        if move is not None:
            level = logging.WARNING if move.action in ("hold", "rolled back") else logging.INFO
            logger.log(
                level, "rollout %s: %s, stage %d: %s", self.store.name, move.action, move.stage, move.reason
            )


def _tell(future: Future[bool], new: bool = False, error: Exception | None = None) -> None:
    if not future.set_running_or_notify_cancel():
        return  # nobody waits for it any more
    if error is None:
        future.set_result(new)
    else:
        future.set_exception(error)


def _take(queue: deque[Item]) -> list[Item]:
    return [queue.popleft() for _ in range(min(len(queue), _MOST))]
