"""The force on many layers at once: layers of one shape are computed together.

Shapes: B layers of one shape, G groups, N filters in a group, D weights in a filter.
"""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from corank.batching import STACK_LIMIT, batches, largest
from corank.distributed import is_distributed, l2_shards, local, local_part, sharded_rows, whole
from corank.errors import CorankError
from corank.force import FORCES, output_force, subspace_force
from corank.forced_layers import ForcedLayer
from corank.layers import from_filters, groups, is_transposed, to_filters

Kind = Literal["l2", "l1", "linear", "gravity", "axis", "subspace", "output"]
Direction = Literal["attract", "repel"]
Scale = Literal["mean", "sum"]

KINDS = ("l2", "l1", "linear", "gravity", "axis", "subspace", "output")


@dataclass(frozen=True, slots=True)
class Part:
    """One forced layer with its weight, and the parameter group of the optimizer that owns it."""

    forced: ForcedLayer
    weight: Tensor
    group: int = 0

    @property
    def name(self) -> str:
        """The layer's name."""
        return self.forced.name

    @property
    def grad(self) -> Tensor | None:
        """What of the gradient lies in this process."""
        return None if self.weight.grad is None else local(self.weight.grad)

    @property
    def filter_count(self) -> int:
        """N, the number of filters in a group."""
        layer = self.forced.layer
        return self.weight.shape[1] if is_transposed(layer) else self.weight.shape[0] // groups(layer)

    def filters(self) -> Tensor:
        """Return the whole weight, gathered if need be, as (G, N, D)."""
        return to_filters(whole(self.weight.detach()), self.forced.layer)


@dataclass(frozen=True, slots=True)
class ForceField:
    """Which force, in which direction, on which scale."""

    kind: Kind = "l2"
    direction: Direction = "attract"
    scale: Scale = "mean"

    def __post_init__(self) -> None:
        require_choice("kind", self.kind, KINDS)
        require_choice("direction", self.direction, ("attract", "repel"))
        require_choice("scale", self.scale, ("mean", "sum"))

    @property
    def to_subspace(self) -> bool:
        """Whether the force pulls towards a subspace, which needs a basis, and is no sum over filters."""
        return self.kind in ("subspace", "output")

    def gathers(self, part: Part) -> bool:
        """Say whether the whole weight must be gathered from other processes at each step."""
        return is_distributed(part.weight) and (
            self.kind != "l2" or is_transposed(part.forced.layer) or sharded_rows(part.weight) is None
        )

    def pulls(self, parts: Iterable[Part], bases: Mapping[str, Tensor]) -> Iterator[tuple[Part, Tensor]]:
        """Give each layer with its force, without strength, shaped as the weight in this process.

        Args:
            parts: the layers to force.
            bases: `{layer: V (G, D, R)}` for `subspace`, `{layer: U (G, N, R)}` for `output`, else empty.
        """
        parts = list(parts)
        yield from self._sharded([part for part in parts if is_distributed(part.weight)], bases)
        alone = [part for part in parts if not is_distributed(part.weight)]

        def key(part: Part) -> Hashable:
            weight, layer, basis = part.weight, part.forced.layer, bases.get(part.name)
            same = weight.shape, groups(layer), is_transposed(layer), weight.dtype, weight.device
            return *same, None if basis is None else basis.shape

        limit = min(STACK_LIMIT, largest(part.weight for part in alone) // 2)  # it is there twice
        for batch in batches(alone, key, lambda part: part.weight, limit):
            w_BGND = _stack([part.filters() for part in batch])
            basis = torch.stack([bases[part.name] for part in batch]) if self.to_subspace else None
            pull_BGND = self._scaled(self._force(_wide(w_BGND), basis), w_BGND.shape[-2])
            for part, pull_GND in zip(batch, pull_BGND, strict=True):
                yield part, from_filters(pull_GND, part.forced.layer)
            del w_BGND, basis, pull_BGND, pull_GND  # before the next are made

    def _sharded(self, parts: list[Part], bases: Mapping[str, Tensor]) -> Iterator[tuple[Part, Tensor]]:
        apart = [part for part in parts if not self.gathers(part)]
        meshes = {id(place[1]): place[1] for part in apart if (place := sharded_rows(part.weight))}
        for mesh in meshes:
            here = [p for p in apart if (place := sharded_rows(p.weight)) and id(place[1]) == mesh]
            weights = [(p.weight, groups(p.forced.layer)) for p in here if is_distributed(p.weight)]
            for part, pull in zip(here, l2_shards(weights), strict=True):
                yield part, self._scaled(pull, part.filter_count)
        for part in parts:
            if self.gathers(part):
                w_GND = part.filters()
                pull_GND = self._force(_wide(w_GND), bases.get(part.name))
                full = from_filters(self._scaled(pull_GND, w_GND.shape[-2]), part.forced.layer)
                yield part, local_part(full, part.weight)

    def _force(self, w: Tensor, basis: Tensor | None) -> Tensor:
        if basis is None:
            return FORCES[self.kind](w)
        return subspace_force(w, directions=basis) if self.kind == "subspace" else output_force(w, basis)

    def factor(self, n: int) -> float:
        """Return what the force of `corank.force` on n filters is multiplied by: its direction and scale."""
        divisor = n if self.scale == "mean" and not self.to_subspace else 1
        return (1.0 if self.direction == "attract" else -1.0) / divisor

    def _scaled(self, pull: Tensor, n: int) -> Tensor:
        factor = self.factor(n)
        return pull if factor == 1.0 else pull.mul_(factor)


def _wide(w: Tensor) -> Tensor:
    return w.to(torch.promote_types(w.dtype, torch.float32))


def _stack(matrices: Sequence[Tensor]) -> Tensor:
    return matrices[0][None] if len(matrices) == 1 else torch.stack(tuple(matrices))


def require_choice(name: str, value: object, allowed: Collection[str]) -> None:
    """Raise CorankError unless an option is one of those allowed."""
    if value not in allowed:
        raise CorankError(f"{name}: allowed are {', '.join(allowed)}; got {value!r}.")
