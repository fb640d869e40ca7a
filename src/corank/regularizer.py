"""ForceRegularizer: which layers are forced, how strongly and when, in the user's own training loop."""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterable, Mapping
from dataclasses import is_dataclass
from typing import Any, Literal

from torch import Tensor, nn
from torch.optim import Optimizer

from corank.distributed import is_main, local
from corank.errors import CorankError
from corank.force_field import Direction, ForceField, Kind, Part, Scale, require_choice
from corank.force_stats import LayerStats
from corank.forced_layers import choose_layers
from corank.forcing import Forcing
from corank.layers import reject_unusable_values
from corank.optimizer_hook import (
    OptimizerHook,
    inner_optimizer,
    require_owners,
    rescales_gradient,
)
from corank.rank_targets import RankTargets
from corank.strength import Strength
from corank.tracking import Tracker, flat

logger = logging.getLogger(__name__)

Coupling = Literal["auto", "gradient", "decoupled"]
DEFAULT_EVERY = {"subspace": 4}


class ForceRegularizer:
    """Pull the filters of each layer together while a network trains, so that its layers need a lower rank.

    Each step adds −strength · ΔW to the gradient of every forced layer, after clipping and before momentum;
    ΔW is the force of `corank.force` on the layer's filters, within each group.

    Args:
        model: the network, wrapped or not.
        strength: the paper's λ_s: a number ≥ 0, a callable from the step such as those in `schedules`, or
            `Adaptive` or `AutoStrength` of `corank.strength`.
        kind: which force of `corank.force`; `subspace` and `output` pull towards a low rank, the others
            towards rank 1.
        direction: `attract`, or `repel` (the paper's Discrimination Regularization).
        scale: `sum` over the filters is the paper's; `mean` divides by their number N, so that one strength
            means the same at every width. `subspace` and `output` are no sums over filters: not divided.
        coupling: `gradient` adds to the gradient, `decoupled` moves the weights after the step by
            learning rate · strength · ΔW; `auto` decouples for optimizers that rescale the gradient.
        against_gradient: `zero` drops the components of the force that oppose the descent direction.
        types: which layers, of `conv` and `linear`.
        include: names or patterns; only these, where given.
        exclude: names or patterns left alone.
        overrides: `{name or pattern: strength, or None for no force}`; of several that match, the last wins.
        toward: a plan: each layer towards the rank that it wants there, and no further; layers that it leaves
            out are not forced.
        every: apply the force at every k-th step only, k times as strong, so that strength keeps its meaning;
            by default 1, and 4 for `subspace`, whose products at each step would take more than 3% of the
            training of a ResNet-50.
        energy: the share of energy that counts as a rank, where a rank is measured: by default 0.85 for the
            subspace of `subspace` and `output`, 0.95 for when a plan's rank is reached.
        refresh: steps between two measurements of a subspace or a rank.
        tracker: takes the numbers of `stats()` while training; one in every process, where there are several.
        track_every: steps between two times of that.
    Raises: LayerError or CorankError, for unknown options or patterns, or when nothing is left to force.
    Source: Wen et al. 2017, the update W ← W − η (∂E/∂W − λ_s ΔW); `scale="sum"` is theirs.

    >>> import torch
    >>> model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8, 2))
    >>> optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    >>> force = ForceRegularizer(model, strength=0.01)
    >>> force.attach(optimizer)
    >>> model(torch.randn(4, 3, 3, 3)).sum().backward()
    >>> optimizer.step()
    >>> list(force.stats()), force.skipped
    (['0'], {'2': 'Linear is not among the types asked for (conv)'})
    >>> force.detach()
    """

    def __init__(
        self,
        model: nn.Module,
        strength: Strength,
        *,
        kind: Kind = "l2",
        direction: Direction = "attract",
        scale: Scale = "mean",
        coupling: Coupling = "auto",
        against_gradient: Literal["keep", "zero"] = "keep",
        types: Collection[str] = ("conv",),
        include: Iterable[str] | None = None,
        exclude: Iterable[str] | None = None,
        overrides: Mapping[str, Strength | None] | None = None,
        toward: Any | None = None,
        every: int | None = None,
        energy: float | None = None,
        refresh: int = 100,
        tracker: Tracker | None = None,
        track_every: int = 100,
    ) -> None:
        require_choice("coupling", coupling, ("auto", "gradient", "decoupled"))
        require_choice("against_gradient", against_gradient, ("keep", "zero"))
        every = DEFAULT_EVERY.get(kind, 1) if every is None else every
        for name, value in (("every", every), ("refresh", refresh), ("track_every", track_every)):
            if not isinstance(value, int) or value < 1:
                raise CorankError(f"{name}: allowed is a whole number ≥ 1, got {value!r}.")
        if energy is not None and not 0 < energy <= 1:
            raise CorankError(f"energy: allowed is a fraction in (0, 1], got {energy}.")
        field = ForceField(kind, direction, scale)
        self.layers, self.skipped = choose_layers(
            model,
            strength,
            types=types,
            include=include,
            exclude=exclude,
            overrides=overrides,
            toward=toward,
        )
        energy = energy if energy is not None else (0.85 if field.to_subspace else 0.95)
        self._forcing = Forcing(
            field,
            RankTargets(field, self.layers, energy, refresh),
            zeroes=against_gradient == "zero",
            every=every,
            record_every=max(track_every // every, 1) * every,
        )
        self._coupling, self._tracker = coupling, tracker
        self._hooks: dict[Optimizer, OptimizerHook] = {}
        self._parts: dict[Optimizer, tuple[tuple[int, ...], list[Part]]] = {}
        self._steps = [0]
        for name, reason in self.skipped.items():
            logger.info("%s is not forced: %s", name, reason)

    def attach(self, *optimizers: Optimizer) -> None:
        """Hook the force into the optimizers that own the weights; each layer goes with its owner.

        Raises: CorankError, when it is attached already, an optimizer is LBFGS, or none owns a layer;
            LayerError, for weights that are NaN, infinite or on the meta device.
        """
        first = self.layers[0].name
        if self._hooks:
            raise CorankError(f"{first}: this force is attached already. Call detach() first.")
        owners = [inner_optimizer(one) for one in optimizers]
        for one in self.layers:
            reject_unusable_values(one.name, local(one.layer.weight.detach()))
        require_owners(self.layers, owners)
        if len(self._steps) != len(owners):
            if any(self._steps):
                raise CorankError(
                    f"{first}: its state is of {len(self._steps)} optimizers, got {len(owners)}."
                )
            self._steps = [0] * len(owners)
        for owner in owners:
            self._describe(owner)
        for owner in owners:
            self._hooks[owner] = OptimizerHook(owner, self.layers, self._before, self._after)
        if self._forcing.targets.moments is not None:
            self._forcing.targets.moments.watch()

    def detach(self) -> None:
        """Take the force off its optimizers and layers; nothing of it stays behind."""
        for hook in self._hooks.values():
            hook.remove()
        self._hooks.clear()
        self._parts.clear()
        if self._forcing.targets.moments is not None:
            self._forcing.targets.moments.stop()

    def add_grad_(self) -> None:
        """Add the force to the gradients now, and count one step; for loops without an optimizer hook.

        Call it after clipping and before `optimizer.step()`.
        Raises: CorankError, when the force is attached, since it would act twice, is decoupled, or is the
            output force, which watches the layers only while attached.
        """
        state = {
            "attached, and would act twice": bool(self._hooks),
            "decoupled from the gradient": self._coupling == "decoupled",
            "on the outputs, and sees them only while attached": self._forcing.targets.moments is not None,
        }
        for problem, present in state.items():
            if present:
                raise CorankError(f"{self.layers[0].name}: add_grad_ on a force that is {problem}.")
        parts = [Part(one, one.layer.weight) for one in self.layers]
        self._forcing.push(parts, self._steps[0], None, decoupled=False)
        self._count(0, parts)

    def observe_loss(self, loss: Tensor | float) -> None:
        """Tell `AutoStrength` the training loss of a step, so that it backs off when that rises."""
        self._forcing.controller.observe_loss(loss)

    def stats(self) -> dict[str, LayerStats]:
        """Return what the force does to every forced layer: strength, lengths, angle, energy and ranks.

        The energy and the ranks are those of now; what needs a gradient is of the last step recorded (every
        `track_every` steps), or of now where none was. Every process must call it, where there are several.
        Raises: LayerError, for weights that are NaN or infinite.
        """
        return self._forcing.stats([Part(one, one.layer.weight) for one in self.layers], self._steps[0])

    def settings(self) -> dict[str, Any]:
        """Return what it was made with, by names that a person knows; a checkpoint of another is told by it.

        The ranks of a plan are left out: they are measured anew when a training goes on.
        """
        field, targets = self._forcing.field, self._forcing.targets
        return {
            "kind": field.kind,
            "direction": field.direction,
            "scale": field.scale,
            "coupling": self._coupling,
            "zero against the gradient": self._forcing._zeroes,
            "every": self._forcing._every,
            "energy": targets._energy,
            "refresh": targets._refresh,
            "layers": {one.name: _told(one.strength) for one in self.layers},
        }

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed training needs to go on bit-exactly: plain values and tensors."""
        return {"steps": list(self._steps), **self._forcing.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the state of another run of the same network; before or after `attach`.

        Raises: CorankError, for a state of another number of optimizers, or that is none of a force.
        """
        try:
            steps = [int(step) for step in state["steps"]]
            if self._hooks and len(steps) != len(self._hooks):
                raise CorankError(
                    f"load_state_dict: the state is of {len(steps)} optimizers, got {len(self._hooks)}."
                )
            self._forcing.load_state_dict(state, self.layers)
        except (KeyError, TypeError, ValueError) as error:
            raise CorankError(f"load_state_dict: not the state of this force ({error!r}).") from error
        self._steps = steps

    def _describe(self, owner: Optimizer) -> None:
        parts = self._find_parts(owner)
        decoupled = self._decouples(owner)
        if decoupled and any(owner.param_groups[part.group].get("lr") is None for part in parts):
            raise CorankError(
                f"{parts[0].name}: {type(owner).__name__} has no learning rate for a decoupled force. "
                'Set one, or use coupling="gradient".'
            )
        way = "decoupled, after the step" if decoupled else "through the gradient"
        logger.info("force on %d layers of %s, %s", len(parts), type(owner).__name__, way)
        if gathered := [part.name for part in parts if self._forcing.field.gathers(part)]:
            logger.info("gathered from all processes at each forced step: %s", ", ".join(gathered))

    def _decouples(self, owner: Optimizer) -> bool:
        return self._coupling == "decoupled" or (self._coupling == "auto" and rescales_gradient(owner))

    def _before(self, owner: Optimizer) -> None:
        if not self._decouples(owner):
            self._forcing.push(self._owned(owner), self._steps[self._index(owner)], owner, decoupled=False)

    def _after(self, owner: Optimizer) -> None:
        index, parts = self._index(owner), self._owned(owner)
        if self._decouples(owner):
            self._forcing.push(parts, self._steps[index], owner, decoupled=True)
        self._count(index, parts)

    def _count(self, index: int, parts: list[Part]) -> None:
        step = self._steps[index]
        if self._tracker is not None and self._forcing.records(step):
            stats = self._forcing.stats(parts, step)
            if is_main():
                self._tracker.log(flat(stats), step)
        self._steps[index] += 1

    def _index(self, owner: Optimizer) -> int:
        return list(self._hooks).index(owner)

    def _owned(self, owner: Optimizer) -> list[Part]:
        sizes = tuple(len(group["params"]) for group in owner.param_groups)
        if owner not in self._parts or self._parts[owner][0] != sizes:  # a trainer may unfreeze layers
            self._parts[owner] = sizes, self._find_parts(owner)
        return self._parts[owner][1]

    def _find_parts(self, owner: Optimizer) -> list[Part]:
        at = {id(p): i for i, group in enumerate(owner.param_groups) for p in group["params"]}
        weights = [(one, one.layer.weight) for one in self.layers]
        return [Part(one, weight, at[id(weight)]) for one, weight in weights if id(weight) in at]


def _told(strength: object) -> str:
    if isinstance(strength, int | float) or is_dataclass(strength):
        return repr(strength)
    # of the user's own function nothing but the name is the same in another process
    return str(getattr(strength, "__qualname__", type(strength).__qualname__))
