"""How much each layer matters: the measured rise of the loss for each share of its energy that is lost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import isfinite
from statistics import median

from torch import nn

from corank.candidates import Candidate
from corank.errors import CorankError
from corank.layers import copy_network, filter_layers, replace_layer
from corank.progress import track

Sensitivity = dict[tuple[str, str], float]  # {(layer, method): loss for each share of energy lost}

_PROBED = 0.5  # of the multiply-accumulates of a layer: about where plans end up
_FLOOR = 0.01  # of the median: no layer is free, however the noise of a few batches falls


def measure_sensitivity(
    model: nn.Module,
    candidates: Mapping[str, Sequence[Candidate]],
    loss: Callable[[nn.Module], float],
) -> Sensitivity:
    """Cut one layer at a time, about in half, and see what it does to the loss.

    s = (loss(cut) − loss(dense)) / (1 − kept energy): an option that keeps the share e is then predicted to
    cost s (1 − e), and a plan the sum over its layers.

    Args:
        model: the network; left as it was.
        candidates: the layers, each with the methods that may split it.
        loss: the mean loss of a network on a few batches; lower is better.
    Returns: s of each layer and method, at least a hundredth of their median.
    Raises: CorankError, when the loss of the dense network is not finite.
    """
    before = loss(model)
    if not isfinite(before):
        raise CorankError(f"loss: it is {before} for the dense network. Give finite batches.")
    found: Sensitivity = {}
    tried = [(name, one) for name, several in candidates.items() for one in several]
    for name, candidate in track(tried, "sensitivity"):
        choice = candidate.choice(_probed_rank(candidate))
        lost = max(1 - choice.energy, 1e-6)
        cut = nn.ModuleList([copy_network(model)])  # so that a network that is a layer is replaced too
        layer = filter_layers(cut[0])[0][name]
        replace_layer(cut, layer, candidate.method.factors(candidate.layer, choice.rank, candidate.moments))
        after = loss(cut[0])
        found[name, candidate.method.name] = (after - before) / lost if isfinite(after) else float("inf")
    finite = [one for one in found.values() if isfinite(one) and one > 0]
    floor = _FLOOR * median(finite) if finite else 1.0
    ceiling = max(finite, default=1.0)
    return {key: min(max(one, floor), ceiling) for key, one in found.items()}


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
