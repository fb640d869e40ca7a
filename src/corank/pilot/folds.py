"""K-fold cross-validation of a trial: every sample of train and dev is held out once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from torch import Tensor

from corank.decision.comparison import difference_ci, follows
from corank.errors import CorankError
from corank.latency import LatencyTable
from corank.pilot.arms import Trainer
from corank.pilot.options import ARMS, TrialOptions
from corank.pilot.problem import Problem
from corank.pilot.scores import measure
from corank.replay import set_seed
from corank.state_files import read_state, write_state
from corank.tasks import Metric, Task


@dataclass(frozen=True, slots=True)
class FoldTask:
    """`seed -> Task` of one fold of a problem."""

    problem: Problem
    fold: int
    folds: int

    def __call__(self, seed: int) -> Task:
        """Return the task of the fold."""
        if self.problem.make_fold is None:
            raise CorankError("folds: this problem has none.")
        return self.problem.make_fold(seed, self.fold, self.folds)


def require_folds(problem: Problem, options: TrialOptions) -> None:
    """Raise CorankError, before any work, where folds are asked for and cannot be made."""
    if not options.folds:
        return
    if problem.make_start is not None:
        raise CorankError(
            "folds: trained weights have seen the samples that a fold would hold out. Leave out --weights."
        )
    if problem.make_fold is None:
        raise CorankError(
            f"folds: {problem.data} cannot be split again. Write the factory as task(seed, fold=None, "
            "folds=None), where final of a fold holds out its part of train and dev."
        )
    for fold in range(options.folds):
        FoldTask(problem, fold, options.folds)(options.seeds[0])  # which fails here, not after training


def run_folds(
    problem: Problem, options: TrialOptions, work: Path, table: LatencyTable | None, progress: bool
) -> dict[str, Any] | None:
    """Train every arm on every fold, and compare them on what was held out.

    The held-out samples of all folds are compared together, each with the network that had not seen it. The
    networks of two folds share most of their training data, so the interval is a little too narrow; it says
    more about the method than about the network that is shipped, and the gate does not use it.

    Returns: the deciding metric by fold, and the difference to dense over all held-out samples with its
        interval; None without folds.
    """
    if not options.folds:
        return None
    runs = []
    for fold in range(options.folds):
        folder = work / f"fold{fold}"
        if not (folder / "done.safetensors").exists():
            one = replace(problem, make_task=FoldTask(problem, fold, options.folds))
            scores = _train(one, options, folder, table, progress)
            write_state(folder / "done.safetensors", {"arms": {arm: _kept(m) for arm, m in scores.items()}})
        runs.append(read_state(folder / "done.safetensors")["arms"])
    return summarise(runs)


def summarise(runs: Sequence[Mapping[str, Mapping[str, Any]]]) -> dict[str, Any]:
    """Put the folds together: `{arm: {"value", "higher", "rows"}}` each."""
    arms = {}
    for name in runs[0]:
        values = [run[name]["value"] for run in runs]
        gaps = [run[name]["value"] - run["dense"]["value"] for run in runs]
        arms[name] = {
            "accuracy": values,
            "mean_accuracy": fmean(values),
            "difference": gaps if name != "dense" else None,
            "difference_ci": None if name == "dense" else _pooled(runs, name),
        }
    samples = [len(run["dense"]["rows"]) if run["dense"]["rows"] is not None else None for run in runs]
    return {"folds": len(runs), "samples": samples, "arms": arms}


def _train(
    problem: Problem, options: TrialOptions, folder: Path, table: LatencyTable | None, progress: bool
) -> dict[str, Metric]:
    seed = options.seeds[0]
    set_seed(seed)
    trainer = Trainer(problem, seed, options, folder, table, progress)
    start = trainer.make_start()
    arms = [trainer.make_arm(name, start) for name in ARMS if name in options.arms]
    task = problem.make_task(seed)
    return {arm.name: next(iter(measure(arm.model, task, "final").values())) for arm in arms}


def _kept(metric: Metric) -> dict[str, Any]:
    single = metric.reduce is None and follows(metric)
    return {
        "value": metric.value,
        "higher": metric.higher_is_better,
        "rows": metric.per_sample if single else None,
    }


def _pooled(runs: Sequence[Mapping[str, Mapping[str, Any]]], name: str) -> list[float] | None:
    sides: list[list[Tensor]] = [[run[arm]["rows"] for run in runs] for arm in (name, "dense")]
    if any(rows is None for side in sides for rows in side):
        return None
    one, two = (Metric(0.0, per_sample=torch.cat(side)) for side in sides)
    return list(difference_ci(one, two))
