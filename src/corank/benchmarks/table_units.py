"""What a latency table times: each different layer of a network once, on the shape it really meets.

A unit is a layer without its weights, an input shape and what follows it. Networks repeat themselves: a
ResNet-50 has 54 layers and 24 units.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from corank.benchmarks.followers import Follower, is_channels_last, watch_calls
from corank.inputs import CHANNELS_LAST, Example
from corank.layers import CONVS, TRANSPOSED_CONVS, FilterLayer, is_transposed

_BASES = (*CONVS, *TRANSPOSED_CONVS, nn.Linear)
_CONV_SETTINGS = (
    "in_channels",
    "out_channels",
    "kernel_size",
    "stride",
    "padding",
    "dilation",
    "groups",
    "padding_mode",
)


@dataclass(frozen=True, slots=True)
class Unit:
    """A stock layer on meta, the shape and layout of its input, and what is timed behind it."""

    layer: FilterLayer
    shape: tuple[int, ...]
    channels_last: bool = False
    followers: tuple[Follower, ...] = ()

    @property
    def key(self) -> str:
        """What tells it from other units, as JSON; the same for the same layer in another network."""
        followers = [[one.kind, dict(one.settings)] for one in self.followers]
        return json.dumps([*signature([self.layer]), list(self.shape), self.channels_last, followers])

    @property
    def dtype(self) -> torch.dtype:
        """The layer's."""
        return self.layer.weight.dtype


def read_unit(key: str) -> Unit:
    """Make a unit again from its key."""
    spec, shape, channels_last, followers = json.loads(key)
    named = [Follower(kind, tuple(settings.items())) for kind, settings in followers]
    return Unit(_from_spec(spec), tuple(shape), channels_last, tuple(named))


def find_units(
    model: nn.Module, layers: Mapping[str, FilterLayer], example: Example
) -> tuple[dict[str, Unit], dict[str, Counter[str]]]:
    """Return the units of a network by key, and how often each layer calls which.

    >>> net = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4), nn.ReLU())
    >>> units, calls = find_units(net, {"0": net[0], "2": net[2]}, torch.ones(1, 4))
    >>> len(units), [sum(one.values()) for one in calls.values()]
    (1, [1, 1])
    """
    units: dict[str, Unit] = {}
    calls: dict[str, Counter[str]] = {}
    for name, seen in watch_calls(model, layers, example).items():
        calls[name] = Counter()
        for one in seen:
            unit = Unit(stock(layers[name]), one.shape, one.channels_last, one.followers)
            units.setdefault(unit.key, unit)
            calls[name][unit.key] += 1
    return units, calls


def layer_spec(layer: FilterLayer) -> dict[str, Any]:
    """Return all that makes a layer but its weights: survives JSON."""
    base = next(base for base in _BASES if isinstance(layer, base))
    dtype = str(layer.weight.dtype).removeprefix("torch.")
    if isinstance(layer, nn.Linear):
        settings: dict[str, Any] = {"in_features": layer.in_features, "out_features": layer.out_features}
    else:
        settings = {name: getattr(layer, name) for name in _CONV_SETTINGS}
        if is_transposed(layer):
            settings["output_padding"] = layer.output_padding
    return {"kind": base.__name__, **settings, "bias": layer.bias is not None, "dtype": dtype}


def stock(layer: FilterLayer) -> FilterLayer:
    """Make the stock layer with the same settings, on meta."""
    return _from_spec(layer_spec(layer))


def _from_spec(spec: Mapping[str, Any]) -> FilterLayer:
    settings: dict[str, Any] = {
        name: tuple(value) if isinstance(value, list) else value for name, value in spec.items()
    }
    kind, dtype = settings.pop("kind"), getattr(torch, settings.pop("dtype"))
    made: FilterLayer = getattr(nn, kind)(**settings, device="meta", dtype=dtype)
    return made


def signature(chain: Sequence[nn.Module] | nn.Sequential) -> list[dict[str, Any]]:
    """Return the specs of a chain's layers, in order."""
    return [layer_spec(layer) for layer in chain]  # type: ignore[arg-type]


def build(unit: Unit, chain: nn.Sequential, generator: torch.Generator) -> nn.Sequential:
    """Give a chain random weights and put what follows the unit behind it, in eval mode.

    Weights are normal with variance 1 / fan-in, so that values stay near 1 all the way and none is
    subnormal, which would be slow.
    """
    made = nn.Sequential(*chain).to_empty(device="cpu")
    with torch.no_grad():
        for layer in made:
            weight: Tensor = layer.weight  # type: ignore[assignment]
            fan_in = weight.numel() // weight.shape[1 if is_transposed(layer) else 0]
            weight.copy_(torch.randn(weight.shape, generator=generator) / fan_in**0.5)
            if isinstance(layer.bias, Tensor):
                layer.bias.copy_(torch.randn(layer.bias.shape, generator=generator) / 10)
    for follower in unit.followers:
        made.append(follower.build().to(unit.dtype))
    if unit.channels_last:
        made.to(memory_format=CHANNELS_LAST[len(unit.shape)])  # type: ignore[call-overload]
    return made.eval()


def make_input(unit: Unit, generator: torch.Generator) -> Tensor:
    """Make a random input of the unit's shape, dtype and memory format."""
    x = torch.randn(unit.shape, generator=generator).to(unit.dtype)
    if unit.channels_last and not is_channels_last(x):
        x = x.contiguous(memory_format=CHANNELS_LAST[x.dim()])
    return x
