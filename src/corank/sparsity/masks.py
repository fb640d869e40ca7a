"""Which weights stay: masks of magnitudes, pure functions on tensors. True stays.

Shapes: G groups, N filters in a group, C input channels of a group, K places of a kernel, D = C·K,
b blocks of m channels that follow each other.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from corank.layers import FilterLayer, from_filters, groups, is_transposed, to_filters
from corank.sparsity.specs import Scope


def magnitude_masks(weights: Sequence[Tensor], share: float, scope: Scope = "global") -> list[Tensor]:
    """Choose the weights of largest magnitude.

    Of n weights, round(share · n) are dropped, in all tensors together or in each. Zeros are the first to go,
    so that a mask of a larger share lies inside one of a smaller share of the same weights once zeroed.

    Args:
        weights: tensors of any shapes.
        share: of zeros, in [0, 1).
        scope: `global` or `layer`.
    Returns: a boolean mask of each tensor's shape.

    >>> [one.tolist() for one in magnitude_masks([torch.tensor([3.0, -1.0]), torch.tensor([2.0, -4.0])], 0.5)]
    [[True, False], [False, True]]
    """
    if scope == "layer":
        return [_largest(weight, share) for weight in weights]
    device = weights[0].device if weights else None
    flat = torch.cat(
        [weight.detach().flatten().to(device, torch.float32) for weight in weights] or [torch.ones(0)]
    )
    parts = torch.split(_largest(flat, share), [weight.numel() for weight in weights])
    return [part.view(w.shape).to(w.device) for part, w in zip(parts, weights, strict=True)]


def _largest(weight: Tensor, share: float) -> Tensor:
    size = weight.detach().abs().flatten()
    keep = torch.ones(size.numel(), dtype=torch.bool, device=size.device)
    drop = round(share * size.numel())
    if drop:
        keep[size.topk(drop, largest=False, sorted=False).indices] = False
    return keep.view(weight.shape)


def semi_structured_mask(layer: FilterLayer, zeros: int = 2, of: int = 4) -> Tensor:
    """Choose the largest of every `of` weights along the input channels, at each place of the kernel.

    Args:
        layer: its input channels within a group must be a multiple of `of`.
        zeros: how many of them are dropped.
    Returns: a boolean mask of the weight's shape.

    >>> layer = torch.nn.Linear(4, 1)
    >>> _ = layer.weight.data.copy_(torch.tensor([[1.0, -3.0, 2.0, 0.5]]))
    >>> semi_structured_mask(layer)
    tensor([[False,  True,  True, False]])
    """
    size_GND = to_filters(layer.weight.detach().abs(), layer)
    g, n, _ = size_GND.shape
    size_GNKC = size_GND.reshape(g, n, input_channels(layer), -1).transpose(2, 3)
    size_GNKbm = size_GNKC.reshape(*size_GNKC.shape[:3], -1, of)
    keep = torch.ones_like(size_GNKbm, dtype=torch.bool)
    keep.scatter_(-1, size_GNKbm.topk(zeros, largest=False).indices, False)
    keep_GND = keep.flatten(3).transpose(2, 3).reshape(size_GND.shape)
    return from_filters(keep_GND, layer).contiguous()


def input_channels(layer: FilterLayer) -> int:
    """Return the input channels of one group.

    >>> input_channels(torch.nn.Conv2d(8, 4, 3, groups=2))
    4
    """
    if is_transposed(layer):
        return layer.weight.shape[0] // groups(layer)
    return layer.weight.shape[1]
