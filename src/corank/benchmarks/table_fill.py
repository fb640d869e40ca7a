"""Filling a latency table: every dense layer, then the splits while there is time, and what was left out."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from corank.benchmarks.table_cache import Times
from corank.benchmarks.table_measure import Measure, Prepare, measure_step, missing
from corank.benchmarks.table_order import Step, plan_steps
from corank.benchmarks.table_survey import Survey
from corank.progress import track

MIN_TIME = 0.004  # seconds of a sample
_EXTRA = 6  # runs of each candidate before it is sampled: warming up, and finding how often to repeat it


def fill(
    survey: Survey,
    times: Times,
    prepare: Prepare,
    measure: Measure,
    rounds: int,
    stop: float | None,
    seed: int = 0,
    *,
    progress: bool = False,
    clock: Callable[[], float] = time.monotonic,
) -> list[Step]:
    """Measure what is missing, the most informative first, and return the steps that no time was left for.

    Args:
        survey: what there is to time.
        times: what is known; it grows.
        prepare: makes a chain ready to run.
        measure: times some runners in turns.
        rounds: how many samples `measure` takes.
        stop: when the clock stops it; None measures everything. Every dense layer is measured regardless.
        seed: of weights and intervals.
        progress: show how far it is.
        clock: returns seconds.
    """
    for key in track(list(survey.units), "time the dense layers", enabled=progress):
        measure_step(survey.units[key], Step(key), times, prepare, measure, seed)
    each = {key: float(np.median(times.dense[key])) for key in survey.units}
    total: Counter[str] = Counter()
    for called in survey.calls.values():
        total += called
    weight = {key: each[key] * total[key] for key in survey.units}
    steps = [
        Step(step.unit, tuple(left))
        for step in plan_steps(survey.splits, weight)
        if (left := missing(survey.units[step.unit], step.splits, times).values())
    ]
    missed = []
    for step in track(steps, "time the splits", enabled=progress):
        needs = (len(step.splits) + 1) * max(each[step.unit], MIN_TIME) * (rounds + _EXTRA)
        if stop is not None and clock() + needs > stop:
            missed.append(step)
        else:
            measure_step(survey.units[step.unit], step, times, prepare, measure, seed)
    return missed


def note_unsteady(survey: Survey, times: Times) -> list[str]:
    names = [name for name, called in survey.calls.items() if any(key in times.unsteady for key in called)]
    return [f"the machine was not steady while these were timed: {', '.join(names)}"] if names else []


def note_missed(missed: Sequence[Step], survey: Survey, time_budget: float | None) -> list[str]:
    if not missed:
        return []
    splits: dict[str, Counter[str]] = {}
    for step in missed:
        name = next(name for name, called in survey.calls.items() if step.unit in called)
        splits.setdefault(name, Counter()).update(method for method, _ in step.splits)
    said = [
        f"{name} ({', '.join(f'{count} of {method}' for method, count in counts.items())})"
        for name, counts in splits.items()
    ]
    return [f"the time budget of {time_budget:g} s left unmeasured: {'; '.join(said)}"]
