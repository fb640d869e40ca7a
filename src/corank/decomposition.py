"""Carry out a plan: a copy of the network, made of stock layers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import islice
from typing import Any, cast

from torch import nn

from corank.asymmetry import Order, split_in_order
from corank.calibration import Moments
from corank.errors import CorankError, LayerError
from corank.inputs import Forward, run_batch
from corank.layers import (
    FilterLayer,
    copy_network,
    filter_layers,
    match_names,
    reject_unusable_values,
    replace_layer,
    unwrap,
)
from corank.methods import METHODS
from corank.plans import Choice, Plan


def decompose(
    model: nn.Module,
    plan: Plan,
    stats: Mapping[str, Moments] | None = None,
    *,
    asymmetric: Iterable[Any] | None = None,
    max_batches: int | None = None,
    forward: Forward = run_batch,
) -> nn.Module:
    """Copy a network with every layer of the plan split; the network itself is not touched.

    Args:
        model: the network that the plan was made for.
        plan: what to do to each layer.
        stats: the statistics that the plan was made with, if it was made with any.
        asymmetric: batches to fit each layer on, in the order of the network, to the outputs of the dense
            network from the inputs that the splits before it give; later layers then make up for earlier
            ones. They take the place of `stats`, and the plan must be one with statistics.
        max_batches: of `asymmetric`, stop after so many; all are held at once.
        forward: `(model, batch) -> anything`, how such a batch is run.
    Returns: a copy of stock `nn` modules; a module used under several names is replaced under all of them.
    Raises: LayerError, when the plan names a layer that the network does not have, or that changed since;
        CorankError, when the plan's statistics are missing, or asymmetric factors are asked of a plan
        that keeps the weights.

    >>> import torch
    >>> from corank.planning import plan
    >>> from corank.rules import Ranks
    >>> net = nn.Sequential(nn.Linear(8, 8, bias=False))
    >>> small = decompose(net, plan(net, Ranks({"0": 8}), example=torch.ones(1, 8)))
    >>> torch.allclose(small(torch.ones(1, 8)), net(torch.ones(1, 8)), atol=1e-6)
    True
    """
    batches = None if asymmetric is None else list(islice(asymmetric, max_batches))
    _check(plan, stats, batches)
    model = unwrap(model)
    layers = planned_layers(model, plan)
    if batches is not None:
        return _split_in_order(model, plan, layers, batches, forward)
    owners = Counter(id(one) for part in model.modules() for one in part._parameters.values())
    weights = [cast(nn.Parameter, layer.weight) for layer in layers.values()]
    spared = [weight for weight in weights if owners[id(weight)] == 1]
    holder = nn.ModuleList([copy_network(model, without=spared)])  # a network that is a layer is replaced too
    copies = planned_layers(holder[0], plan)
    for name, layer in layers.items():
        moments = _moments(name, stats) if plan.factors == "outputs" else None
        replace_layer(holder, copies[name], split_layer(name, layer, plan.layers[name], moments))
    return holder[0]


def _split_in_order(
    model: nn.Module, plan: Plan, layers: Mapping[str, FilterLayer], batches: list[Any], forward: Forward
) -> nn.Module:
    holder = nn.ModuleList([copy_network(model)])
    copies = planned_layers(holder[0], plan)
    orders = {}
    for name, choice in plan.layers.items():
        reject_unusable_values(name, layers[name].weight)
        orders[name] = Order(copies[name], layers[name], METHODS[choice.method], choice.rank)
    split_in_order(model, holder, orders, batches, forward)
    return holder[0]


def planned_layers(model: nn.Module, plan: Plan) -> dict[str, FilterLayer]:
    """Return the layers that a plan splits, by the plan's names.

    Raises: LayerError, when the network does not have one, or cannot have it split as planned.
    """
    layers, skipped = filter_layers(model)
    found = {}
    for name, choice in plan.layers.items():
        if name in skipped:
            raise LayerError(f"{name}: cannot be split: {skipped[name]}.")
        layer = layers[match_names(name, layers)[0]]
        if (full := METHODS[choice.method].full_rank(layer)) != choice.full_rank:
            raise LayerError(
                f"{name}: the plan was made for full rank {choice.full_rank}, this layer has {full}. "
                "Plan again for this network."
            )
        found[name] = layer
    return found


def split_layer(name: str, layer: FilterLayer, choice: Choice, moments: Moments | None) -> nn.Sequential:
    """Split one layer as planned.

    Raises: LayerError, for weights that are NaN, infinite or on meta.
    """
    reject_unusable_values(name, layer.weight)
    return METHODS[choice.method].factors(layer, choice.rank, moments)


def _check(plan: Plan, stats: Mapping[str, Moments] | None, batches: list[Any] | None) -> None:
    if batches is not None and plan.factors != "outputs":
        raise CorankError(
            "decompose: asymmetric factors keep the outputs, and this plan was made to keep the weights. "
            "Plan again with stats=corank.calibrate(model, batches)."
        )
    if batches == []:
        raise CorankError("decompose: asymmetric has no batch. Give a loader, or a list, with at least one.")
    if plan.factors == "outputs" and stats is None and batches is None:
        raise CorankError(
            "decompose: this plan keeps the outputs that corank.calibrate measured. "
            "Pass the same statistics, or plan again without them."
        )


def _moments(name: str, stats: Mapping[str, Moments] | None) -> Moments:
    if stats is None or name not in stats:
        raise CorankError(f"{name}: the statistics do not cover it. Calibrate with the plan's layers.")
    return stats[name]
