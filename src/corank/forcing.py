"""One forced step: refresh the targets, set the strengths, add the forces."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from corank.controller import StrengthController
from corank.distributed import local
from corank.force_field import ForceField, Part
from corank.force_stats import LayerStats, measure, products
from corank.forced_layers import ForcedLayer
from corank.in_place import add_in_place_, in_place
from corank.layers import full_rank, reject_unusable_values
from corank.optimizer_hook import gradient_scale
from corank.rank_targets import RankTargets
from corank.rows_in_memory import Rows, rows_in_memory
from corank.spectra import filter_energies
from corank.strength import Adaptive, AutoStrength, strength_at


class Forcing:
    """Add the force to gradients or weights, as the options of ForceRegularizer say."""

    def __init__(
        self, field: ForceField, targets: RankTargets, *, zeroes: bool, every: int, record_every: int
    ) -> None:
        self.field, self.targets, self.controller = field, targets, StrengthController()
        self._zeroes, self._every, self._record_every = zeroes, every, record_every
        self._recorded: dict[str, tuple[float | Tensor, Tensor]] = {}

    def records(self, step: int) -> bool:
        """Say whether lengths and angles are kept at a step; in between that would cost time."""
        return step % self._record_every == 0

    @torch.no_grad()
    def push(self, parts: Iterable[Part], step: int, owner: Optimizer | None, *, decoupled: bool) -> None:
        """Add the force to the gradients of the layers, or to their weights where it is decoupled.

        Layers that are frozen or got no gradient are left alone, as the optimizer leaves them alone.
        """
        if step % self._every:
            return
        parts = [part for part in parts if part.weight.requires_grad and part.weight.grad is not None]
        self.targets.refresh(parts, step)
        strengths: dict[str, float | Tensor | None] = {p.name: self._strength(p, step) for p in parts}
        for name in (name for name, strength in strengths.items() if strength == 0):
            self._recorded.pop(name, None)  # its gradient is not forced now, so it can be looked at any time
        parts = [part for part in parts if strengths[part.name] != 0]  # None: known when the force is
        # A fused optimizer has divided the gradients by the scale when its step is over.
        scale = None if owner is None or decoupled else gradient_scale(owner)
        if scale is None and not self._zeroes and not self.records(step) and in_place(self.field.kind):
            rows = [self._rows(part, strengths[part.name], owner, decoupled) for part in parts]
            done = add_in_place_(self.field.kind, rows)
            parts = [part for part, one in zip(parts, done, strict=True) if not one]
        for part, pull in self.field.pulls(parts, self.targets.bases):
            grad, strength = part.grad, strengths[part.name]
            assert grad is not None  # selected above
            rate, uphill = _rate(part, owner)
            if self._zeroes:
                pull.masked_fill_(pull * grad * uphill > 0, 0)
            if strength is None or self.records(step):
                sums = products(
                    pull, grad if uphill == 1 else -grad, part.weight, 1.0 if scale is None else scale
                )
                if strength is None:
                    strength = _adapted(part.forced.strength, sums)
                self._recorded[part.name] = strength, sums
            factor = strength * self._every
            if decoupled:
                local(part.weight).add_(pull * (factor * rate))
            elif scale is not None or isinstance(factor, Tensor):
                grad.sub_(pull * (factor * (uphill if scale is None else scale * uphill)))
            else:
                grad.add_(pull, alpha=-factor * uphill)
            del pull  # before the next is made

    def _rows(
        self, part: Part, strength: float | Tensor | None, owner: Optimizer | None, decoupled: bool
    ) -> Rows | None:
        """Return what is added to what, where the force needs no tensor of its own."""
        rate, uphill = _rate(part, owner)
        if not isinstance(strength, float) or isinstance(rate, Tensor):
            return None
        target = part.weight if decoupled else part.weight.grad
        assert target is not None  # selected by the caller
        factor = strength * self._every * self.field.factor(part.filter_count)
        signed = factor * (rate if decoupled else -uphill)
        basis = self.targets.bases[part.name] if self.field.to_subspace else None
        return rows_in_memory(target, part.weight, part.forced.layer, signed, basis)

    def _strength(self, part: Part, step: int) -> float | None:
        """Return the strength of a layer at a step; None where it follows from the force, `Adaptive`."""
        strength = part.forced.strength
        if self.targets.reached(part.name):
            return 0.0
        if isinstance(strength, Adaptive):
            return 0.0 if strength.ratio == 0 or strength.ceiling == 0 else None
        if not isinstance(strength, AutoStrength):
            return strength_at(strength, step, part.name)
        if self.controller.due(part.name, step, strength):
            energies_GR, target = filter_energies(part.filters()), _target_rank(part.forced, strength)
            self.controller.update(part.name, step, strength, energies_GR, target)
        return self.controller.strength(part.name, strength)

    def stats(self, parts: Iterable[Part], step: int) -> dict[str, LayerStats]:
        """Measure layers: energy and ranks now, the rest as last recorded, or now where nothing was."""
        rows = {}
        with torch.no_grad():
            for part in parts:
                reject_unusable_values(part.name, local(part.weight.detach()))
                strength, sums = self._recorded.get(part.name) or self._now(part, step)
                rows[part.name] = measure(part.filters(), sums, float(strength))
        return rows

    def _now(self, part: Part, step: int) -> tuple[float | Tensor, Tensor]:
        # Looking must not change what a resumed run would do, so nothing is refreshed or measured for keeps.
        strength = part.forced.strength
        bases = self.targets.preview(part)
        if bases is None:  # the output force before the first step
            return 0.0, torch.full((3,), math.nan)
        _, pull = next(self.field.pulls([part], bases))
        sums = products(pull, part.grad, part.weight)
        if self.targets.reached(part.name):
            return 0.0, sums
        if isinstance(strength, Adaptive):
            return _adapted(strength, sums), sums
        if isinstance(strength, AutoStrength):
            return self.controller.strength(part.name, strength), sums
        return strength_at(strength, step, part.name), sums

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed run needs."""
        return {"targets": self.targets.state_dict(), "controller": self.controller.state_dict()}

    def load_state_dict(self, state: Mapping[str, Any], layers: Iterable[ForcedLayer]) -> None:
        """Take over what `state_dict` gave."""
        self.targets.load_state_dict(state["targets"], layers)
        self.controller.load_state_dict(state["controller"])


def _rate(part: Part, owner: Optimizer | None) -> tuple[float | Tensor, int]:
    """Return the learning rate of a layer, and −1 where its optimizer climbs instead of descends."""
    group = owner.param_groups[part.group] if owner is not None else {}
    return group.get("lr", 1.0), -1 if group.get("maximize", False) else 1


def _adapted(strength: object, sums: Tensor) -> Tensor:
    """Return the strength of `Adaptive` from ‖ΔW‖² and ‖gradient‖², without waiting for the device."""
    assert isinstance(strength, Adaptive)
    share = strength.ratio * (sums[1] / sums[0]).sqrt()
    return torch.where(sums[0] > 0, share, 0.0).clamp(max=strength.ceiling)


def _target_rank(forced: ForcedLayer, auto: AutoStrength) -> float:
    if forced.rank is not None:
        return float(forced.rank)
    assert auto.rank_ratio is not None  # one of the two, by choose_layers
    return max(auto.rank_ratio * full_rank(forced.layer), 1.0)
