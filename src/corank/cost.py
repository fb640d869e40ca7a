"""What layers and networks cost: multiply-accumulates, parameters and bytes, counted, not timed."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from corank.inputs import Example, call
from corank.layers import FilterLayer, is_transposed, layer_type
from corank.probing import Call, unchanged


@dataclass(frozen=True, slots=True)
class Cost:
    """Multiply-accumulates of all calls, the number of parameters, and the bytes of weights and buffers."""

    macs: int
    params: int
    bytes: int = 0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.macs + other.macs, self.params + other.params, self.bytes + other.bytes)

    def __sub__(self, other: Cost) -> Cost:
        return Cost(self.macs - other.macs, self.params - other.params, self.bytes - other.bytes)


def layer_cost(layer: FilterLayer, calls: tuple[Call, ...]) -> Cost:
    """Count a layer: outputs times weights per output, summed over its calls; bias adds parameters only.

    >>> layer_cost(nn.Conv2d(2, 4, 3), (Call((1, 2, 5, 5), (1, 4, 3, 3)),))
    Cost(macs=648, params=76, bytes=304)
    """
    macs = sum(_macs(layer, one.input_shape, one.output_shape) for one in calls)
    return Cost(macs, *_held(layer))


def structure_cost(structure: nn.Module, calls: tuple[Call, ...]) -> Cost:
    """Count a candidate on the meta device, for the same inputs as the layer that it would replace."""
    macs = 0

    def count(layer: nn.Module, args: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal macs
        if layer_type(layer) is not None:
            macs += _macs(layer, tuple(args[0].shape), tuple(output.shape))  # type: ignore[arg-type]

    handles = [module.register_forward_hook(count) for module in structure.modules()]
    dtype = next(structure.parameters()).dtype
    with torch.no_grad():
        for one in calls:
            structure(torch.empty(one.input_shape, device="meta", dtype=dtype))
    for handle in handles:
        handle.remove()
    return Cost(macs, *_held(structure))


def _held(module: nn.Module) -> tuple[int, int]:
    """Return the number of parameters, and the bytes of parameters and buffers."""
    every = (*module.parameters(), *module.buffers())
    params = sum(parameter.numel() for parameter in module.parameters())
    return params, sum(tensor.numel() * tensor.element_size() for tensor in every)


def _macs(layer: FilterLayer, input_shape: tuple[int, ...], output_shape: tuple[int, ...]) -> int:
    weight = layer.weight
    if isinstance(layer, nn.Linear):
        return prod(output_shape[:-1]) * weight.numel()
    if is_transposed(layer):  # every input value meets every weight of its channel once
        return prod(input_shape) * weight.numel() // weight.shape[0]
    return prod(output_shape) * weight.numel() // weight.shape[0]


def model_cost(model: nn.Module, example: Example) -> Cost:
    """Count a whole network on one input in eval mode, attention and bare matrix products included.

    Uses torch's flop counter, halved: one multiply-accumulate is two operations. Gradients stay enabled,
    for the fast path of `nn.TransformerEncoderLayer` hides its work from the counter.

    >>> model_cost(nn.Linear(4, 3), torch.ones(2, 4))
    Cost(macs=24, params=15, bytes=60)
    """
    with unchanged(model), torch.enable_grad(), FlopCounterMode(display=False) as counter:
        model.eval()
        call(model, example)
    return Cost(counter.get_total_flops() // 2, *_held(model))
