"""The search: trials are drawn, trained to the end or given up, and kept in a database."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from corank.errors import CorankError, FileError, OutOfMemoryError
from corank.extras import import_extra
from corank.files import write_text
from corank.latency import LatencyTable
from corank.pilot.arm import Arm
from corank.pilot.arm_files import drop_stages
from corank.pilot.arms import UNFORCED, Trainer
from corank.pilot.checks import check_problem
from corank.pilot.folder import held, is_free
from corank.pilot.identity import identity_of
from corank.pilot.options import TrialOptions
from corank.pilot.problem import Problem
from corank.pilot.scores import measure
from corank.pilot.times import measure_times
from corank.replay import set_seed
from corank.tuning.pruning import Course, is_hopeless
from corank.tuning.record import write_result
from corank.tuning.seeded import SeededDraws
from corank.tuning.space import Space, defaults, draw, options_at
from corank.tuning.studies import SEARCH, one_table, open_storage, open_study, require_own

logger = logging.getLogger(__name__)


class _HopelessError(Exception):
    """A trial is not worth finishing."""


def tune(
    problem: Problem,
    out: Path,
    options: TrialOptions | None = None,
    space: Space | None = None,
    *,
    trials: int = 30,
    storage: str | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Search the settings of a trial for accuracy on dev and for the cost that is left, both at once.

    Every trial trains one arm of a pilot, cut and recovered, from the same start and with the same epochs;
    final is not touched. One that enough cheaper trials were ahead of at the same epoch is given up. The
    first trials are the fixed settings without and with a force, so the search never ends below them.

    The study is kept in a database. The same call goes on with one that was killed: a trial that was under
    way goes on from its checkpoint. Several workers are the same call, started in the same folder, or on
    other machines with the same storage. A dense network trained as long as the trials is the reference.

    Args:
        problem: the task and the network.
        out: a folder for checkpoints, `tune.json`, pictures and recipes; made if absent.
        options: epochs, seed and all that is not searched.
        space: what is searched.
        trials: of the whole study, by all workers, given up or not.
        storage: an Optuna storage URL; SQLite in the folder by default.
        progress: show bars on a terminal, log lines elsewhere.
    Returns: what `tune.json` holds: all trials, the front, and which settings mattered.
    Raises: CorankError, before any work for what can be known then; ExtraError, without Optuna; FileError,
        for a folder that holds another search, or a storage that does.

    >>> import tempfile, torch
    >>> from torch import nn
    >>> from corank.pilot.problems import make_problem
    >>> from corank.tasks import classification
    >>> def make():
    ...     two = nn.Conv2d(1, 16, 3), nn.Conv2d(16, 16, 3)
    ...     return nn.Sequential(two[0], nn.ReLU(), two[1], nn.Flatten(), nn.Linear(256, 2))
    >>> parts = [[(torch.randn(8, 1, 8, 8), torch.tensor([0, 1] * 4))] for _ in range(3)]
    >>> task = classification(*parts, example=torch.ones(2, 1, 8, 8))
    >>> problem = make_problem("noise", "net", make, task=task, keep=("4",))
    >>> options = TrialOptions(shared=1, before_cut=1, after_cut=1, multiple=1)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     found = tune(problem, Path(folder), options, Space(kinds=("l2",)), trials=1, progress=False)
    >>> [one["state"] for one in found["trials"]]
    ['complete']
    """
    options, space = options or TrialOptions(), space or Space()
    optuna = import_extra("optuna", "tune")
    if not isinstance(trials, int) or isinstance(trials, bool) or trials < 1:
        raise CorankError(f"trials: allowed is a whole number from 1, got {trials}.")
    if problem.make_start is not None:
        options = replace(options, shared=0)
    first = defaults(space, options)
    forced = [
        point | {"layers": layers} for point in first if "layers" in point for layers in space.layers[1:]
    ]
    for point in [*first, *forced]:
        # nothing is timed here but the table, so the engines of the pilot need not be there
        check_problem(problem, replace(options_at(point, space, options), backends=("torch",)))
    identity = identity_of(problem, {"options": options.to_dict(), "space": space.to_dict()})
    require_own(out, identity)
    with _quiet(optuna):
        database = None if storage is None else open_storage(optuna, storage)
        if not (out / SEARCH).exists():
            write_text(out / SEARCH, json.dumps(identity, indent=1))
        with held(out / "work" / "opening"):  # workers that start together time and enqueue once
            study = open_study(optuna, database or f"sqlite:///{(out / 'tune.db').resolve()}", out, identity)
            for point in first:
                study.enqueue_trial(point, skip_if_exists=True)
            table = None
            if space.timed:
                measure = partial(_measure_table, problem, out, options, space, progress)
                table = one_table(study, out, measure)
        sign = _sign(problem, options)
        search = _Search(problem, out, options, space, table, optuna, study, storage is None, sign, progress)
        search.run(trials)
        return write_result(out, study, identity, space, options, search.reference(), optuna)


def _measure_table(
    problem: Problem, out: Path, options: TrialOptions, space: Space, progress: bool
) -> LatencyTable:
    return measure_times(
        problem,
        options.seeds[0],
        out / "work",
        backend=space.backend,
        time_budget=space.time_budget,
        threads=options.threads,
        progress=progress,
    )


