"""The search: trials are drawn, trained to the end or given up, and kept in a database."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
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
from corank.pilot.arms import Trainer, forward_of
from corank.pilot.checks import check_problem
from corank.pilot.folder import held, is_free
from corank.pilot.identity import identity_of
from corank.pilot.options import TrialOptions
from corank.pilot.problem import Problem
from corank.pilot.scores import gain, measure
from corank.pilot.times import measure_times
from corank.recovery import recalibrate_batchnorm
from corank.replay import set_seed
from corank.tuning.pruning import Course, is_hopeless
from corank.tuning.reach import share_left, within_reach
from corank.tuning.record import Aim, write_result
from corank.tuning.seeded import SeededDraws
from corank.tuning.space import NO_FORCE, RATES, Space, defaults, describe, draw, options_at
from corank.tuning.studies import (
    SEARCH,
    one_table,
    open_database,
    open_storage,
    open_study,
    require_own,
)

logger = logging.getLogger(__name__)
_SCORE = "score.json"  # what a dense network reached, higher is better


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
    named: Mapping[str, Any] | None = None,
    sampler: Callable[[int], Any] | None = None,
    give_up: bool = True,
    progress: bool = True,
) -> dict[str, Any]:
    """Search the settings of a trial for accuracy on dev and for the cost that is left, both at once.

    Every trial trains one arm of a pilot, cut and recovered, from the same start and with the same epochs;
    final is not touched. One that enough cheaper trials were ahead of at the same epoch is given up. The
    first trials are the fixed settings without and with a force, so the search never ends below them.

    The study is kept in a database. The same call goes on with one that was killed: a trial that was under
    way goes on from its checkpoint. Several workers are the same call, started in the same folder, or on
    other machines with the same storage. The reference is a dense network trained as long as the trials,
    with the fixed learning rates and with those of the best trial, whichever is better.

    Args:
        problem: the task and the network.
        out: a folder for checkpoints, `tune.json`, pictures and recipes; made if absent.
        options: epochs, seed and all that is not searched.
        space: what is searched.
        trials: of the whole study, by all workers, given up or not.
        storage: an Optuna storage URL; SQLite in the folder by default.
        named: how the recipes of the front name the task and the network, by the keys of a recipe.
        sampler: makes the sampler of Optuna that draws, with a seed; TPE by default.
        give_up: whether trials that cheaper ones were ahead of are given up.
        progress: show bars on a terminal, log lines elsewhere.
    Returns: what `tune.json` holds: all trials, the front, and which settings mattered; it is written after
        every trial.
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
    # the epochs, the seed and what is not searched; no point of a front, which would keep every checkpoint
    options = replace(options, seeds=options.seeds[:1], front=())
    identity = _identity(problem, options, space)
    require_own(out, identity)
    if not space.timed:
        space = within_reach(problem, options, space)
    _check(problem, options, space)
    with _quiet(optuna):
        database = None if storage is None else open_storage(optuna, storage)
        study = _open(optuna, database, out, identity)
        with held(out / "work" / "opening"):  # workers that start together time and enqueue once
            table = None
            if space.timed:
                make = partial(_measure_table, problem, out, options, space, progress)
                table = one_table(study, out, make)
                space = within_reach(problem, options, space, table)
            for point in defaults(space, options):
                study.enqueue_trial(point, skip_if_exists=True)
        draws = sampler or (lambda seed: optuna.samplers.TPESampler(seed=seed))
        search = _Search(
            problem,
            out,
            options,
            space,
            table,
            optuna,
            study,
            local=storage is None,
            aim=_aim(problem, options),
            identity=identity,
            named=named or {},
            sampler=draws,
            give_up=give_up,
            progress=progress,
        )
        return search.run(trials)


def _check(problem: Problem, options: TrialOptions, space: Space) -> None:
    """Raise CorankError for what can be known to fail before anything is trained or timed."""
    first = defaults(space, options)
    forced = [
        {**point, "layers": layers} for point in first if "layers" in point for layers in space.layers[1:]
    ]
    for point in [*first, *forced]:
        # nothing is timed here but the table, so the engines of the pilot need not be there
        check_problem(problem, replace(options_at(point, space, options), backends=("torch",)))


def _identity(problem: Problem, options: TrialOptions, space: Space) -> dict[str, Any]:
    found = identity_of(problem, {"options": options.to_dict(), "space": space.to_dict()})
    del found["training_threads"]  # workers on unlike machines share a search
    return found


