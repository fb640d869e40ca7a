"""Factors that make up for the splits before them: each layer is fitted to the inputs it will get."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from corank.calibration import Moments, calibrate
from corank.errors import LayerError
from corank.inputs import Forward
from corank.layers import FilterLayer, replace_layer
from corank.methods import Method
from corank.passes import HaltedPass
from corank.probing import unchanged
from corank.refitting import Pair, refit


@dataclass(frozen=True, slots=True)
class Order:
    """What is to be done to one layer of the copy: its method and rank, and the same layer of the network."""

    layer: FilterLayer
    dense: FilterLayer
    method: Method
    rank: int


def split_in_order(
    model: nn.Module,
    small: nn.ModuleList,
    orders: Mapping[str, Order],
    batches: Sequence[Any],
    forward: Forward,
) -> None:
    """Replace the ordered layers of a copy one after the other, as the network calls them.

    Both networks run on every batch at once and halt at each layer. There the layer's outputs in the dense
    network are known, y, and its inputs in the copy, x̂, which carry the errors of all splits before it. The
    layer's weight is first refitted to them, min_T,b E‖y − T W x̂ − b‖², and then split to keep the outputs of
    the refitted layer; for filter basis and SVD the two together are the optimum over all rank-M maps of
    W x̂ (reduced-rank regression). At last the outputs of the split are recombined by the same least squares,
    which costs nothing, since it goes into the split's last layer. One run of each network is enough, after
    one of the dense network that counts calls.

    A layer that is called more than once in a run gets its symmetric factors.

    Args:
        model: the dense network.
        small: a list with its copy as the one item, so that a network that is a layer can be replaced.
        orders: `{layer: what to do to it}`.
        batches: what the networks are run on.
        forward: how a batch is run.
    Raises: LayerError, for a layer that the batches do not reach, or reach differently in the copy.
    Source: Zhang et al. 2015 (arXiv 1505.06798), asymmetric reconstruction, the linear case.
    """
    training = {name: order.layer.training for name, order in orders.items()}
    with unchanged(model), unchanged(small), torch.no_grad():
        model.eval()
        small.eval()
        calls = _count_calls(model, orders, batches, forward)
        often = [name for name, count in calls.items() if count > 1]
        stats = calibrate(model, batches, inputs=True, include=often, forward=forward) if often else {}
        for name in often:
            _replace(small, orders[name], orders[name].layer, stats[name], training[name])
        waiting = {name: order for name, order in orders.items() if name not in often}
        _run_both(model, small, waiting, training, batches, forward)


def _replace(
    small: nn.Module, order: Order, old: nn.Module, moments: Moments, training: bool
) -> nn.Sequential:
    chain = order.method.factors(order.layer, order.rank, moments).train(training)
    replace_layer(small, old, chain)
    return chain


class _StandIn(nn.Module):
    """Halts the run at a layer that waits for its split, and goes on with the split."""

    def __init__(self, name: str, layer: nn.Module) -> None:
        super().__init__()
        self.name, self.layer, self.waits = name, layer, True

    def forward(self, input: Tensor) -> Any:
        if self.waits:
            HaltedPass.halt(self.name, input)
        return self.layer(input)


def _halt_after(name: str, layer: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
    HaltedPass.halt(name, output)


def _run_both(
    model: nn.Module,
    small: nn.ModuleList,
    orders: Mapping[str, Order],
    training: Mapping[str, bool],
    batches: Sequence[Any],
    forward: Forward,
) -> None:
    stands, hooks = {}, {}
    for name, order in orders.items():
        stands[name] = _StandIn(name, order.layer)
        replace_layer(small, order.layer, stands[name])
        hooks[name] = order.dense.register_forward_hook(partial(_halt_after, name))
    both: list[tuple[HaltedPass, HaltedPass]] = []
    try:
        for batch in batches:
            runs = (
                HaltedPass(partial(forward, model, batch)),
                HaltedPass(partial(forward, small[0], batch)),
            )
            both.append(runs)
            _go_on(runs)
        while waiting := [runs for runs in both if runs[1].at is not None]:
            name = cast(str, waiting[0][1].at)
            here = [runs for runs in waiting if runs[1].at == name]
            if any(dense.at != name for dense, _ in here):
                raise LayerError(
                    f"{name}: the split network takes another path through its layers than the dense one on "
                    "the same batch, so their outputs cannot be compared. Decompose without `asymmetric`."
                )
            order, stand = orders[name], stands[name]
            pairs = [(split.value, dense.value) for dense, split in here]
            stand.layer = _fit(order, pairs).train(training[name])
            stand.waits = False
            hooks.pop(name).remove()
            replace_layer(small, stand, stand.layer)
            for runs in here:
                _go_on(runs)
    finally:
        for runs in both:
            for run in runs:
                run.stop()
        for hook in hooks.values():
            hook.remove()
    if hooks:
        raise LayerError(_never(next(iter(hooks))))


def _go_on(runs: tuple[HaltedPass, HaltedPass]) -> None:
    for run in runs:
        run.resume()


def _fit(order: Order, pairs: Sequence[Pair]) -> nn.Sequential:
    layer, method = order.layer, order.method
    fitted, moments = refit(layer, layer, pairs, inputs=True)
    chain = method.factors(fitted, order.rank, moments)
    chain[-1], _ = refit(cast(FilterLayer, chain[-1]), chain, pairs)
    return chain


def _count_calls(
    model: nn.Module, orders: Mapping[str, Order], batches: Sequence[Any], forward: Forward
) -> dict[str, int]:
    """Return how often a run calls each layer, at most."""
    most = dict.fromkeys(orders, 0)
    calls: dict[str, int] = {}

    def count(name: str) -> Callable[..., None]:
        def add(*_: Any) -> None:
            calls[name] = calls.get(name, 0) + 1

        return add

    hooks = [order.dense.register_forward_hook(count(name)) for name, order in orders.items()]
    try:
        for batch in batches:
            calls.clear()
            forward(model, batch)
            most = {name: max(number, calls.get(name, 0)) for name, number in most.items()}
    finally:
        for hook in hooks:
            hook.remove()
    for name, number in most.items():
        if number == 0:
            raise LayerError(_never(name))
    return most


def _never(name: str) -> str:
    return (
        f"{name}: the network never calls it on the batches for asymmetric factors. "
        "Give batches that use it, or leave it out of the plan."
    )
