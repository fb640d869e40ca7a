"""Sparsifier: zeros that stay, become more, or grow out of a lasso, in the user's own training loop."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from corank.errors import CorankError, LayerError
from corank.layers import FilterLayer, from_filters, reject_unusable_values, to_filters
from corank.optimizer_hook import OptimizerHook, inner_optimizer
from corank.sparsity.choice import choose
from corank.sparsity.lasso import shrink
from corank.sparsity.masks import magnitude_masks, semi_structured_mask
from corank.sparsity.specs import GroupLasso, MaskSpec, SemiStructured, TrainSpec, Unstructured, require_specs

logger = logging.getLogger(__name__)


class Sparsifier:
    """Keep a network's zeros while it trains, and make more of them.

    After every step of the optimizer, and after the momentum and weight decay in it, the lasso takes its
    proximal step, weights are chosen where a schedule says so, and what is masked becomes zero again. A mask
    only grows. Weights that are zero when it is attached are masked from then on, so without a spec it keeps
    the zeros of a pruned network through fine-tuning. Attaching changes no weight, and nothing has to be
    baked in afterwards: the weights are plain zeros at all times. Attach it after a force.

    Args:
        model: the network, wrapped or not.
        specs: any of `Unstructured`, `SemiStructured`, `GroupLasso`.
    Raises: CorankError, for another spec; LayerError, when a spec has no layer.

    >>> layer = nn.Linear(4, 4)
    >>> optimizer = torch.optim.SGD(layer.parameters(), lr=0.1, momentum=0.9)
    >>> sparsifier = Sparsifier(layer, Unstructured(0.5))
    >>> sparsifier.attach(optimizer)
    >>> layer(torch.ones(1, 4)).sum().backward()
    >>> optimizer.step()
    >>> int((layer.weight == 0).sum())
    8
    >>> sparsifier.detach()
    """

    def __init__(self, model: nn.Module, *specs: TrainSpec) -> None:
        require_specs(
            specs,
            (Unstructured, SemiStructured, GroupLasso),
            "Sparsifier",
            "Channels are removed at once, by corank.sparsify.",
        )
        self.specs = specs
        self._chosen: list[dict[str, FilterLayer]] = []
        self.skipped: dict[str, str] = {}
        for spec in specs:
            layers, left = choose(model, spec, trained=True)
            self._chosen.append(layers)
            self.skipped |= left
        self._layers, left = choose(model, _EVERY, trained=True)
        used = {name for layers in self._chosen for name in layers} or set(self._layers)
        self.skipped = {name: why for name, why in (left | self.skipped).items() if name not in used}
        self._masks: dict[str, Tensor] = {}
        self._hooks: dict[Optimizer, OptimizerHook] = {}
        self._step = 0
        for name, reason in self.skipped.items():
            logger.info("%s is not made sparse: %s", name, reason)

    def attach(self, *optimizers: Optimizer) -> None:
        """Hook it into the optimizers that own the weights; steps are those of the first.

        Raises: CorankError, when it is attached already, or for LBFGS, which steps along a line of losses
            that zeros are no part of; LayerError, when no optimizer owns a layer, or for weights that are
            NaN, infinite or on the meta device.
        """
        if self._hooks:
            raise CorankError("Sparsifier: it is attached already. Call detach() first.")
        owners = [inner_optimizer(one) for one in optimizers]
        for owner in owners:
            if isinstance(owner, torch.optim.LBFGS):
                raise CorankError("Sparsifier: LBFGS cannot keep zeros. Use SGD or AdamW.")
        owned = {id(p) for owner in owners for group in owner.param_groups for p in group["params"]}
        for name, layer in self._layers.items():
            reject_unusable_values(name, layer.weight)
            if id(layer.weight) not in owned and self._acts_on(name):
                raise LayerError(
                    f"{name}: no optimizer given to attach owns its weight. "
                    "Build the optimizer after moving or wrapping the model, or exclude the layer."
                )
        if self._layers and not any(id(layer.weight) in owned for layer in self._layers.values()):
            raise LayerError(
                "Sparsifier: no optimizer given to attach owns a weight of its network. Make it of the "
                "network that is trained: corank.Sparsifier(model)."
            )
        self._note_zeros()
        for owner in owners:
            self._hooks[owner] = OptimizerHook(owner, (), _nothing, self._after)

    def detach(self) -> None:
        """Take it off the optimizers, with every masked weight zero."""
        if self._hooks:
            self._zero(self._layers)
        for hook in self._hooks.values():
            hook.remove()
        self._hooks.clear()

    def sparsity(self) -> dict[str, float]:
        """Return the share of masked weights of every layer that has any."""
        return {name: 1 - mask.float().mean().item() for name, mask in self._masks.items()}

    @property
    def told(self) -> str:
        """What it was made with, in words; a checkpoint of another is told by it."""
        return ", ".join(map(str, self.specs)) or "the zeros that are there"

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed training needs to go on bit-exactly: the step and the masks."""
        return {"step": self._step, "masks": {name: mask.clone() for name, mask in self._masks.items()}}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over the state of another run of the same network.

        Raises: CorankError, for a state of another network, or that is none.
        """
        try:
            step, masks = int(state["step"]), dict(state["masks"])
            for name, mask in masks.items():
                if mask.shape != self._layers[name].weight.shape:
                    raise ValueError(f"{name} has another shape")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise CorankError(f"load_state_dict: not the state of this Sparsifier ({error!r}).") from error
        self._step = step
        self._masks = {name: mask.to(self._layers[name].weight.device) for name, mask in masks.items()}

    def _acts_on(self, name: str) -> bool:
        return any(name in layers for layers in self._chosen)

    def _note_zeros(self) -> None:
        for name, layer in self._layers.items():
            kept = layer.weight.detach() != 0
            if bool(kept.all()):
                continue
            if not bool(kept.any()):
                logger.info("%s: all its weights are zero; it trains as a fresh layer", name)
                continue
            self._mask(name, kept)

    def _mask(self, name: str, kept: Tensor) -> None:
        self._masks[name] = self._masks[name] & kept if name in self._masks else kept

    @torch.no_grad()
    def _after(self, owner: Optimizer) -> None:
        rates = {
            id(p): float(group.get("lr") or 0.0) for group in owner.param_groups for p in group["params"]
        }
        mine = {name: one for name, one in self._layers.items() if id(one.weight) in rates}
        first = owner is next(iter(self._hooks))
        for spec, layers in zip(self.specs, self._chosen, strict=True):
            if isinstance(spec, GroupLasso):
                for layer in (one for one in layers.values() if id(one.weight) in rates):
                    rate = rates[id(layer.weight)]
                    moved = shrink(to_filters(layer.weight, layer), rate * spec.rows, rate * spec.columns)
                    layer.weight.copy_(from_filters(moved, layer))
            elif first and (isinstance(spec, SemiStructured) or spec.chooses(self._step)):
                self._choose(spec, layers)
        self._zero(mine)
        self._step += first

    def _choose(self, spec: MaskSpec, layers: Mapping[str, FilterLayer]) -> None:
        if isinstance(spec, SemiStructured) and self._step:
            return  # chosen once: after the first step
        self._zero(layers)  # so that what is masked is the first to go
        for name, mask in masks_of(spec, layers, self._step).items():
            self._mask(name, mask)

    @torch.no_grad()
    def _zero(self, layers: Mapping[str, FilterLayer]) -> None:
        for name, layer in layers.items():
            if name in self._masks:
                layer.weight.masked_fill_(~self._masks[name], 0.0)


def masks_of(spec: MaskSpec, layers: Mapping[str, FilterLayer], step: int) -> dict[str, Tensor]:
    """Choose the weights that a spec keeps at a step, by layer."""
    if isinstance(spec, SemiStructured):
        return {name: semi_structured_mask(layer, spec.zeros, spec.of) for name, layer in layers.items()}
    weights: Sequence[Tensor] = [layer.weight for layer in layers.values()]
    return dict(zip(layers, magnitude_masks(weights, spec.share(step), spec.scope), strict=True))


def _nothing(owner: Optimizer) -> None:
    return None


_EVERY = Unstructured(0.0)
