"""Train the arms of a trial: equal epochs, data order and learning rates, with and without force and cut."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR

from corank.benchmarks import count_subnormal
from corank.calibration import Moments, calibrate
from corank.decomposition import decompose
from corank.inputs import Forward, run_batch
from corank.latency import LatencyTable
from corank.layers import copy_network, filter_layers
from corank.methods import fold
from corank.methods.projection import reconstruction_error
from corank.pilot.arm import Arm
from corank.pilot.arm_files import drop_stages, load_arm, save_arm
from corank.pilot.options import ARMS, TrialOptions
from corank.pilot.problem import Problem
from corank.pilot.scores import dev_score, gain
from corank.planning import plan
from corank.plans import Plan
from corank.recovery import Checkpoint, Epoch, default_optimizer, finetune, recalibrate_batchnorm
from corank.regularizer import ForceRegularizer
from corank.replay import set_seed, undisturbed
from corank.rules import Accuracy, Rule
from corank.schedules import Ramp
from corank.spectra import Spectrum, spectrum
from corank.tasks import Loader, Task, cross_entropy

logger = logging.getLogger(__name__)
_PHASES = ("shared", "before_cut", "after_cut")
UNFORCED = "unforced"  # the folder of what arms without force train in common, up to the cut


@dataclass(frozen=True, slots=True)
class Trainer:
    """What the arms of one seed share."""

    problem: Problem
    seed: int
    options: TrialOptions
    folder: Path  # of this seed, for checkpoints and finished arms
    table: LatencyTable | None = None
    progress: bool = True
    watch: Callable[[Arm], None] | None = None  # called after each epoch; what it raises ends the arm

    def make_start(self) -> Arm:
        """Return the network that every arm starts from: with trained weights, or trained here."""
        if self.problem.make_start is not None:
            return Arm("shared", self.problem.make_start(), Spectrum(()))
        arm = Arm("shared", self.problem.make_model(), Spectrum(()))
        task = self.problem.make_task(self.seed)
        self._train(arm, task, "shared", self.options.learning_rate, self.folder)
        return arm

    def make_arm(self, name: str, start: Arm, depth: float | None = None) -> Arm:
        """Train one arm on from the shared start: before the cut, the cut, and after it.

        With a `depth` the same training is cut to another share; what comes before the cut is not repeated.
        """
        own, kind = self.folder / name, ARMS[name]
        folder = own if depth is None else self.folder / f"{name}-{depth:g}"
        if (done := load_arm(name, folder, "done", self.problem)) is not None:
            done.model.eval()
            return done
        task = self.problem.make_task(self.seed)  # a fresh one, so that all arms see the data in one order
        arm = Arm(name, copy_network(start.model), Spectrum(()), history=list(start.history))
        arm.seconds = start.seconds
        force = self._force(arm, task, kind.toward) if kind.force else None
        before = own if kind.force else self.folder / UNFORCED  # the second arm finds it finished
        self._train(arm, task, "before_cut", self.options.learning_rate_before, before, force)
        arm.spectrum = spectrum(arm.model, types=force_types(arm.model))
        arm.subnormal = count_subnormal(arm.model)
        teacher = copy_network(arm.model).eval() if distills(self.options, task) else None
        if kind.cut:
            target = self.options.target if depth is None else self.options.target.at(depth)
            arm = self._cut(arm, task, folder, target.rules)
        self._train(arm, task, "after_cut", self.options.learning_rate_after, folder, teacher=teacher)
        arm.model.eval()
        save_arm(arm, folder, "done", self.problem)
        drop_stages(folder, "cut", "after_cut")
        if not self.options.front:  # whose points begin there
            drop_stages(folder, "before_cut")
        return arm

    def _train(
        self,
        arm: Arm,
        task: Task,
        phase: str,
        learning_rate: float,
        folder: Path,
        force: ForceRegularizer | None = None,
        teacher: nn.Module | None = None,
    ) -> None:
        epochs: int = getattr(self.options, phase)
        # A loader or a layer that draws from the global generators does so alike in every arm.
        set_seed(1000 * self.seed + _PHASES.index(phase))
        optimizer = default_optimizer(arm.model, learning_rate, weight_decay=self.options.weight_decay)
        scheduler = CosineAnnealingLR(optimizer, max(epochs * steps_of(task.train), 1))
        offset = len(arm.history)

        def note(epoch: Epoch) -> None:
            arm.seconds += epoch.seconds
            accuracy = dev_score(arm.model, task)
            arm.history.append(
                {"epoch": offset + epoch.number, "phase": phase, "loss": epoch.loss, "dev_accuracy": accuracy}
            )
            if self.watch is not None:
                self.watch(arm)

        finetune(
            arm.model,
            task.train,
            epochs=epochs,
            loss=task.loss,
            optimizer=optimizer,
            scheduler=scheduler,
            force=force,
            teacher=teacher,
            checkpoint=Checkpoint(
                folder / f"{phase}.safetensors", self.options.checkpoint_every, keep={"arm": arm}
            ),
            after_epoch=note,
            precision=self.options.precision,
            progress=self.progress,
            label=f"{arm.name}: {phase.replace('_', ' the ')}" if "_" in phase else f"{arm.name} start",
        )

    def _force(self, arm: Arm, task: Task, toward: bool) -> ForceRegularizer:
        wanted = None
        if toward:
            with undisturbed(task.train):
                stats = self._calibrate(arm.model, task, self._samples())
                wanted = self._plan(arm.model, task, stats, self.options.target.rules)
        return make_force(arm.model, self.options, wanted, self.options.before_cut * steps_of(task.train))

    def _samples(self) -> Loader:
        # Training data in an order of their own: drawing them must not shift the arm's order.
        return self.problem.make_task(self.seed + 1).train

    def _calibrate(self, model: nn.Module, task: Task, samples: Loader) -> dict[str, Moments]:
        return calibrate(
            model,
            samples,
            max_batches=self.options.calibration_batches,
            forward=forward_of(task),
            inputs=self.table is not None,  # a table has methods that choose along the inputs
        )

    def _plan(self, model: nn.Module, task: Task, stats: dict[str, Moments], rules: tuple[Rule, ...]) -> Plan:
        accurate = any(isinstance(rule, Accuracy) for rule in rules)
        return plan(
            model,
            rules,
            example=task.example,
            stats=stats,
            table=self.table,
            evaluate=(lambda one: gain(one, task)) if accurate else None,
            refit=(lambda one: recalibrate_batchnorm(one, self._samples(), forward=forward_of(task)))
            if accurate
            else None,
            multiple=self.options.multiple,
            exclude=self.problem.keep,
        )

    def _cut(self, arm: Arm, task: Task, folder: Path, rules: tuple[Rule, ...]) -> Arm:
        if (cut := load_arm(arm.name, folder, "cut", self.problem)) is not None:
            return cut
        start = time.perf_counter()
        with undisturbed(task.train):
            samples = self._samples()
            stats = self._calibrate(arm.model, task, samples)
            arm.plan = self._plan(arm.model, task, stats, rules)
            small = decompose(arm.model, arm.plan, stats)
            for name in arm.plan.layers:
                dense, split = arm.model.get_submodule(name), small.get_submodule(name)
                folded = fold(split)  # type: ignore[arg-type]
                arm.errors[name] = reconstruction_error(dense, folded)  # type: ignore[arg-type]
            recalibrate_batchnorm(small, samples, forward=forward_of(task))
            arm.model = small
            arm.seconds += time.perf_counter() - start
            # dev may share its generator with train, and a run that goes on from this stage scores nothing
            arm.accuracy_after_cut = dev_score(small, task)
        logger.info("%s: cut to %.3f of the MACs", arm.name, arm.plan.after.macs / arm.plan.before.macs)
        save_arm(arm, folder, "cut", self.problem)
        return arm


def make_force(
    model: nn.Module, options: TrialOptions, toward: Plan | None = None, steps: int = 1
) -> ForceRegularizer:
    """Make the force of a trial: on convolutions, or on linear layers where there are none.

    Args:
        model: what is forced.
        options: which force, how strong, on what.
        toward: the plan whose ranks it stops at.
        steps: before the cut, over the last of which it cools down.
    """
    cooldown = round(options.cooldown * steps)
    return ForceRegularizer(
        model,
        Ramp(options.strength, steps, cooldown=cooldown) if cooldown else options.strength,
        kind=options.kind,
        types=force_types(model),
        include=None if options.force_layers == ("*",) else options.force_layers,
        toward=toward,
    )


def force_types(model: nn.Module) -> tuple[str, ...]:
    """Return the kind of layers that the force acts on."""
    usable, _ = filter_layers(model, types=("conv",))
    return ("conv",) if usable else ("linear",)


def first_rules(rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
    """Return the rules that can be checked before any training: all but those about accuracy."""
    return tuple(rule for rule in rules if not isinstance(rule, Accuracy))


def forward_of(task: Task) -> Forward:
    """Return how a network runs on a batch of a task: as its loss does, since only that knows the batch."""
    return run_batch if task.loss is cross_entropy else task.loss


def distills(options: TrialOptions, task: Task) -> bool:
    """Say whether networks follow themselves after the cut: only of a classification is it known how."""
    return options.distill and task.loss is cross_entropy


def steps_of(loader: Loader) -> int:
    """Return the batches of one pass: a loader's length, else counted."""
    try:
        return len(loader)  # type: ignore[arg-type]
    except TypeError:
        with undisturbed(loader):
            return sum(1 for _ in loader)
