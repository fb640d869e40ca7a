"""What is done to a network before a cut: the forces, and the other ways of lowering ranks while training."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.optim import Optimizer

from benchmarks.rank_rivals import kernels, lower_nuclear_norm, pat_groups, truncate
from corank import AutoStrength, ForceRegularizer, Plan
from corank.recovery import default_optimizer

TRUNCATE_EVERY = 20  # steps, as in the paper of TRP (Xu et al. 2018)
LOOKS = 7  # at least so many times in a training an arm truncates, or looks at its ranks anew


@dataclass(frozen=True, slots=True)
class Start:
    """What a regularizer may know: the network, how strong, for how many steps, and the plan of the cut."""

    model: nn.Module
    strength: float
    steps: int
    plan: Callable[[], Plan]

    def every(self, usual: int) -> int:
        """Return after how many steps to do what is usually done after so many; sooner in short trainings."""
        return min(usual, max(self.steps // LOOKS, 1))


class Rival:
    """Another way of lowering ranks, in the form of a force: `finetune` attaches it to the optimizer."""

    layers = ()

    def __init__(self, start: Start) -> None:
        self.weights, self.strength, self.step = kernels(start.model), start.strength, 0
        self.every = start.every(TRUNCATE_EVERY)
        self._handles: list[Any] = []

    def attach(self, optimizer: Optimizer) -> None:
        self._handles = [
            optimizer.register_step_pre_hook(lambda *_: self.before()),
            optimizer.register_step_post_hook(lambda *_: self._count()),
        ]

    def detach(self) -> None:
        for handle in self._handles:
            handle.remove()

    def observe_loss(self, loss: float) -> None:
        pass

    def settings(self) -> dict[str, Any]:
        return {"kind": type(self).__name__, "strength": self.strength}

    def state_dict(self) -> dict[str, Any]:
        return {"step": self.step}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.step = state["step"]

    def before(self) -> None:
        """Change the gradients."""

    def after(self) -> None:
        """Change the weights."""

    def _count(self) -> None:
        self.step += 1
        self.after()


class NuclearNorm(Rival):
    """Add a subgradient of the nuclear norm, λ U Vᵀ, to each convolution's gradient."""

    def before(self) -> None:
        lower_nuclear_norm(self.weights, self.strength)


class Truncation(Rival):
    """Trained Rank Pruning: every so many steps cut each convolution to the rank of an energy."""

    def after(self) -> None:
        if self.step % self.every == 0:
            truncate(self.weights, self.strength)


def pat_optimizer(model: nn.Module, learning_rate: float, strength: float) -> Optimizer:
    """torchao's PAT, around the optimizer that all arms use: the proximal step of the nuclear norm."""
    from torchao.prototype.pat.optim import PruneOptimizer

    base = default_optimizer(model, learning_rate)
    terms = {key: value for key, value in base.param_groups.pop().items() if key != "params"}
    for group in pat_groups(model, strength):
        base.add_param_group(terms | group)
    return PruneOptimizer(base)


@dataclass(frozen=True, slots=True)
class Arm:
    """An arm, and its two trials: learning rate before the cut, and strength in the arm's own terms.

    `dosed` says that the strength is per step, so that what it does grows with the steps: it is given for
    the screen on CIFAR-10, and elsewhere divided among the steps there are. `cut` says that the arm is for
    low rank, and not for the accuracy of the uncut network.
    """

    trials: tuple[tuple[float, float], tuple[float, float]]
    make: Callable[[Start], Any] | None = None
    optimizer: Callable[[nn.Module, float, float], Optimizer] | None = None
    dosed: bool = True
    cut: bool = True


def _force(
    kind: str, toward: bool = False, direction: str = "attract"
) -> Callable[[Start], ForceRegularizer]:
    return lambda start: ForceRegularizer(
        start.model,
        start.strength,
        kind=kind,
        direction=direction,
        toward=start.plan() if toward else None,
        refresh=start.every(100),
    )


def _automatic(start: Start) -> ForceRegularizer:
    strength = AutoStrength(steps=start.steps, rank_ratio=start.strength, every=start.every(50))
    return ForceRegularizer(start.model, strength, kind="l2")


ARMS = {
    "no force": Arm(((0.01, 0.0), (0.02, 0.0))),
    "l2": Arm(((0.02, 0.003), (0.02, 0.01)), _force("l2")),
    "l1": Arm(((0.02, 0.003), (0.02, 0.01)), _force("l1")),
    "subspace": Arm(((0.02, 0.01), (0.02, 0.05)), _force("subspace")),
    "output": Arm(((0.02, 0.003), (0.02, 0.01)), _force("output")),
    "AutoStrength": Arm(((0.02, 0.8), (0.02, 0.6)), _automatic, dosed=False),
    "toward the plan": Arm(((0.02, 0.003), (0.02, 0.01)), _force("output", toward=True)),
    "subspace, toward the plan": Arm(((0.02, 0.01), (0.02, 0.05)), _force("subspace", toward=True)),
    "nuclear norm": Arm(((0.02, 3e-3), (0.02, 1e-2)), NuclearNorm),
    "TRP": Arm(((0.02, 0.98), (0.02, 0.95)), Truncation, dosed=False),
    "l2, repel": Arm(((0.02, 0.003), (0.02, 0.01)), _force("l2", direction="repel"), cut=False),
    # its proximal step does not go through momentum: ten times as strong is as strong as the nuclear norm
    "torchao PAT": Arm(((0.02, 3e-2), (0.02, 1e-1)), optimizer=pat_optimizer),
}
