"""AlexNet's convolutions at the ranks of the paper, and what they should gain by counting.

Ranks of Table 4 are published. Those of Table 6 are not: (a) is taken as Table 4's row with the l2 force
behind the K of conv1 and conv2 in the authors' repository (8 and 40), which makes 3.6 times fewer
multiply-accumulates; beside it stand the example ranks of that repository, 150/160/120. For (b) the ranks are
derived: those whose counted speedups are the published ones of conv3 to conv5, 4.81/4.00/2.92. The measured
speedup cannot be above the counted one, so the paper's own ranks were at most these; `b, Figure 6` is the
l2 point of Figure 6 with the error of (b), read off the poster.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

import corank
from benchmarks.decaying import decay_layer_
from benchmarks.networks import alexnet_features
from corank.layers import filter_matrix

LAYERS = ("conv1", "conv2", "conv3", "conv4", "conv5")
INPUTS = ((3, 227, 227), (96, 27, 27), (256, 13, 13), (384, 13, 13), (384, 13, 13))
METHOD = {"conv1": "spatial", "conv2": "spatial"} | dict.fromkeys(LAYERS[2:], "filter_basis")
PUBLISHED_B = {"conv3": 4.81, "conv4": 4.00, "conv5": 2.92}
PUBLISHED_TOTAL = {"a": 2.69, "b": 4.05}
# of the rank at 95% of the energy: the l2 point of Figure 6 with the error of (b), over the filters
SHARES = dict(zip(LAYERS, (0.5, 0.32, 0.135, 0.115, 0.36), strict=True))


class Group(NamedTuple):
    """The sizes of one group of a convolution: N filters of D weights."""

    count: int
    filters: int
    weights: int


def group_of(layer: nn.Conv2d) -> Group:
    """Return the groups of a layer."""
    return Group(*filter_matrix(layer).shape)


def counted_speedup(group: Group, rank: float) -> float:
    """Return N·D / (M·(D + N)), the paper's theoretical speedup, with `rank` M over all groups together.

    >>> round(counted_speedup(Group(1, 384, 2304), 124), 2)
    2.65
    """
    count, n, d = group
    return n * d / (rank / count * (d + n))


def rank_for(group: Group, gain: float) -> int:
    """Return the rank over all groups whose counted speedup is nearest to a gain."""
    count, n, d = group
    return count * round(n * d / (gain * (n + d)))


def paper_ranks() -> dict[str, dict[str, int]]:
    """Return `{row: {layer: rank over all groups}}`."""
    layers = dict(alexnet_features().named_children())
    b = {name: rank_for(group_of(layers[name]), gain) for name, gain in PUBLISHED_B.items()}
    rows = {
        "none": (8, 40, 184, 201, 146),
        "a": (8, 40, 124, 106, 129),
        "a, example": (8, 40, 150, 160, 120),
        "b": (8, 40, *b.values()),
        "b, Figure 6": (8, 40, 52, 44, 92),
    }
    return {row: dict(zip(LAYERS, ranks, strict=True)) for row, ranks in rows.items()}


def per_group(layer: nn.Conv2d, rank: int) -> int:
    """Return the rank of each group, rounded up where the groups cannot share it evenly.

    >>> per_group(nn.Conv2d(4, 4, 1, groups=2), 129)
    65
    """
    return -(-rank // layer.groups)


def features(seed: int = 0) -> nn.Sequential:
    """Make AlexNet's convolutions with falling spectra, in eval mode."""
    torch.manual_seed(seed)
    network = alexnet_features().eval()
    for number, name in enumerate(LAYERS):
        decay_layer_(network.get_submodule(name), SHARES[name], seed + number)
    return network


def example(batch: int, layer: str | None = None) -> Tensor:
    """Make an input of the network, or of one of its layers."""
    shape = INPUTS[0] if layer is None else INPUTS[LAYERS.index(layer)]
    return torch.randn(batch, *shape, generator=torch.Generator().manual_seed(0))


def cut(network: nn.Module, choices: dict[str, tuple[str, int]], x: Tensor) -> tuple[nn.Module, corank.Plan]:
    """Split layers by `{layer: (method, rank per group)}`; the others stay dense."""
    plan = corank.plan(
        network,
        corank.Ranks({name: rank for name, (_, rank) in choices.items()}),
        example=x,
        methods={name: method for name, (method, _) in choices.items()},
    )
    return corank.decompose(network, plan), plan


def paper_choices(network: nn.Module, row: str) -> dict[str, tuple[str, int]]:
    """Return `{layer: (method, rank per group)}` of a row of the paper."""
    ranks = paper_ranks()[row]
    return {name: (METHOD[name], per_group(network.get_submodule(name), ranks[name])) for name in LAYERS}
