"""Optimizer steps with and without a force, one at a time, on the gradients of a real backward pass."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from benchmarks.rank_rivals import Step, sgd
from corank import ForceRegularizer
from corank.regularizer import DEFAULT_EVERY
from corank.strength import AutoStrength

STRENGTH = 1e-3
AUTO = AutoStrength(steps=10_000, rank_ratio=0.5)
REFRESH = 100  # steps between two renewals of a subspace, and between two records for `stats()`
ARMS: dict[str, dict[str, Any]] = {
    "l2": {"kind": "l2"},
    "l1": {"kind": "l1"},
    "l1, every=8": {"kind": "l1", "every": 8},
    "linear": {"kind": "linear"},
    "gravity": {"kind": "gravity"},
    "axis": {"kind": "axis"},
    "subspace": {"kind": "subspace"},
    "subspace, every=1": {"kind": "subspace", "every": 1},
    "subspace, every=8": {"kind": "subspace", "every": 8},
    "output": {"kind": "output"},
    "AutoStrength (l2)": {"kind": "l2", "strength": AUTO},
}


@dataclass(frozen=True, slots=True)
class Case:
    """A network with its batch, and how often each thing is timed; rounds are even."""

    name: str
    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    classes: int
    rounds: int
    rival_rounds: int
    first_steps: int


class Training:
    """A network of random weights on one batch of noise."""

    def __init__(self, case: Case) -> None:
        self.model = case.make().train()
        self.x, self.y = torch.randn(case.shape), torch.randint(0, case.classes, case.shape[:1])
        self.plain = sgd(self.model.parameters())
        self.whole()
        self.grads = [one.grad.clone() for one in self.model.parameters()]
        self._other = torch.zeros(
            2**23
        )  # 32 MB, to leave the caches as a backward pass would: without weights

    def whole(self) -> float:
        """Take one training step without a force: forward, backward, step. Return its seconds."""
        start = time.perf_counter()
        self.plain.zero_grad()
        nn.functional.cross_entropy(self.model(self.x), self.y).backward()
        self.plain.step()
        return time.perf_counter() - start

    def step(self, take: Step, count: int = 1) -> float:
        """Return the mean seconds of some optimizer steps."""
        spent = 0.0
        for _ in range(count):
            for one, grad in zip(self.model.parameters(), self.grads, strict=True):
                one.grad.copy_(grad)
            self._other.add_(1)
            start = time.perf_counter()
            take()
            spent += time.perf_counter() - start
        return spent / count

    def twin(self) -> Training:
        """Return a copy whose weights may change."""
        other = copy.copy(self)
        other.model = copy.deepcopy(self.model)
        for one, grad in zip(other.model.parameters(), self.grads, strict=True):
            one.grad = grad.clone()
        return other


@dataclass(slots=True)
class Arm:
    """One force, with an optimizer of its own on the shared network; all times in seconds.

    `steps` holds the mean step of each round, `firsts` first steps of a new force, when subspaces, ranks and
    records are all due, `looks` what the output force spends on one forward pass that it looks at.
    """

    training: Training
    options: dict[str, Any]
    steps: list[float] = field(default_factory=list)
    firsts: list[float] = field(default_factory=list)
    looks: list[float] = field(default_factory=list)
    taken: int = 0
    force: ForceRegularizer | None = None
    optimizer: torch.optim.Optimizer | None = None

    @property
    def every(self) -> int:
        """From one forced step to the next."""
        return self.options.get("every", DEFAULT_EVERY.get(self.options["kind"], 1))

    @property
    def period(self) -> int:
        """Steps until what happens at the first step happens again, at least."""
        return (AUTO.every if "strength" in self.options else REFRESH) // self.every * self.every

    def renew(self) -> None:
        """Start with a new force, and time its first step."""
        if self.optimizer is None:
            self.optimizer = sgd(self.training.model.parameters())
            self.training.step(self.optimizer.step)  # makes the momentum
        if self.force is not None:
            self.force.detach()
        self.force = ForceRegularizer(self.training.model, **{"strength": STRENGTH, **self.options})
        if self.options["kind"] == "output":
            self.looks.append(self._look())
        else:
            self.force.attach(self.optimizer)
        self.firsts.append(self.training.step(self.optimizer.step))
        self.taken = 1

    def _look(self) -> float:
        """Attach, take one forward pass, and return the seconds in the hooks of the output force."""
        stamps: list[float] = []

        def stamp(*_: object) -> None:
            stamps.append(time.perf_counter())

        layers = [one.layer for one in self.force.layers]
        handles = [layer.register_forward_hook(stamp) for layer in layers]
        self.force.attach(self.optimizer)
        handles += [layer.register_forward_hook(stamp) for layer in layers]
        self.training.model(self.training.x)
        for handle in handles:
            handle.remove()
        self.force._forcing.targets.moments.stop()  # or it would look on in the whole steps of this network
        return sum(stamps[1::2]) - sum(stamps[::2])

    def sample(self) -> None:
        """Time the steps from one forced step to the next; what is due now and then is left to `renew`."""
        if self.taken + self.every > self.period:
            self.renew()
        self.steps.append(self.training.step(self.optimizer.step, self.every))
        self.taken += self.every


class Rival:
    """Another method, on a copy of the network that is put back before each step."""

    def __init__(self, training: Training, make: Callable[[nn.Module], Step]) -> None:
        self.training = training.twin()
        self.weights = [one.detach().clone() for one in self.training.model.parameters()]
        self.take, self.steps = make(self.training.model), []

    @torch.no_grad()
    def sample(self) -> None:
        for one, weight in zip(self.training.model.parameters(), self.weights, strict=True):
            one.copy_(weight)
        self.steps.append(self.training.step(self.take))
