"""What there is to time in a network: its units, its layers' calls of them, and the splits of each."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import nn

from corank.benchmarks.table_ranks import Methods, RankChoice, methods_by_layer, ranks_by_layer, ranks_to_time
from corank.benchmarks.table_units import Unit, find_units
from corank.errors import CorankError
from corank.inputs import Example
from corank.layers import LAYER_TYPES, FilterLayer, filter_layers
from corank.methods import METHODS
from corank.probing import observe
from corank.targets import Target


@dataclass(frozen=True, slots=True)
class Survey:
    """Units by key, how often each layer calls which, and the splits to time of both."""

    units: Mapping[str, Unit]
    calls: Mapping[str, Counter[str]]
    layers: Mapping[str, Mapping[str, Sequence[int]]]  # {layer: {method: ranks}}
    splits: Mapping[str, Mapping[str, Sequence[int]]]  # {unit: {method: ranks}}
    skipped: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which splits are asked for; see `latency_table`."""

    methods: Methods = None
    ranks: RankChoice = None
    multiple: int = 8
    target: Target = field(default_factory=Target)

    def __post_init__(self) -> None:
        if self.multiple < 1:
            raise CorankError(f"multiple: allowed is 1 or more, got {self.multiple}.")


def survey_model(
    model: nn.Module,
    example: Example,
    wanted: Wanted,
    *,
    types: Collection[str] = LAYER_TYPES,
    include: Iterable[str] | None = None,
    exclude: Iterable[str] | None = None,
) -> Survey:
    """Return what there is to time in a network.

    Raises: CorankError, when that is nothing.
    """
    usable, skipped = filter_layers(model, types=types, include=include, exclude=exclude)
    uses = observe(model, usable, example)
    skipped |= {name: problem for name in usable if (problem := uses[name].problem) is not None}
    owners = Counter(id(one) for module in model.modules() for one in module._parameters.values())
    tied = "its weight is tied to another module's, and a split would untie it"
    skipped |= {name: tied for name, layer in usable.items() if owners[id(layer.weight)] > 1}
    layers = {name: layer for name, layer in usable.items() if name not in skipped}
    units, calls = find_units(model, layers, example)
    return survey_units(units, calls, layers, skipped, wanted)


def survey_units(
    units: Mapping[str, Unit],
    calls: Mapping[str, Counter[str]],
    layers: Mapping[str, FilterLayer],
    skipped: Mapping[str, str],
    wanted: Wanted,
) -> Survey:
    """Return the splits to time of some layers whose units are known.

    Raises: CorankError, when there is no layer.
    """
    if not layers:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in skipped.items()) or "it has no such layer"
        raise CorankError(f"latency table: no layer of the network can be timed ({reasons}).")
    by_layer = methods_by_layer(wanted.methods, layers)
    asked = ranks_by_layer(wanted.ranks, layers)
    found: dict[str, dict[str, Sequence[int]]] = {name: {} for name in layers}
    splits: dict[str, dict[str, Sequence[int]]] = {key: {} for key in units}
    known: dict[tuple[str, str, Sequence[float] | None], tuple[int, ...]] = {}
    for name in layers:
        for method in by_layer[name]:
            if wanted.target.methods is not None and method not in wanted.target.methods:
                continue
            ranks: set[int] = set()
            for key in calls[name]:
                terms = key, method, asked[name]
                if terms not in known:
                    known[terms] = _ranks(units[key], method, asked[name], wanted)
                ranks |= set(known[terms])
            found[name][method] = sorted(ranks)
            for key in calls[name]:
                splits[key][method] = sorted({*splits[key].get(method, ()), *ranks})
    return Survey(units, calls, found, splits, skipped)


def _ranks(unit: Unit, method: str, asked: Sequence[float] | None, wanted: Wanted) -> tuple[int, ...]:
    split = METHODS[method]
    ranks = ranks_to_time(unit.layer, split, unit.shape, asked, wanted.multiple)
    return tuple(
        rank for rank in ranks if wanted.target.refusal(split.structure(unit.layer, rank), unit.shape) is None
    )
