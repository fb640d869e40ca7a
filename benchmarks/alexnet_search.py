"""Our own plan for AlexNet's convolutions: measured structures, chosen to be fastest within an error.

Each layer alone is timed dense and in every structure at ranks that are multiples of 8; the plan takes one of
them for each layer, such that the errors' sum is at most that of a row of the paper and the times' sum is
the smallest.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from corank.cost import layer_cost, structure_cost
from corank.methods import METHODS
from corank.probing import Call

STRUCTURES = ("spatial", "filter_basis", "input_basis", "tucker2")
MULTIPLE = 8
DENSE = "dense"


class Structure(NamedTuple):
    """One way to make a layer; rank is per group, and `share` of the dense layer's multiply-accumulates."""

    method: str
    rank: int
    error: float  # relative Frobenius error of the weights
    share: float

    @property
    def name(self) -> str:
        return DENSE if self.method == DENSE else f"{self.method} {self.rank}"


class Option(NamedTuple):
    """A structure with its measured time."""

    structure: Structure
    seconds: float


def errors(layer: nn.Conv2d, method: str) -> Tensor:
    """Return the relative Frobenius error of the weights at rank 1, 2, … per group."""
    energies = METHODS[method].energies(layer)
    if energies is None:
        raise ValueError(f"{method} has no spectrum")
    total = layer.weight.detach().double().square().sum()
    return (1 - energies.sum(0).cumsum(0) / total).clamp(min=0).sqrt()


def describe(layer: nn.Conv2d, method: str, rank: int, x: Tensor, error: float) -> Structure:
    """Say what a split costs and loses."""
    with torch.no_grad():
        call = (Call(tuple(x.shape), tuple(layer(x).shape)),)
    after = structure_cost(METHODS[method].structure(layer, rank), call)
    return Structure(method, rank, error, after.macs / layer_cost(layer, call).macs)


def candidates(layer: nn.Conv2d, x: Tensor, most: int) -> list[Structure]:
    """List the structures of a layer that save multiply-accumulates, each at up to `most` ranks."""
    found: list[Structure] = []
    for method in STRUCTURES:
        if METHODS[method].refusal(layer) is not None:
            continue
        lost = errors(layer, method)
        ranks = range(MULTIPLE, len(lost), MULTIPLE)
        offered = [describe(layer, method, rank, x, float(lost[rank - 1])) for rank in ranks]
        found += spread([one for one in offered if one.share < 0.9], most)
    return found


def spread(structures: Sequence[Structure], most: int) -> list[Structure]:
    """Keep at most `most`, at even steps of the logarithm of their share; at least two of them."""
    if len(structures) <= max(most, 2):
        return list(structures)
    most = max(most, 2)
    first, last = structures[0].share, structures[-1].share
    wanted = [first * (last / first) ** (step / (most - 1)) for step in range(most)]
    nearest = {min(structures, key=lambda one, at=at: abs(one.share - at)) for at in wanted}
    return sorted(nearest, key=lambda one: one.rank)


def fastest(options: Mapping[str, Iterable[Option]], allowed: float) -> dict[str, Structure]:
    """Return for each layer the structure such that the errors' sum is allowed and the times' sum least.

    Exact: layer by layer it keeps the combinations that no other beats in both sums.

    >>> dense, half = Structure("dense", 0, 0.0, 1.0), Structure("spatial", 8, 0.3, 0.5)
    >>> best = fastest({"a": [Option(dense, 2.0), Option(half, 1.0)]}, 0.2)
    >>> best["a"].method
    'dense'
    """
    front: list[tuple[float, float, dict[str, Structure]]] = [(0.0, 0.0, {})]
    for layer, choices in options.items():
        grown = [
            (spent + one.seconds, lost + one.structure.error, {**made, layer: one.structure})
            for spent, lost, made in front
            for one in choices
            if lost + one.structure.error <= allowed
        ]
        grown.sort(key=lambda made: made[:2])
        front, least = [], float("inf")
        for made in grown:
            if made[1] < least:
                front.append(made)
                least = made[1]
    if not front:
        raise ValueError(f"no combination has an error of {allowed:.3f} or less; offer the dense layers too")
    return front[0][2]
