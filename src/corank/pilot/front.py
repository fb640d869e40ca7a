"""The front of a trial: one training cut to several depths, each recovered and measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from corank.benchmarks import BenchResult
from corank.cost import model_cost
from corank.decision.results import CANDIDATES
from corank.inputs import first_tensor
from corank.pilot.arm import Arm
from corank.pilot.arms import Trainer
from corank.pilot.options import TrialOptions
from corank.pilot.scores import describe, measure
from corank.tasks import Task


def make_points(trainer: Trainer, start: Arm) -> list[Arm]:
    """Cut the training that the page is about to every other depth of the front, and recover each.

    Each point is trained after its cut as long as the arm is, on the same data in the same order.

    Returns: arms with names of their own, such as `force at 0.7`.
    """
    name = front_arm(trainer.options)
    return [
        replace(trainer.make_arm(name, start, depth), name=point_name(name, depth))
        for depth in _others(trainer.options)
    ]


def front_arm(options: TrialOptions) -> str:
    """Return the arm whose training is cut: the one that the page is about."""
    return next(name for name in CANDIDATES if name in options.arms)


def point_name(arm: str, depth: float) -> str:
    """Return what a point is called beside the arms."""
    return f"{arm} at {depth:g}"


def _others(options: TrialOptions) -> list[float]:
    """Return the depths that the arm itself has not, dense first."""
    own = options.target.to_dict().get(str(options.target.share))
    return sorted((depth for depth in options.front if depth != own), reverse=True)


def record_front(
    arms: Sequence[Arm], points: Sequence[Arm], task: Task, bench: BenchResult, options: TrialOptions
) -> dict[str, Any] | None:
    """Describe dense, the arm and its points, from the largest network to the smallest.

    The deciding metric is that on dev: final is read once, by the arms alone. Times are of the same
    interleaved run as those of the arms.

    Returns: plain values for pilot.json; None where no front was asked for.
    """
    if not options.front:
        return None
    name = front_arm(options)
    dense, arm = (next(one for one in arms if one.name == wanted) for wanted in ("dense", name))
    share = str(options.target.share)
    depths = {dense.name: 1.0, name: float(options.target.to_dict()[share])}
    depths |= {point_name(name, depth): depth for depth in options.front if depth not in depths.values()}
    scores = {one.name: measure(one.model, task, "dev") for one in (dense, arm, *points)}
    rows = [
        {"share": depths[one.name], "chosen": one is arm}
        | _point(one, scores[one.name], scores["dense"] if one is not dense else None, task, bench)
        for one in (dense, arm, *points)
    ]
    return {
        "arm": name,
        "by": share,
        "part": "dev",
        "epochs_after_cut": options.after_cut,
        "points": sorted(rows, key=lambda row: -row["share"]),
    }


def _point(
    arm: Arm, scores: Mapping[str, Any], reference: Mapping[str, Any] | None, task: Task, bench: BenchResult
) -> dict[str, Any]:
    deciding, metric = next(iter(scores.items()))
    told = describe(metric, None if reference is None else reference[deciding])
    cost = model_cost(arm.model, task.example)
    timings = {row.backend: row for row in bench.timings if row.model == arm.name}
    return {
        "name": arm.name,
        "accuracy": told["value"],
        "accuracy_ci": told["ci"],
        "accuracy_difference": told["difference"],
        "accuracy_difference_ci": told["difference_ci"],
        "accuracy_after_cut": arm.accuracy_after_cut,
        "macs": cost.macs // first_tensor(task.example).shape[0],
        "params": cost.params,
        "decomposed": len(arm.plan.layers) if arm.plan else 0,
        "plan_rank_ratio": arm.plan.rank_ratio if arm.plan else 1.0,
        "latency_ms": {engine: row.median_ms for engine, row in timings.items()},
        "speedup": {engine: row.speedup for engine, row in timings.items()},
        "speedup_ci": {engine: list(row.speedup_ci) for engine, row in timings.items()},
        "peak_memory": {engine: row.peak_memory for engine, row in timings.items()},
        "training_seconds": arm.seconds,
    }