def _open(optuna: ModuleType, database: Any, out: Path, identity: Mapping[str, Any]) -> Any:
    """Open the study, and note in the folder which search it holds; where the study is refused, do not."""
    begun = (out / SEARCH).exists()
    if not begun:
        write_text(out / SEARCH, json.dumps(identity, indent=1))
    try:
        with held(out / "work" / "opening"):
            return open_study(optuna, database or open_database(optuna, out), out, identity)
    except CorankError:
        if not begun:
            (out / SEARCH).unlink()
        raise


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
    aim: Aim
    identity: Mapping[str, Any]
    named: Mapping[str, Any]
    sampler: Callable[[int], Any]
    give_up: bool
    progress: bool

    def run(self, trials: int) -> dict[str, Any]:
        """Run trials until the study has as many as wanted; write what is known after each, and return it."""
        start, fixed = self._start(), defaults(self.space, self.options)[0]
        dense = self.out / "work" / "dense"
        if not dense.exists() or is_free(dense):  # else another worker trains it
            self._dense(start, "dense", fixed)
        while self._run_next(trials, start):
            self._write()
        self._dense(start, "dense", fixed)
        best = max(self.study.best_trials, key=lambda one: one.values[0], default=None)
        if best is not None and any(best.params[rate] != fixed[rate] for rate in RATES):
            self._dense(start, f"dense-{best.number}", best.params)
        return self._write()

    def _write(self) -> dict[str, Any]:
        with held(self.out / "work" / "opening"):
            return write_result(
                self.out,
                self.study,
                self.identity,
                self.space,
                self.options,
                self._reference(),
                self.aim,
                self.named,
                self.optuna,
            )

    def _run_next(self, trials: int, start: Arm) -> bool:
        """Run one trial; say whether there was one to run."""
        with ExitStack() as stack:
            trial = self._take(trials, stack)
            if trial is not None:
                self._run(trial, self._folder(trial), start, trials)
        return trial is not None

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
            if self._is_left(self._folder(one)):
                logger.info("trial %d goes on", one.number)
                return self.optuna.trial.Trial(self.study, one._trial_id)  # Optuna has no other way to it
        number = len(self.study.trials) - len(self._trials("WAITING"))
        return None if number >= trials else self.study.ask()

    def _is_left(self, folder: Path) -> bool:
        if folder.exists():
            return is_free(folder)
        return self.local  # its worker died as it took it; else it is on another machine, with the storage

    def _run(self, trial: Any, folder: Path, start: Arm, trials: int) -> None:
        state = self.optuna.trial.TrialState
        draws = SeededDraws(trial, self.sampler, self.options.seeds[0])
        point = draw(self.space, draws)
        chosen = options_at(point, self.space, self.options)
        logger.info("trial %d (%d of %d): %s", trial.number, trial.number + 1, trials, describe(point))

        def watch(arm: Arm) -> None:
            course = self._course(arm)
            if course is None:
                return
            _note(trial, course)
            saves = self.give_up and len(course.scores) < self.options.after_cut
            if saves and is_hopeless(course, self._finished()):
                raise _HopelessError

        trainer = self._trainer(chosen, folder, watch)
        try:
            arm = trainer.make_arm(chosen.arms[1], start)
        except _HopelessError:
            logger.info("trial %d is given up: cheaper ones were ahead", trial.number)
            self.study.tell(trial, state=state.PRUNED, skip_if_finished=True)
        except CorankError as error:
            if isinstance(error, FileError | OutOfMemoryError):
                raise  # of this machine: with more room the same trial goes on from its checkpoint
            # a plan that cannot be made, or a loss that is not finite, is a result of these settings
            logger.warning("trial %d failed: %s", trial.number, error)
            trial.set_user_attr("failed", str(error)[:500])
            self.study.tell(trial, state=state.FAIL, skip_if_finished=True)
        else:
            course = self._course(arm)
            assert course is not None  # it was cut
            _note(trial, course)  # the arm may have been finished before the worker died
            score = self.aim.sign * course.scores[-1]
            logger.info(
                "trial %d: %s %.4f at %.2f of the %s",
                trial.number,
                self.aim.metric,
                score,
                course.cost,
                self.space.cost,
            )
            self.study.tell(trial, [course.scores[-1], course.cost], skip_if_finished=True)
        for made in folder.iterdir():  # networks and checkpoints, which nothing reads any more
            if made.is_dir():
                shutil.rmtree(made)

    def _dense(self, start: Arm, name: str, point: Mapping[str, Any]) -> None:
        """Train a dense network with the learning rates of a point, once, and keep what it reaches on dev."""
        folder = self.out / "work" / name
        with held(folder):
            if (folder / _SCORE).exists():
                return
            # the rates are all that a dense network takes from a point
            chosen = options_at({**point, "kind": NO_FORCE}, self.space, self.options)
            model = self._trainer(chosen, folder, None).make_arm("dense", start).model
            task = self.problem.make_task(self.options.seeds[0])
            reached = [gain(model, task)]
            if recalibrate_batchnorm(model, task.train, forward=forward_of(task)):
                reached.append(gain(model, task))  # as in a cut; after few steps it is all that dense lacks
            write_text(folder / _SCORE, json.dumps(max(reached)))

    def _reference(self) -> float | None:
        """Return the best that a dense network reached after the same epochs; None while none is trained."""
        found = [json.loads(path.read_text()) for path in (self.out / "work").glob(f"dense*/{_SCORE}")]
        return self.aim.sign * max(found) if found else None

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
        scores = [self.aim.sign * float(one["dev_accuracy"]) for one in recovered]
        return Course(scores, share_left(arm.plan, self.space))

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


def _aim(problem: Problem, options: TrialOptions) -> Aim:
    task = problem.make_task(options.seeds[0])
    model = (problem.make_start or problem.make_model)().eval()
    name, metric = next(iter(measure(model, task, "dev").items()))
    return Aim(name, 1.0 if metric.higher_is_better else -1.0)


@contextmanager
def _quiet(optuna: ModuleType) -> Iterator[None]:
    """Keep Optuna's own log lines out: a search says itself how far it is."""
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield
    finally:
        optuna.logging.set_verbosity(before)
