"""The front of a trial: one training cut to several depths, each recovered and measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from corank.benchmarks import BenchResult
from corank.decision.results import CANDIDATES
from corank.pilot.arm import Arm
from corank.pilot.arms import Trainer
from corank.pilot.options import TrialOptions
from corank.pilot.record import record_figures
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
    depths |= {point_name(name, depth): depth for depth in _others(options)}
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
    return record_figures(arm, told, task, bench)
