"""One seed of a trial: its arms trained, measured and described."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from corank.benchmarks import BenchResult, bench
from corank.latency import LatencyTable
from corank.pilot.arm import Arm
from corank.pilot.arms import Trainer
from corank.pilot.drift import measure_drift
from corank.pilot.energy import measure_energy
from corank.pilot.front import make_points, record_front
from corank.pilot.options import ARMS, TrialOptions
from corank.pilot.overhead import force_overhead
from corank.pilot.problem import Problem
from corank.pilot.record import record_arm
from corank.pilot.samples import sample_columns
from corank.pilot.scores import is_share, measure
from corank.replay import set_seed
from corank.state_files import read_state, write_state
from corank.tasks import Metric, Task


@dataclass(frozen=True, slots=True)
class Run:
    """What came of one seed: a record of each arm, how it was timed, and what was said of each sample."""

    records: list[dict[str, Any]]
    terms: dict[str, Any]
    metric: dict[str, Any]
    samples: dict[str, Tensor]
    front: dict[str, Any] | None = None


def run_seed(
    problem: Problem,
    seed: int,
    options: TrialOptions,
    table: LatencyTable | None,
    folder: Path,
    progress: bool,
) -> Run:
    """Train, measure and describe every arm of one seed; what was written before is read.

    Args:
        problem, options, table: of the trial.
        seed: of this run; drift, energy and the front are measured for the first alone, whose figures are
            told.
        folder: of this seed.
        progress: show bars on a terminal, log lines elsewhere.
    """
    if (folder / "done.safetensors").exists():
        return Run(**read_state(folder / "done.safetensors"))
    set_seed(seed)
    trainer = Trainer(problem, seed, options, folder, table, progress)
    start = trainer.make_start()
    names = [name for name in ARMS if name in options.arms]
    trained = [trainer.make_arm(name, start) for name in names]
    first = seed == options.seeds[0]
    fronted = bool(options.front) and first
    points = make_points(trainer, start) if fronted else []
    task = problem.make_task(seed)
    scores = {arm.name: measure(arm.model, task, "final") for arm in trained}
    result = bench(
        {arm.name: arm.model for arm in (*trained, *points)},
        task.example,
        backends=options.backends,
        threads=options.threads or torch.get_num_threads(),
        rounds=options.rounds,
        seed=seed,
    )
    dense = trained[0].model
    records = [
        record_arm(
            arm,
            dense,
            scores[arm.name],
            None if arm is trained[0] else scores["dense"],
            task,
            result,
            problem.classes,
        )
        for arm in trained
    ]
    drift = _measure_drift(trained, scores, problem, task, options) if first else {}
    models = {arm.name: arm.model for arm in trained}
    energy = measure_energy(models, task.example) if options.energy and first else {}
    for record in records:
        record["energy"] = energy.get(record["name"])
        record["drift"] = drift.get(record["name"])
        overhead = force_overhead(start.model, task, options) if ARMS[record["name"]].force else None
        record["force_overhead"] = overhead and overhead[0]
        record["force_overhead_ci"] = overhead and list(overhead[1])
    metric = _metric(scores["dense"])
    front = record_front(trained, points, task, result, options) if fronted else None
    run = Run(records, _terms(result), metric, sample_columns(scores, metric["share"]), front)
    write_state(folder / "done.safetensors", asdict(run))
    return run


def _measure_drift(
    trained: list[Arm],
    scores: Mapping[str, Mapping[str, Metric]],
    problem: Problem,
    task: Task,
    options: TrialOptions,
) -> dict[str, dict[str, Any]]:
    if not options.drift and problem.shifted is None:
        return {}
    return measure_drift(
        {arm.name: arm.model for arm in trained},
        {arm: next(iter(metrics.values())) for arm, metrics in scores.items()},
        task,
        corruptions=options.drift,
        shifted=problem.shifted,
    )


def _terms(result: BenchResult) -> dict[str, Any]:
    return {
        "threads": result.threads,
        "precision": result.precision,
        "versions": dict(result.versions),
        "machine": {key: str(value) for key, value in result.machine.items()},
        "notes": list(result.notes),
    }


def _metric(scores: Mapping[str, Metric]) -> dict[str, Any]:
    name, metric = next(iter(scores.items()))
    return {"name": name, "higher_is_better": metric.higher_is_better, "share": is_share(metric)}