@dataclass(frozen=True, slots=True)
class _Search:
    problem: Problem
    out: Path
    options: TrialOptions
    space: Space
    table: LatencyTable | None
    optuna: ModuleType
    study: Any
    local: bool  # whether the database is in the folder, so that every worker is
    sign: float  # of the deciding metric, so that higher is better
    progress: bool

    def run(self, trials: int) -> None:
        """Run trials until the study has as many as wanted."""
        while True:
            with ExitStack() as stack:
                trial = self._take(trials, stack)
                if trial is None:
                    return
                self._run(trial, self._folder(trial))

    def _take(self, trials: int, stack: ExitStack) -> Any:
        """Return a trial whose folder is held until the stack is left; None when there are enough."""
        # the folder is made and held in here too: workers never take one trial too many, or one twice
        with held(self.out / "work" / "opening"):
            trial = self._next(trials)
            if trial is not None:
                stack.enter_context(held(self._folder(trial)))
            return trial

    def _folder(self, trial: Any) -> Path:
        return self.out / "work" / f"trial{trial.number}"

    def _next(self, trials: int) -> Any:
        """Return a trial that a dead worker left in this folder, or a new one; None when there are enough."""
        for one in self._trials("RUNNING"):
            folder = self._folder(one)
            # without a folder its worker died as it took it, or it is on another machine, with the storage
            if is_free(folder) if folder.exists() else self.local:
                logger.info("trial %d goes on", one.number)
                return self.optuna.trial.Trial(self.study, one._trial_id)
        number = len(self.study.trials) - len(self._trials("WAITING"))
        return None if number >= trials else self.study.ask()

    def _run(self, trial: Any, folder: Path) -> None:
        state = self.optuna.trial.TrialState
        draws = SeededDraws(trial, self.optuna, self.options.seeds[0])
        chosen = options_at(draw(self.space, draws), self.space, self.options)
        name = chosen.arms[1]

        def watch(arm: Arm) -> None:
            course = self._course(arm)
            if course is not None:
                _note(trial, course)
                if is_hopeless(course, self._finished()):
                    raise _HopelessError

        trainer = self._trainer(chosen, folder, watch)
        try:
            arm = trainer.make_arm(name, self._start())
        except _HopelessError:
            logger.info("trial %d is given up: cheaper ones were ahead", trial.number)
            self.study.tell(trial, state=state.PRUNED, skip_if_finished=True)
        except CorankError as error:
            if isinstance(error, FileError | OutOfMemoryError):
                raise  # of this machine: with more room the same trial goes on from its checkpoint
            # a plan that cannot be made, or a loss that is not finite, is a result of these settings
            logger.info("trial %d failed: %s", trial.number, error)
            trial.set_user_attr("failed", str(error)[:500])
            self.study.tell(trial, state=state.FAIL, skip_if_finished=True)
        else:
            course = self._course(arm)
            assert course is not None  # it was cut
            _note(trial, course)  # the arm may have been finished before the worker died
            self.study.tell(trial, [course.scores[-1], course.cost], skip_if_finished=True)
            drop_stages(folder / UNFORCED, "before_cut")  # no second arm of this trial takes it up

    def reference(self) -> float:
        """Return what a dense network reaches on dev after the same epochs, trained once."""
        folder = self.out / "work" / "dense"
        with held(folder):
            arm = self._trainer(self.options, folder, None).make_arm("dense", self._start())
        return self.sign * float(arm.history[-1]["dev_accuracy"])

    def _start(self) -> Arm:
        folder = self.out / "work" / "start"
        set_seed(self.options.seeds[0])
        with held(folder):
            return self._trainer(self.options, folder, None).make_start()

    def _trainer(self, options: TrialOptions, folder: Path, watch: Any) -> Trainer:
        return Trainer(self.problem, self.options.seeds[0], options, folder, self.table, self.progress, watch)

    def _course(self, arm: Arm) -> Course | None:
        if arm.plan is None:
            return None
        recovered = [one for one in arm.history if one["phase"] == "after_cut"]
        return Course([self.sign * float(one["dev_accuracy"]) for one in recovered], self._cost(arm))

    def _cost(self, arm: Arm) -> float:
        made = arm.plan
        assert made is not None  # asked by the caller
        if self.space.timed:
            assert made.ms_before is not None
            assert made.ms_after is not None  # planned from a table
            return made.ms_after / made.ms_before
        return float(getattr(made.after, self.space.cost)) / float(getattr(made.before, self.space.cost))

    def _finished(self) -> list[Course]:
        return [Course(one.user_attrs["scores"], one.user_attrs["cost"]) for one in self._trials("COMPLETE")]

    def _trials(self, state: str) -> list[Any]:
        found: list[Any] = self.study.get_trials(
            deepcopy=False, states=(self.optuna.trial.TrialState[state],)
        )
        return found


def _note(trial: Any, course: Course) -> None:
    trial.set_user_attr("scores", list(course.scores))
    trial.set_user_attr("cost", course.cost)


def _sign(problem: Problem, options: TrialOptions) -> float:
    task = problem.make_task(options.seeds[0])
    model = (problem.make_start or problem.make_model)().eval()
    return 1.0 if next(iter(measure(model, task, "dev").values())).higher_is_better else -1.0


@contextmanager
def _quiet(optuna: ModuleType) -> Iterator[None]:
    """Keep Optuna's own log lines out: a search says itself how far it is."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
