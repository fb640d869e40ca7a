"""What a network reaches on dev or final: every metric of the task, checked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

from torch import nn

from corank.decision.comparison import counts_hits, difference_ci, follows
from corank.decision.intervals import accuracy_interval, metric_interval
from corank.errors import CorankError, OutOfMemoryError
from corank.mishaps import is_out_of_memory
from corank.tasks import Metric, Task


def measure(model: nn.Module, task: Task, part: Literal["dev", "final"]) -> dict[str, Metric]:
    """Measure every metric of a task on dev or final; the first one decides.

    Raises: CorankError, for what is no metric, and for one that is not finite; OutOfMemoryError.
    """
    try:
        found = task.evaluate(model, getattr(task, part))
    except (RuntimeError, MemoryError) as error:
        if is_out_of_memory(error):
            raise OutOfMemoryError(
                f"{part}: memory ran out while evaluating. Use smaller batches there."
            ) from error
        raise
    if not isinstance(found, Mapping) or not found:
        raise CorankError(
            f"evaluate: allowed is {{name: Metric}} with at least one, got a {type(found).__name__}. "
            'Return {"accuracy": corank.Metric(value)}.'
        )
    for name, metric in found.items():
        if not isinstance(metric, Metric):
            raise CorankError(
                f"evaluate: {name!r} is a {type(metric).__name__}. Wrap it: corank.Metric(value)."
            )
        if not math.isfinite(metric.value):
            raise CorankError(
                f"evaluate: {name!r} is {metric.value} on {part}. Look at the network's outputs."
            )
    return dict(found)


def dev_score(model: nn.Module, task: Task) -> float:
    """Return the deciding metric on dev."""
    return next(iter(measure(model, task, "dev").values())).value


def gain(model: nn.Module, task: Task) -> float:
    """Return the deciding metric on dev, turned so that higher is better."""
    metric = next(iter(measure(model, task, "dev").values()))
    return metric.value if metric.higher_is_better else -metric.value


def describe(metric: Metric, reference: Metric | None) -> dict[str, Any]:
    """Describe one measured metric beside the control's on the same samples, as plain values.

    Intervals need one row a sample that the metric follows from; others have none.
    """
    difference = None if reference is None else metric.value - reference.value
    paired = reference is not None and _paired(metric, reference)
    return {
        "value": metric.value,
        "higher_is_better": metric.higher_is_better,
        "ci": _interval(metric),
        "difference": difference,
        "difference_ci": list(difference_ci(metric, reference)) if paired and reference is not None else None,
    }


def _paired(metric: Metric, reference: Metric) -> bool:
    one, two = metric.per_sample, reference.per_sample
    if one is None or two is None or len(one) != len(two):
        return False
    return follows(metric) and follows(reference)


def _interval(metric: Metric) -> list[float] | None:
    if metric.per_sample is None or not follows(metric):
        return None
    if counts_hits(metric):
        return list(accuracy_interval(metric.per_sample))
    return list(metric_interval(metric.per_sample, metric.reduce))


def is_share(metric: Metric) -> bool:
    """Say whether a metric reads best in percent: a share of samples, or named as an accuracy."""
    return counts_hits(metric) if metric.per_sample is not None else 0 <= metric.value <= 1
