"""Which splits pay inside the assembled network, and the others folded back into one dense layer."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence

from torch import nn

from corank.layers import copy_network, replace_layer
from corank.methods import fold

Race = Callable[[Mapping[str, nn.Module]], float]  # (reference first, then its rival) -> speedup of the rival


def fold_back(model: nn.Module, layers: Sequence[str]) -> nn.Module:
    """Copy a network with the splits of some layers multiplied back into one layer each, training kept.

    >>> net = nn.Sequential(nn.Sequential(nn.Linear(4, 2, bias=False), nn.Linear(2, 3)))
    >>> fold_back(net, ["0"])[0]
    Linear(in_features=4, out_features=3, bias=True)
    """
    holder = nn.ModuleList([copy_network(model)])  # so that a network that is a layer is replaced too
    for name in layers:
        split = holder[0].get_submodule(name)
        replace_layer(holder, split, fold(split))  # type: ignore[arg-type]
    return holder[0]


def find_unpaid(
    model: nn.Module, gains_ms: Mapping[str, float], race: Race, *, most_races: int = 12
) -> dict[str, float]:
    """Find the splits that the assembled network is at least as fast without.

    All splits together are put to the race first, then halves of each group that paid as a whole, those that
    the latency table promised least for before the others. A group without which the network is as fast is
    given up whole.

    Args:
        model: the cut network.
        gains_ms: `{layer: milliseconds that its split saves by the table}` of every split.
        race: times two networks in turns; returns how many times as fast as the first the second is.
        most_races: when to stop; what was not raced keeps its split.
    Returns: `{layer: speedup of the network without the split}` of those that do not pay.
    """
    unpaid: dict[str, float] = {}
    kept = model  # with the splits that are not given up so far
    groups = deque([sorted(gains_ms, key=gains_ms.__getitem__)])
    races = 0
    while groups and races < most_races:
        group = groups.popleft()
        if not group:
            continue
        without = fold_back(kept, group)
        faster = race({"split": kept, "folded": without})
        races += 1
        if faster >= 1:
            unpaid |= dict.fromkeys(group, faster)
            kept = without
        elif len(group) > 1:
            half = len(group) // 2
            groups += [group[:half], group[half:]]
    return unpaid
