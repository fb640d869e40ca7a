"""In which order a latency table is measured, so that it is useful whenever the time is up.

First the middle rank of the first method of every unit, then the middle of the others, then the middles of
the gaps that are left; in each wave, the units that take the largest share of the network's time first.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

Split: TypeAlias = tuple[str, int]  # a method and a rank

GROUP = 8  # splits that take turns with the dense layer in one run


@dataclass(frozen=True, slots=True)
class Step:
    """Some splits of one unit, timed in one run with the dense layer; none for the dense layer alone."""

    unit: str
    splits: tuple[Split, ...] = ()


def plan_steps(
    candidates: Mapping[str, Mapping[str, Sequence[int]]], weight: Mapping[str, float]
) -> list[Step]:
    """Return the steps that time every candidate, the most informative first.

    Args:
        candidates: `{unit: {method: rising ranks}}`, the unit's default method first.
        weight: `{unit: time of all its calls}`, which decides who comes first in a wave.

    >>> steps = plan_steps({"a": {"svd": [8, 16, 24]}, "b": {"svd": [8]}}, {"a": 1.0, "b": 5.0})
    >>> [(step.unit, step.splits) for step in steps]
    [('b', (('svd', 8),)), ('a', (('svd', 16),)), ('a', (('svd', 8), ('svd', 24)))]
    """
    waves: dict[str, list[list[Split]]] = {}
    for unit, methods in candidates.items():
        waves[unit] = []
        for number, (method, ranks) in enumerate(methods.items()):
            for depth, some in enumerate(halved(ranks)):
                wave = depth + (number > 0 or depth > 0)  # the middle of the first method goes ahead
                while len(waves[unit]) <= wave:
                    waves[unit].append([])
                waves[unit][wave] += [(method, rank) for rank in some]
    heaviest = sorted(candidates, key=lambda unit: -weight[unit])
    return [
        Step(unit, tuple(splits[start : start + GROUP]))
        for wave in range(max(map(len, waves.values()), default=0))
        for unit in heaviest
        if wave < len(waves[unit])
        for splits in [waves[unit][wave]]
        for start in range(0, len(splits), GROUP)
    ]


def halved(ranks: Sequence[int]) -> list[list[int]]:
    """Return ranks in waves: the middle one, the middles of the two halves, and so on; each rank once.

    The second wave holds the ends, between which a table can interpolate.

    >>> halved([1, 2, 3, 4, 5, 6, 7])
    [[4], [1, 7], [2, 5], [3, 6]]
    """
    if not ranks:
        return []
    middle = (len(ranks) - 1) // 2
    waves = [[ranks[middle]]]
    ends = sorted({ranks[0], ranks[-1]} - {ranks[middle]})
    if ends:
        waves.append(ends)
    gaps = [(0, middle), (middle, len(ranks) - 1)]
    while gaps := [(low, high) for low, high in gaps if high - low > 1]:
        centres = [(low + high) // 2 for low, high in gaps]
        waves.append([ranks[centre] for centre in centres])
        gaps = [
            gap
            for (low, high), centre in zip(gaps, centres, strict=True)
            for gap in ((low, centre), (centre, high))
        ]
    return waves
