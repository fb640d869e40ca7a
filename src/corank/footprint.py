"""How much memory a network holds at the worst moment of one forward pass: weights and live activations.

Counted in eager torch, tensor by tensor; the workspace inside an operation is the engine's own affair and is
measured instead (`corank.bench`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from corank.inputs import Example, call, tensors
from corank.layers import FilterLayer
from corank.probing import Call, unchanged


@dataclass(frozen=True, slots=True)
class Footprint:
    """Bytes of one forward pass in eval mode, without gradients.

    weights: parameters and buffers. beside: for each layer, the activations alive at its worst call besides
    its own output, its input among them. elsewhere: the most alive at any moment outside these layers.
    """

    weights: int
    beside: Mapping[str, int]
    elsewhere: int

    def peak(self, work: Mapping[str, int], weights: int | None = None) -> int:
        """Return the peak, where each layer adds its own `work` bytes to what is alive beside it."""
        inside = [alive + work[name] for name, alive in self.beside.items() if name in work]
        return (self.weights if weights is None else weights) + max([self.elsewhere, *inside])


def dense_work(calls: tuple[Call, ...], element_size: int) -> int:
    """Return the bytes that a layer adds while it runs: its output, of the largest call."""
    return max(prod(one.output_shape) for one in calls) * element_size


def structure_work(structure: nn.Sequential, calls: tuple[Call, ...]) -> int:
    """Return the bytes that a chain adds at its worst stage: what one part takes from the last, and gives.

    >>> structure = nn.Sequential(nn.Linear(8, 2, device="meta"), nn.Linear(2, 4, device="meta"))
    >>> structure_work(structure, (Call((1, 8), (1, 4)),))
    24
    """
    worst = 0
    with torch.no_grad():
        for one in calls:
            x = torch.empty(one.input_shape, device="meta", dtype=next(structure.parameters()).dtype)
            taken = 0  # the chain's input is alive beside it already
            for part in structure:
                x = part(x)
                given = x.numel() * x.element_size()
                worst, taken = max(worst, taken + given), given
    return worst


def _expired(ref: StorageWeakRef) -> bool:
    return bool(ref.expired())  # type: ignore[no-untyped-call]


class _Alive(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Keeps count of the bytes of all tensors that were made while it was on and are still held."""

    def __init__(self, given: list[Tensor], weights: list[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._known = {one.untyped_storage()._cdata for one in weights}
        self._held: list[tuple[StorageWeakRef, int]] = []
        self.inside = 0  # calls of watched layers that are under way
        self.elsewhere = 0
        self._add(given)

    def _add(self, made: list[Tensor]) -> None:
        self._held = [one for one in self._held if not _expired(one[0])]
        known = self._known | {ref.cdata for ref, _ in self._held}
        for one in made:
            storage = one.untyped_storage()
            if storage._cdata not in known:
                known.add(storage._cdata)
                ref = StorageWeakRef(storage)  # type: ignore[no-untyped-call]
                self._held.append((ref, storage.nbytes()))

    def now(self) -> int:
        return sum(size for ref, size in self._held if not _expired(ref))

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        output = func(*args, **(kwargs or {}))
        self._add([leaf for leaf in tree_leaves(output) if isinstance(leaf, Tensor)])
        if not self.inside:
            self.elsewhere = max(self.elsewhere, self.now())
        return output


@contextmanager
def _watched(layers: Mapping[str, FilterLayer], alive: _Alive, beside: dict[str, int]) -> Iterator[None]:
    def enter(name: str) -> Any:
        def hook(*_: object) -> None:
            beside[name] = max(beside.get(name, 0), alive.now())
            alive.inside += 1

        return hook

    def leave(*_: object) -> None:
        alive.inside -= 1

    handles = [layer.register_forward_pre_hook(enter(name)) for name, layer in layers.items()]
    handles += [layer.register_forward_hook(leave) for layer in layers.values()]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def measure_footprint(model: nn.Module, layers: Mapping[str, FilterLayer], example: Example) -> Footprint:
    """Run a network once and count what it holds.

    Args:
        model: the network; left as it was.
        layers: those whose own work is to be told apart, by name.
        example: one input.

    >>> net = nn.Sequential(nn.Linear(4, 3, bias=False))
    >>> measure_footprint(net, {"0": net[0]}, torch.ones(2, 4))
    Footprint(weights=48, beside={'0': 32}, elsewhere=32)
    """
    weights = [one.detach() for one in (*model.parameters(), *model.buffers())]
    given = tensors(example)
    beside: dict[str, int] = {}
    with unchanged(model), torch.no_grad():
        model.eval()
        alive = _Alive(given, weights)
        alive.elsewhere = alive.now()
        with _watched(layers, alive, beside), alive:
            call(model, example)
    held = sum(one.numel() * one.element_size() for one in weights)
    return Footprint(held, beside, alive.elsewhere)
