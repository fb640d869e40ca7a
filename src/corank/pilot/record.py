"""What a trial writes down about an arm: plain values for pilot.json."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from corank.benchmarks import BenchResult, count_subnormal
from corank.cost import model_cost
from corank.decision.comparison import compare, find_groups
from corank.decision.confidence import describe_calibration
from corank.inputs import first_tensor
from corank.layers import CONVS, filter_layers
from corank.pilot.arm import Arm
from corank.pilot.scores import describe
from corank.plans import Choice
from corank.tasks import Metric, Task

ENERGY = 0.95  # the paper's "5% error"


def record_arm(
    arm: Arm,
    dense: nn.Module,
    scores: Mapping[str, Metric],
    reference: Mapping[str, Metric] | None,
    task: Task,
    bench: BenchResult,
    classes: Sequence[str] = (),
) -> dict[str, Any]:
    """Describe one trained, measured arm; `reference` holds the control's scores on the same final samples.

    `classes` are their names, for what is told class by class.

    What is called accuracy is the deciding metric of the task, which is its first.
    """
    metrics = {name: describe(one, (reference or {}).get(name)) for name, one in scores.items()}
    deciding, first = next(iter(metrics.values())), next(iter(scores.values()))
    return {
        **record_figures(arm, deciding, task, bench),
        "epochs": len(arm.history),
        "metrics": metrics,
        "comparison": None if reference is None else _compare(first, reference, task, classes),
        "calibration": None if first.classified is None else describe_calibration(first.classified),
        "spectral_rank_ratio": arm.spectrum.rank_ratio(ENERGY),
        "subnormal": {"before_cut": arm.subnormal, "final": count_subnormal(arm.model)},
        "layers": _layers(arm, dense),
        "basis_filters": _basis_filters(arm),
        "latency_p5_p95": {
            row.backend: [row.p5_ms, row.p95_ms] for row in bench.timings if row.model == arm.name
        },
        "history": arm.history,
    }


def record_figures(arm: Arm, told: Mapping[str, Any], task: Task, bench: BenchResult) -> dict[str, Any]:
    """Describe what a network reaches, costs and takes: what an arm and a point of the front have in common.

    `told` is the deciding metric, as `describe` gives it.
    """
    cost = model_cost(arm.model, task.example)
    timings = {row.backend: row for row in bench.timings if row.model == arm.name}
    return {
        "name": arm.name,
        "accuracy": told["value"],
        "accuracy_ci": told["ci"],
        "accuracy_difference": told["difference"],
        "accuracy_difference_ci": told["difference_ci"],
        "accuracy_after_cut": arm.accuracy_after_cut,
        "macs": cost.macs // first_tensor(task.example).shape[0],  # of one sample
        "params": cost.params,
        "decomposed": len(arm.plan.layers) if arm.plan else 0,
        "plan_rank_ratio": arm.plan.rank_ratio if arm.plan else 1.0,
        "latency_ms": {engine: row.median_ms for engine, row in timings.items()},
        "speedup": {engine: row.speedup for engine, row in timings.items()},
        "speedup_ci": {engine: list(row.speedup_ci) for engine, row in timings.items()},
        "peak_memory": {engine: row.peak_memory for engine, row in timings.items()},
        "training_seconds": arm.seconds,
    }


def _compare(
    first: Metric, reference: Mapping[str, Metric], task: Task, classes: Sequence[str]
) -> dict[str, Any] | None:
    dense = next(iter(reference.values()))
    samples = 0 if first.per_sample is None else len(first.per_sample)
    return compare(first, dense, find_groups(dense.classified, classes, task.slices, samples))


def _layers(arm: Arm, dense: nn.Module) -> list[dict[str, Any]]:
    usable, left = filter_layers(dense)
    spectra = {row.layer: row for row in arm.spectrum}
    rows = []
    for name in [*usable, *left]:
        row = spectra.get(name)
        choice = arm.plan.layers.get(name) if arm.plan else None
        rows.append(
            {
                "name": name,
                "kind": type(dense.get_submodule(name)).__name__,
                "full_rank": row.full_rank if row else None,
                "spectral_rank": row.rank(ENERGY) if row else None,
                "plan_rank": choice.rank if choice else None,
                "method": choice.method if choice else None,
                "reason": _reason(arm, name, choice, left),
                "error": arm.errors.get(name),
                "macs": [choice.before.macs, choice.after.macs] if choice else None,
                "singular_values": row.singular_values[0].tolist() if row else [],
            }
        )
    return rows


def _reason(arm: Arm, name: str, choice: Choice | None, left: Mapping[str, str]) -> str | None:
    if choice is not None:
        return choice.note or None
    if arm.plan is not None:
        return arm.plan.skipped[name]
    return left.get(name, "this arm is not cut")


def _basis_filters(arm: Arm) -> dict[str, Any] | None:
    """Return the first split 2-d convolution's basis filters as images, mean over input channels."""
    for name in arm.plan.layers if arm.plan else ():
        split = arm.model.get_submodule(name)
        first = split[0] if isinstance(split, nn.Sequential) else None
        if isinstance(first, CONVS[1]) and first.kernel_size != (1, 1):
            return {"layer": name, "filters": first.weight.detach().float().mean(1).tolist()}
    return None
