"""The stock layers that a split is made of: built without weights, then filled.

Shapes: G groups, N filters in a group, C input channels of a group, k the kernel's sizes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from corank.inputs import CHANNELS_LAST
from corank.layers import CONVS, TRANSPOSED_CONVS, Conv, ConvTranspose, FilterLayer, is_transposed


def kernel_dims(layer: Conv | ConvTranspose) -> tuple[int, ...]:
    """Return the indices of all spatial dimensions of a convolution."""
    return tuple(range(layer.weight.dim() - 2))


def conv_part(
    layer: Conv | ConvTranspose,
    in_channels: int,
    out_channels: int,
    dims: Iterable[int] = (),
    *,
    bias: bool = False,
    groups: int | None = None,
) -> Conv | ConvTranspose:
    """Make the part of a convolution that acts along some spatial dimensions, on meta.

    Along `dims` it has the layer's kernel, stride, padding and dilation, along the others kernel 1; without
    any it is a 1×1 convolution. Dtype, groups and padding mode are the layer's.
    """
    chosen = set(dims)

    def along(sizes: Sequence[int], otherwise: int) -> tuple[int, ...]:
        return tuple(size if dim in chosen else otherwise for dim, size in enumerate(sizes))

    settings: dict[str, Any] = {
        "kernel_size": along(layer.kernel_size, 1),
        "groups": layer.groups if groups is None else groups,
        "bias": bias,
        "device": "meta",
        "dtype": layer.weight.dtype,
    }
    kinds: tuple[type[Any], ...] = CONVS
    if chosen:
        settings["stride"] = along(layer.stride, 1)
        settings["dilation"] = along(layer.dilation, 1)
        settings["padding_mode"] = layer.padding_mode
        # "same" stays the word, and pads nothing where the kernel is 1
        settings["padding"] = layer.padding if isinstance(layer.padding, str) else along(layer.padding, 0)
        if is_transposed(layer):
            kinds = TRANSPOSED_CONVS
            settings["output_padding"] = along(layer.output_padding, 0)
    made = kinds[layer.weight.dim() - 3](in_channels, out_channels, **settings)
    return cast("Conv | ConvTranspose", made)


def fill(
    structure: nn.Sequential, weights: Sequence[Tensor], bias: Tensor | None, like: FilterLayer
) -> nn.Sequential:
    """Give a structure its weights: device, memory format, mode and frozen state as the layer it replaces.

    Values too small for the dtype's normal range become zero: a convolution with subnormal weights was
    measured 156 times slower.
    """
    structure = hollow(structure, like)
    with torch.no_grad():
        for module, weight in zip(structure, weights, strict=True):
            _copy(cast(Tensor, module.weight), weight)
        last = structure[-1].bias
        if isinstance(last, Tensor) and bias is not None:
            _copy(last, bias)
    return structure


def hollow(structure: nn.Sequential, like: FilterLayer) -> nn.Sequential:
    """Give a structure memory, mode and frozen state as the layer it replaces, but no values yet."""
    structure = structure.to_empty(device=like.weight.device)
    layout = _memory_format(like.weight)
    for module in structure:
        empty = torch.empty_like(cast(Tensor, module.weight), memory_format=layout, requires_grad=False)
        module.weight = nn.Parameter(empty, like.weight.requires_grad)
    last = structure[-1].bias
    if isinstance(last, Tensor):
        last.requires_grad_((like.weight if like.bias is None else like.bias).requires_grad)
    return structure.train(like.training)


def _memory_format(weight: Tensor) -> torch.memory_format:
    layout = CHANNELS_LAST.get(weight.dim())
    if layout is None or weight.is_contiguous() or not weight.is_contiguous(memory_format=layout):
        return torch.contiguous_format
    return layout


def _copy(target: Tensor, value: Tensor) -> None:
    target.copy_(value.reshape(target.shape))
    target.masked_fill_(target.abs() < torch.finfo(target.dtype).tiny, 0)
