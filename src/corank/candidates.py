"""The layers of a network that can be split: each with what it costs and keeps at any rank."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from corank.calibration import Moments
from corank.cost import Cost, layer_cost, structure_cost
from corank.errors import CorankError, LayerError
from corank.inputs import Example
from corank.latency import LatencyTable
from corank.layers import (
    LAYER_TYPES,
    FilterLayer,
    copy_network,
    filter_layers,
    match_names,
    reject_unusable_values,
    unwrap,
)
from corank.methods import METHODS, Method, default_method, fold
from corank.methods.projection import reconstruction_error
from corank.plans import Choice
from corank.probing import Call, observe


class Candidate:
    """A layer that can be split, with what is needed to cost it at any rank."""

    def __init__(
        self, name: str, layer: FilterLayer, method: Method, calls: tuple[Call, ...], moments: Moments | None
    ) -> None:
        if moments is not None and method.needs_inputs and moments.input_second_GCC is None:
            raise CorankError(
                f"{name}: {method.name} chooses its basis along the inputs, and the statistics have "
                "outputs only. Use calibrate(..., inputs=True)."
            )
        self.name, self.layer, self.method, self.calls, self.moments = name, layer, method, calls, moments
        self.full = method.full_rank(layer)
        self.before = layer_cost(layer, calls)
        # output statistics give a split a bias that the layer may lack
        self.bias = True if moments is not None else None

    @cached_property
    def energies_GR(self) -> Tensor | None:
        """The energy of each direction, found when it is first asked for; None where a method has none."""
        return self.method.energies(self.layer, self.moments)

    def structure(self, rank: int) -> nn.Sequential:
        """Return the split of this rank without weights, on meta."""
        return self.method.structure(self.layer, rank, bias=self.bias)

    def cost(self, rank: int) -> Cost:
        """Return what a split of this rank costs."""
        return structure_cost(self.structure(rank), self.calls)

    def choice(self, rank: int, note: str = "") -> Choice:
        """Return what a split of this rank costs and keeps."""
        return Choice(
            self.method.name, rank, self.full, self._kept(rank), self.before, self.cost(rank), note=note
        )

    def _kept(self, rank: int) -> float:
        if self.energies_GR is None:  # no spectrum: split and see
            split = self.method.factors(self.layer, rank, self.moments)
            return max(1 - reconstruction_error(self.layer, fold(split)) ** 2, 0.0)
        total = self.energies_GR.sum(-1).clamp(min=torch.finfo(torch.float64).tiny)
        return min(float((self.energies_GR[..., :rank].sum(-1) / total).min()), 1.0)

    def spectrum(self) -> Tensor:
        """Return the energy that each further rank keeps.

        Raises: LayerError, for a method without a spectrum.
        """
        if self.energies_GR is None:
            raise LayerError(
                f"{self.name}: {self.method.name} has no spectrum to choose a rank by. "
                f"Order its ranks: Ranks({{{self.name!r}: rank}}, method={self.method.name!r})."
            )
        return self.energies_GR

    def by(self, method: Method) -> Candidate:
        """Return the same layer split by another method."""
        return Candidate(self.name, self.layer, method, self.calls, self.moments)


@dataclass(frozen=True, slots=True)
class Candidates:
    """The layers that can be split, each by the methods that may split it; why the others cannot.

    `model` is the network inside its wrappers, or a copy where lazy layers had to get their shapes.
    """

    model: nn.Module
    layers: Mapping[str, tuple[Candidate, ...]]
    skipped: Mapping[str, str]


def find_candidates(
    model: nn.Module,
    example: Example,
    methods: Mapping[str, str | Sequence[str]] | None = None,
    stats: Mapping[str, Moments] | None = None,
    table: LatencyTable | None = None,
    *,
    types: Collection[str] = LAYER_TYPES,
    include: Iterable[str] | None = None,
    exclude: Iterable[str] | None = None,
) -> Candidates:
    """Find out which layers can be split, and how.

    Args:
        model: the network.
        example: one input.
        methods: `{layer pattern: method or methods}`, where wanted.
        stats: what calibration measured, if anything.
        table: a latency table: the methods that it measured are the default, instead of one a layer.
        types, include, exclude: which layers, as in `spectrum`.
    Raises: CorankError, for an unknown method, or statistics that a method cannot use; LayerError, for
        a pattern that matches nothing, or weights that are NaN, infinite or on meta.
    """
    model, stats = unwrap(model), stats or {}
    if any(is_lazy(one) for one in (*model.parameters(), *model.buffers())):
        model = copy_network(model)  # to see what it does is to run it, and a run gives its layers shapes
    usable, skipped = filter_layers(model, types=types, include=include, exclude=exclude)
    uses = observe(model, usable, example)
    wanted = {name: one for pattern, one in (methods or {}).items() for name in match_names(pattern, usable)}
    owners: dict[int, int] = {}
    for module in model.modules():
        for parameter in module._parameters.values():
            if parameter is not None:
                owners[id(parameter)] = owners.get(id(parameter), 0) + 1
    found: dict[str, tuple[Candidate, ...]] = {}
    for name, layer in usable.items():
        allowed = _methods(name, layer, wanted.get(name), table)
        refusals = [reason for method in allowed if (reason := method.refusal(layer)) is not None]
        reason = uses[name].problem or (refusals[0] if len(refusals) == len(allowed) else None)
        if type(layer.weight) is not nn.Parameter:  # torchao's quantized tensors, DTensor
            reason = f"its weight is a {type(layer.weight).__name__}: make it a plain nn.Parameter first"
        if owners[id(layer.weight)] > 1:
            reason = "its weight is tied to another module's, and a split would untie it"
        if stats and name not in stats:
            reason = reason or "the calibration statistics do not cover it"
        if reason is not None:
            skipped[name] = reason
            continue
        reject_unusable_values(name, layer.weight)
        fitting = [method for method in allowed if method.refusal(layer) is None]
        found[name] = tuple(
            Candidate(name, layer, method, uses[name].calls, stats.get(name)) for method in fitting
        )
    return Candidates(model, found, skipped)


def _methods(
    name: str,
    layer: FilterLayer,
    wanted: str | Sequence[str] | None,
    table: LatencyTable | None,
) -> list[Method]:
    if wanted is not None:
        return [find_method(name, one) for one in ([wanted] if isinstance(wanted, str) else wanted)]
    measured = () if table is None else dict.fromkeys(row.method for row in table.splits(name))
    return [find_method(name, one) for one in measured] or [default_method(layer)]


def find_method(name: str, method: str) -> Method:
    """Return the method that is asked for at a layer.

    Raises: CorankError, for an unknown one.
    """
    if method not in METHODS:
        raise CorankError(f"{name}: unknown method {method!r}; allowed are {', '.join(METHODS)}.")
    return METHODS[method]
