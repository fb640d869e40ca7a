"""The machine's measured peaks, and the time that a layer would take if it ran at them.

A stage, one layer with the activation that fuses with it, reads its input and weights and writes its output:
    time = max(operations / peak operations a second, bytes / peak bytes a second)
and a chain takes the sum, so that the map between two layers of a split is written once and read once.
The bytes are taken to come from main memory; a map that stays in a cache can be faster than predicted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn

FLOAT = 4  # bytes
GEMM_SIZE = 2048
COPY_BYTES = 256 * 2**20
TRIES = 9


@dataclass(frozen=True, slots=True)
class Peaks:
    """The best matrix product and the best copy, in operations and in bytes (read and written) a second."""

    flops: float
    bytes: float


@dataclass(frozen=True, slots=True)
class Stage:
    """What one layer of a chain does: operations, a multiply-accumulate being two, and bytes moved."""

    name: str
    flops: int
    bytes: int

    def seconds(self, peaks: Peaks) -> float:
        """Return the time at the peaks.

        >>> Stage("conv", flops=400, bytes=10).seconds(Peaks(flops=100.0, bytes=5.0))
        4.0
        """
        return max(self.flops / peaks.flops, self.bytes / peaks.bytes)

    def bound(self, peaks: Peaks) -> str:
        """Say what limits it."""
        return "operations" if self.flops / peaks.flops >= self.bytes / peaks.bytes else "bytes"


def measure_peaks(tries: int = TRIES) -> Peaks:
    """Measure torch's matrix product and its copy, with the threads that torch has now: the best of some."""
    a, b = torch.randn(2, GEMM_SIZE, GEMM_SIZE)
    out = torch.empty(GEMM_SIZE, GEMM_SIZE)
    source = torch.ones(COPY_BYTES // FLOAT)
    target = torch.empty_like(source)
    gemm = _best(lambda: torch.mm(a, b, out=out), tries)
    copy = _best(lambda: target.copy_(source), tries)
    return Peaks(2 * GEMM_SIZE**3 / gemm, 2 * COPY_BYTES / copy)


def better(one: Peaks, other: Peaks) -> Peaks:
    """Return the higher of two measurements, as of the beginning and the end of a run."""
    return Peaks(max(one.flops, other.flops), max(one.bytes, other.bytes))


def _best(take: Callable[[], object], tries: int) -> float:
    take()
    spent = []
    for _ in range(tries):
        start = time.perf_counter()
        take()
        spent.append(time.perf_counter() - start)
    return min(spent)


def find_stages(network: nn.Module, input_shape: tuple[int, ...]) -> list[Stage]:
    """List the convolutions, linear layers and poolings of a network in the order in which they run.

    Activations, and batch norm that folds into the layer before, are taken to cost nothing.

    >>> find_stages(nn.Sequential(nn.Conv2d(2, 4, 1, bias=False)), (1, 2, 3, 3))
    [Stage(name='0', flops=144, bytes=248)]
    """
    found: list[Stage] = []

    def note(name: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
            weights = sum(one.numel() for one in layer.parameters())
            macs = 0
            if isinstance(layer, nn.Conv2d | nn.Linear):
                outputs = output.numel()
                macs = outputs * prod(layer.weight.shape[1:])
            moved = FLOAT * (args[0].numel() + weights + output.numel())
            found.append(Stage(name, 2 * macs, moved))

        return hook

    kinds = (nn.Conv2d, nn.Linear, nn.MaxPool2d)
    handles = [
        layer.register_forward_hook(note(name))
        for name, layer in network.named_modules()
        if isinstance(layer, kinds)
    ]
    device = next(network.parameters()).device
    try:
        with torch.no_grad():
            network(torch.empty(input_shape, device=device))
    finally:
        for handle in handles:
            handle.remove()
    return found


def predict(stages: Iterable[Stage], peaks: Peaks) -> float:
    """Return the seconds that a chain of stages takes at the peaks."""
    return sum(stage.seconds(peaks) for stage in stages)
