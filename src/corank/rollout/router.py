"""The router: a callable between a server and two models, which serves one and watches both."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corank.errors import CorankError
from corank.rollout.answering import Done, Model, Pending, answer_with
from corank.rollout.beside import Beside
from corank.rollout.casting import DTYPES, cast
from corank.rollout.names import require_name
from corank.rollout.outcomes import make_outcome
from corank.rollout.policy import Policy
from corank.rollout.readings import Reading, describe_input, read_output
from corank.rollout.receipts import Receipt, read_receipt, write_receipt
from corank.rollout.records import View
from corank.rollout.rows import CHALLENGER, CHAMPION, Observation, Run
from corank.rollout.splits import falls_under

if TYPE_CHECKING:
    from corank.rollout.store import Store

Listener = Callable[[str, Run], None]


@dataclass(frozen=True, slots=True)
class Answer:
    """What was served, and the receipt that its outcome is recorded under.

    `arm` is whose request it was; the champion may have answered in its place.
    """

    output: Any
    receipt: str
    request: str
    arm: str


@dataclass(frozen=True, slots=True)
class Bundles:
    """The digests of what is served, held to those that the roll-out began with."""

    champion: str = ""
    challenger: str = ""


class Router:
    """Serve the champion or the challenger, by a split that the policy widens, stops or takes back.

    A call chooses by the hash of `key`, runs that model in this thread, and gives its answer. If the
    challenger raises or gives what is not finite, the champion answers and the error counts. In shadow the
    other model runs in a thread beside, after the answer. Nothing is written in the caller's thread.

    Args:
        champion: takes the inputs, gives the answer; what is served today.
        challenger: likewise; what may replace it.
        policy: when to go on, stop and go back.
        store: a `Store`, or the path of a SQLite file, or a URL of SQLAlchemy.
        name: of the roll-out, where `store` is not a Store.
        bundles: digests of the two models; a roll-out goes on only with those it began with.
        read: takes an answer and gives its `Reading`; the default reads logits or probabilities (N, C).
        describe: takes the inputs and gives up to two numbers to watch for drift, or None.
        refresh: seconds until a move by another process is seen here.
        stale: seconds without the store after which only the champion is served.
        patience: seconds after which a call that has not come back counts as a failure.
        waiting: how many requests may wait to be answered beside; more are not compared.
        listener: called with the arm and the run after each model's run, for metrics.
        dtype: that arrays are cast to before either model is asked; None leaves them as they are.
    Raises: CorankError, for a model that cannot be called; StoreError, when the store cannot be used or began
        with other terms.

    Make one in each process, after forking; close it, or use it in a `with`.

    >>> import numpy as np, tempfile
    >>> model = lambda x: np.eye(3)[[0]]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with Router(model, model, Policy(), f"{folder}/rollout.db") as router:
    ...         answer = router(np.ones(4), key="user-1")
    ...         first, again = (router.record(answer.receipt, label=0) for _ in range(2))
    >>> answer.arm, first, again
    ('champion', True, False)
    """

    def __init__(
        self,
        champion: Model,
        challenger: Model,
        policy: Policy,
        store: Store | str | Path,
        *,
        name: str = "rollout",
        bundles: Bundles = Bundles(),  # frozen
        read: Callable[[Any], Reading] = read_output,
        describe: Callable[[Any], tuple[float, ...] | None] = describe_input,
        refresh: float = 0.25,
        stale: float = 30.0,
        patience: float = 10.0,
        waiting: int = 64,
        listener: Listener | None = None,
        dtype: str | None = None,
    ) -> None:
        from corank.rollout.recorder import Recorder
        from corank.rollout.store import Store

        self._models = {CHAMPION: champion, CHALLENGER: challenger}
        for arm, model in self._models.items():
            if not callable(model):
                raise CorankError(f"router: the {arm} is a {type(model).__name__}. Give what can be called.")
        if not isinstance(policy, Policy):
            raise CorankError(f"router: policy is a rollout.Policy, got a {type(policy).__name__}.")
        limits = {"refresh": (refresh, 0.01), "stale": (stale, 0.1), "patience": (patience, 0.01)}
        for what, (value, least) in (limits | {"waiting": (waiting, 1)}).items():
            if not value >= least:
                raise CorankError(f"router: {what} is a number from {least}, got {value!r}.")
        if dtype is not None and dtype not in DTYPES:
            raise CorankError(f"router: dtype is one of {', '.join(DTYPES)}, got {dtype!r}.")
        self.store = store if isinstance(store, Store) else Store(store, name)
        self.policy, self.stale, self.dtype = policy, stale, dtype
        self._read, self._describe, self._listener = read, describe, listener
        self._terms = self.store.open(policy, time.time(), bundles.champion, bundles.challenger)
        self._pending = Pending(patience)
        self._recorder = Recorder(self.store, policy, refresh, self._give_up)
        self._beside = Beside(waiting)

    def __call__(self, inputs: Any, *, key: str | None = None, request: str | None = None) -> Answer:
        """Answer one request.

        Args:
            inputs: what the models take; it must not change afterwards while it may be answered beside.
            key: whose request it is, such as a user; the same key is answered by the same model in a stage.
                Default: the request's own name.
            request: its name, which its outcome counts under once; a client that may repeat itself gives
                one. Default: a random one. Names are printable text of at most 200 characters.
        Raises: what the champion raises; CorankError, for a name that is not allowed, or inputs that cannot
            be cast.
        """
        require_name("request", request)
        require_name("key", key)
        request = request or uuid.uuid4().hex
        inputs = cast(inputs, self.dtype)
        view, salt = self.view, self._terms.salt
        arm = CHALLENGER if falls_under(salt, key or request, view.share) else CHAMPION
        features = self._features(inputs) if view.watching else None
        call = self._pending.begin(Observation(request, view.stage, arm), arm, time.monotonic())
        served = own = self._run(arm, inputs)
        watching = self._pending.end(call) and view.watching
        if arm == CHALLENGER and own.error is not None:
            served = self._run(CHAMPION, inputs, count=False)
            if served.error is not None:  # the input is bad, which says nothing of either model
                self._hear(CHAMPION, served)
                watching = False
        paired = self._watch(view, arm, own, inputs, request, features) if watching else False
        if served.error is not None and served.output is None:
            raise served.error
        receipt = Receipt(request, view.stage, arm, paired, served.reading.labels)
        return Answer(
            served.output, write_receipt(receipt, self._terms.secret, self.store.name), request, arm
        )

    @property
    def view(self) -> View:
        """Where the roll-out is, as far as this process knows; without the store, the champion alone."""
        view = self._recorder.view
        if self._recorder.age() <= self.stale or view.status in ("promoted", "rolled back"):
            return view
        return View(view.stage, 0.0, "held", "the store does not answer: the champion alone", watching=False)

    @property
    def store_age(self) -> float:
        """Seconds since the store last answered."""
        return self._recorder.age()

    def record(
        self,
        receipt: str,
        *,
        label: int | str | None = None,
        labels: list[int | str] | tuple[int | str, ...] | None = None,
        score: float | None = None,
    ) -> bool:
        """Record how an answer turned out; when this returns, it is in the database for good.

        Args:
            receipt: what came with the answer.
            label: the true label, of an answer to one row.
            labels: the true labels, of an answer to several.
            score: how good the answer was, from 0 to 1, where there are no labels.
        Returns: whether it is new; False when this request's outcome was recorded before.
        Raises: ReceiptError, for a receipt of somebody else's or an outcome that does not fit it;
            StoreError, when it could not be written: it is not recorded then, try again.
        """
        return self.submit(receipt, label=label, labels=labels, score=score).result()

    def submit(
        self,
        receipt: str,
        *,
        label: int | str | None = None,
        labels: list[int | str] | tuple[int | str, ...] | None = None,
        score: float | None = None,
    ) -> Future[bool]:
        """Record how an answer turned out, as `record` does, but wait for nothing: the future says when."""
        given = read_receipt(receipt, self._terms.secret, self.store.name)
        outcome = make_outcome(given, label=label, labels=labels, score=score, now=time.time())
        return self._recorder.record(outcome)

    def order(self, command: str) -> View:
        """Do what a person says: hold, resume, advance or roll-back; seen here at once.

        Raises: CorankError, for another word, or a roll-out that is over.
        """
        view, _ = self.store.order(self.policy, command, time.time())
        self._recorder.take(view)
        return view

    def status(self) -> dict[str, Any]:
        """Return where it is, on what evidence, and every move, as plain values."""
        from corank.rollout.reporting import report

        dropped = {"observations": self._recorder.dropped, "beside": self._beside.dropped}
        return report(self.store, self.policy) | {"here": asdict(self.view) | {"dropped": dropped}}

    def close(self) -> None:
        """Finish what is waiting, for 30 s each at the most, and let the store go."""
        try:
            self._beside.close()
        finally:
            try:
                self._recorder.close()
            finally:
                self.store.close()

    def __enter__(self) -> Router:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self, arm: str, inputs: Any, *, count: bool = True) -> Done:
        done = answer_with(self._models[arm], inputs, self._read)
        if count:
            self._hear(arm, done)
        return done

    def _hear(self, arm: str, done: Done) -> None:
        if self._listener is not None:
            self._listener(arm, done.run)

    def _give_up(self) -> None:
        for row, arm, run in self._pending.overdue(time.monotonic()):
            self._recorder.observe(row)
            if self._listener is not None:
                self._listener(arm, run)
        self._beside.relieve(self._pending.patience)

    def _watch(
        self,
        view: View,
        arm: str,
        own: Done,
        inputs: Any,
        request: str,
        features: tuple[float, ...] | None,
    ) -> bool:
        """Write down what was seen; say whether the other model answers as well."""
        champion, challenger = (own.run, None) if arm == CHAMPION else (None, own.run)
        row = Observation(request, view.stage, arm, champion, challenger, None, features)
        share = self.policy.shadow_share if view.share == 0 else self.policy.paired_share
        if share > 0 and falls_under(self._terms.salt + "beside", request, share):
            other = CHALLENGER if arm == CHAMPION else CHAMPION
            if self._beside.offer(lambda: self._compare(row, own, other, inputs)):
                return own.reading.labels is not None
        # live, what fails with one model counts only if the other can do it, on both sides alike
        elif (
            arm == CHAMPION
            and own.error is not None
            and view.share > 0
            and self._beside.offer(lambda: self._try_other(row, inputs))
        ):
            return False
        self._recorder.observe(row)
        return False

    def _compare(self, row: Observation, own: Done, other: str, inputs: Any) -> None:
        done = self._run_beside(row, other, inputs)
        if done is None:
            return
        a, b = own.reading.labels, done.reading.labels
        agreement = None
        if a and b and len(a) == len(b):
            agreement = sum(x == y for x, y in zip(a, b, strict=True)) / len(a)
        if a is not None:
            self._recorder.shadow(row.request, b or ())  # without labels too: the outcome waits for this
        runs = (own.run, done.run) if other == CHALLENGER else (done.run, own.run)
        self._recorder.observe(Observation(row.request, row.stage, row.arm, *runs, agreement, row.features))

    def _try_other(self, row: Observation, inputs: Any) -> None:
        done = self._run_beside(row, CHALLENGER, inputs)
        if done is not None and done.error is None:
            self._recorder.observe(row)

    def _run_beside(self, row: Observation, arm: str, inputs: Any) -> Done | None:
        """Run a model beside a request; None where it was given up, and counted, before it came back."""
        call = self._pending.begin(row, arm, time.monotonic())
        done = self._run(arm, inputs, count=False)
        if not self._pending.end(call):
            return None
        self._hear(arm, done)
        return done

    def _features(self, inputs: Any) -> tuple[float, ...] | None:
        try:
            found = self._describe(inputs)
            return None if found is None else tuple(float(one) for one in found)
        except Exception:  # what cannot be described is not watched
            return None
