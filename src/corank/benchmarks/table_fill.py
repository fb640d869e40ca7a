"""Filling a latency table: every dense layer, then the splits while there is time, and what was left out."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

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
    dense: Mapping[str, float],
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
        dense: seconds of each unit's dense layer.
        prepare: makes a chain ready to run.
        measure: times some runners in turns.
        rounds: how many samples `measure` takes.
        stop: when the clock stops it; None measures everything.
        seed: of weights and intervals.
        progress: show how far it is.
        clock: returns seconds.
    """
    total: Counter[str] = Counter()
    for called in survey.calls.values():
        total += called
    weight = {key: dense[key] * total[key] for key in survey.units}
    steps = [
        Step(step.unit, tuple(left))
        for step in plan_steps(survey.splits, weight)
        if (left := missing(survey.units[step.unit], step.splits, times).values())
    ]
    missed: list[Step] = []
    spent, ready = 0.0, 0  # what making candidates ready took besides their runs, and how many they were
    for step in track(steps, "time the splits", enabled=progress):
        count, begun = len(step.splits) + 1, clock()
        runs = count * max(dense[step.unit], MIN_TIME) * (rounds + _EXTRA)
        if stop is not None and begun + runs + spent / max(ready, 1) * count > stop:
            missed.append(step)
            continue
        measure_step(survey.units[step.unit], step, times, prepare, measure, seed)
        spent, ready = spent + max(clock() - begun - runs, 0.0), ready + count
    return missed


def note_unsteady(survey: Survey, times: Times, key: str) -> list[str]:
    """Say during which runs the machine was not steady."""
    names = [name for name, called in survey.calls.items() if any(unit in times.unsteady for unit in called)]
    names += ["the whole network"] if key in times.unsteady else []
    return [f"the machine was not steady while these were timed: {', '.join(names)}"] if names else []


def note_missed(missed: Sequence[Step], survey: Survey, time_budget: float | None) -> list[str]:
    """Say which splits no time was left for."""
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
