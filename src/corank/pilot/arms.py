"""Train the arms of a trial: equal epochs, data order and learning rates, with and without force and cut."""

from __future__ import annotations

import copy
import logging
import time
from dataclasses import dataclass, field
from typing import Any

from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from corank.benchmarks import count_subnormal
from corank.calibration import calibrate
from corank.decomposition import decompose
from corank.methods import fold
from corank.methods.projection import reconstruction_error
from corank.pilot.options import TrialOptions
from corank.pilot.problem import Problem
from corank.planning import plan
from corank.plans import Plan
from corank.recovery import Epoch, default_optimizer, finetune, recalibrate_batchnorm
from corank.regularizer import ForceRegularizer
from corank.rules import Budget
from corank.spectra import Spectrum, spectrum
from corank.tasks import Loader, Task

logger = logging.getLogger(__name__)
ARMS: dict[str, tuple[bool, bool]] = {  # name: (with force, with a cut)
    "dense": (False, False),
    "lowrank": (False, True),
    "force": (True, True),
}


@dataclass
class Arm:
    """A trained arm, and what was seen on the way."""

    name: str
    model: nn.Module
    spectrum: Spectrum  # before the cut
    plan: Plan | None = None
    errors: dict[str, float] = field(default_factory=dict)  # relative error of each cut layer's weights
    subnormal: int = 0  # weights below float32's normal range at the time of the cut, before it
    accuracy_after_cut: float | None = None  # on dev, batch norm re-estimated, before fine-tuning
    history: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0


def train_shared(problem: Problem, task: Task, options: TrialOptions, progress: bool) -> Arm:
    """Train the network that every arm starts from."""
    arm = Arm("shared", problem.make_model(), Spectrum(()))
    _train(arm, task, options, "shared", options.shared, options.learning_rate, progress=progress)
    return arm


def train_arm(
    name: str, start: Arm, problem: Problem, seed: int, options: TrialOptions, progress: bool
) -> Arm:
    """Train one arm on from the shared start: before the cut, the cut, and after it."""
    task = problem.make_task(seed)  # a fresh one for each arm, so that all see the data in the same order
    with_force, with_cut = ARMS[name]
    arm = Arm(
        name, copy.deepcopy(start.model), Spectrum(()), history=list(start.history), seconds=start.seconds
    )
    force = ForceRegularizer(arm.model, options.strength, kind=options.kind) if with_force else None
    _train(
        arm, task, options, "before_cut", options.before_cut, options.learning_rate_before, force, progress
    )
    arm.spectrum = spectrum(arm.model, types=("conv",))
    arm.subnormal = count_subnormal(arm.model)
    if with_cut:
        _cut(arm, problem, task, problem.make_task(seed + 1).train, options)
    _train(arm, task, options, "after_cut", options.after_cut, options.learning_rate_after, None, progress)
    arm.model.eval()
    return arm


def _train(
    arm: Arm,
    task: Task,
    options: TrialOptions,
    phase: str,
    epochs: int,
    learning_rate: float,
    force: ForceRegularizer | None = None,
    progress: bool = True,
) -> None:
    optimizer = default_optimizer(arm.model, learning_rate, weight_decay=options.weight_decay)
    scheduler = CosineAnnealingLR(optimizer, epochs * len(task.train))  # type: ignore[arg-type]
    if force is not None:
        force.attach(optimizer)
    offset = len(arm.history)

    def note(epoch: Epoch) -> None:
        arm.seconds += epoch.seconds
        accuracy = dev_score(arm.model, task)
        arm.history.append(
            {"epoch": offset + epoch.number, "phase": phase, "loss": epoch.loss, "dev_accuracy": accuracy}
        )

    label = f"{arm.name}: {phase.replace('_', ' the ')}" if "_" in phase else f"{arm.name} start"
    finetune(
        arm.model,
        task.train,
        epochs=epochs,
        loss=task.loss,
        optimizer=optimizer,
        scheduler=scheduler,
        after_epoch=note,
        progress=progress,
        label=label,
    )
    if force is not None:
        force.detach()


def _cut(arm: Arm, problem: Problem, task: Task, samples: Loader, options: TrialOptions) -> None:
    # `samples` are training data in an order of their own: drawing them must not shift the arm's order.
    start = time.perf_counter()
    stats = calibrate(arm.model, samples, max_batches=options.calibration_batches)
    arm.plan = plan(
        arm.model,
        Budget(macs=options.macs),
        example=task.example,
        stats=stats,
        multiple=options.multiple,
        exclude=problem.keep,
    )
    small = decompose(arm.model, arm.plan, stats)
    for name in arm.plan.layers:
        dense, split = arm.model.get_submodule(name), small.get_submodule(name)
        folded = fold(split)  # type: ignore[arg-type]
        arm.errors[name] = reconstruction_error(dense, folded)  # type: ignore[arg-type]
    recalibrate_batchnorm(small, samples)
    arm.model = small
    arm.seconds += time.perf_counter() - start
    arm.accuracy_after_cut = dev_score(small, task)
    logger.info("%s: cut to %.3f of the MACs", arm.name, arm.plan.after.macs / arm.plan.before.macs)


def dev_score(model: nn.Module, task: Task) -> float:
    """Return the deciding metric on dev."""
    return next(iter(task.evaluate(model, task.dev).values())).value
