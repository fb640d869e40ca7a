"""What the force costs in training time, measured side by side."""

from __future__ import annotations

import time
from itertools import cycle, islice

import numpy as np
from torch import nn

from corank.benchmarks import speedup
from corank.decision.intervals import Interval
from corank.layers import copy_network
from corank.pilot.arms import make_force
from corank.pilot.options import TrialOptions
from corank.precision import autocast
from corank.recovery import default_optimizer
from corank.tasks import Task


def force_overhead(
    model: nn.Module, task: Task, options: TrialOptions, steps: int = 40
) -> tuple[float, Interval]:
    """Return the share of a training step that the force adds, with its 95% interval.

    Steps with and without alternate on copies of the model, after a pair of warm-up, so that a slow moment
    of the machine falls on both: the median ratio of neighbours, minus 1.
    """
    plain, forced = copy_network(model).train(), copy_network(model).train()
    optimizers = [default_optimizer(plain, 1e-3), default_optimizer(forced, 1e-3)]
    force = make_force(forced, options)
    force.attach(optimizers[1])
    seconds = np.zeros((2, steps + 2))
    for number, batch in enumerate(islice(cycle(task.train), steps + 2)):
        for side in (0, 1) if number % 2 else (1, 0):
            start = time.perf_counter()
            with autocast(plain, options.precision):
                loss = task.loss((plain, forced)[side], batch)
            optimizers[side].zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizers[side].step()
            seconds[side, number] = time.perf_counter() - start
    force.detach()
    ratio, (low, high) = speedup(seconds[1, 2:], seconds[0, 2:])
    return ratio - 1, Interval(low - 1, high - 1)
