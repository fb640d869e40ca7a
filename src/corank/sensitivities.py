"""How much each layer matters: the measured rise of the loss for each share of its energy that is lost."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from math import isfinite
from statistics import median
from typing import TypeAlias

from torch import nn

from corank.calibration import Moments
from corank.candidates import Candidate, find_candidates
from corank.errors import CorankError
from corank.inputs import Example
from corank.latency import LatencyTable
from corank.layers import LAYER_TYPES, copy_network, filter_layers, replace_layer
from corank.progress import track

Sensitivity: TypeAlias = Mapping[tuple[str, str], float]  # {(layer, method): loss for all of its energy}

_PROBED = 0.5  # of the multiply-accumulates of a layer: about where plans end up
_FLOOR = 0.01  # of the median: no layer is free, however the noise of a few batches falls


def sensitivity(
    model: nn.Module,
    loss: Callable[[nn.Module], float],
    *,
    example: Example,
    methods: Mapping[str, str | Sequence[str]] | None = None,
    stats: Mapping[str, Moments] | None = None,
    table: LatencyTable | None = None,
    types: Collection[str] = LAYER_TYPES,
    include: Iterable[str] | None = None,
    exclude: Iterable[str] | None = None,
    progress: bool = True,
) -> dict[tuple[str, str], float]:
    """Cut one layer at a time, about in half, and see what it does to the loss.

    s = (loss(cut) − loss(dense)) / (1 − kept energy): a plan predicts that keeping the share e of a layer
    costs s (1 − e), and that layers add up.

    Args:
        model: the network; left as it was.
        loss: the mean loss of a network on a few batches, always the same; lower is better.
        example, methods, stats, table, types, include, exclude: as they will be given to `plan`.
        progress: show a bar on a terminal, log lines elsewhere.
    Returns: `{(layer, method): s}`, at least a hundredth of their median.
    Raises: CorankError, when the loss of the dense network is not finite; and as `plan`.
    Source: ours; one probe a layer and method, instead of the many evaluations of greedy rank selection.

    >>> import torch
    >>> net, x = nn.Sequential(nn.Linear(8, 8)), torch.randn(4, 8)
    >>> target = net(x).detach()
    >>> list(sensitivity(net, lambda m: (m(x) - target).square().mean().item(), example=x))
    [('0', 'svd')]
    """
    candidates = find_candidates(
        model, example, methods, stats, table, types=types, include=include, exclude=exclude
    ).layers
    before = loss(model)
    if not isfinite(before):
        raise CorankError(f"loss: it is {before} for the dense network. Give finite batches.")
    found: dict[tuple[str, str], float] = {}
    tried = [one for several in candidates.values() for one in several]
    for candidate in track(tried, "sensitivity", enabled=progress):
        choice = candidate.choice(_probed_rank(candidate))
        after = loss(_cut(model, candidate, choice.rank))
        rise = (after - before) / max(1 - choice.energy, 1e-6)
        found[candidate.name, candidate.method.name] = rise if isfinite(rise) else float("inf")
    finite = [one for one in found.values() if isfinite(one) and one > 0]
    floor, ceiling = (_FLOOR * median(finite), max(finite)) if finite else (1.0, 1.0)
    return {key: min(max(one, floor), ceiling) for key, one in found.items()}


def _cut(model: nn.Module, candidate: Candidate, rank: int) -> nn.Module:
    holder = nn.ModuleList([copy_network(model)])  # so that a network that is a layer is replaced too
    layer = filter_layers(holder[0])[0][candidate.name]
    replace_layer(holder, layer, candidate.method.factors(candidate.layer, rank, candidate.moments))
    return holder[0]


def _probed_rank(candidate: Candidate) -> int:
    """Return the highest rank that halves the layer's multiply-accumulates, or 1."""
    low, high = 1, candidate.full
    while low < high:
        middle = (low + high + 1) // 2
        if candidate.cost(middle).macs <= _PROBED * candidate.before.macs:
            low = middle
        else:
            high = middle - 1
    return low
