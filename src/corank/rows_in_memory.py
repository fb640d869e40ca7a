"""A weight, and the tensor that its force is added to, as rows in their order in memory.

Shapes: B layers, G groups, M = B · G, N filters in a group, D weights in a filter, R rank.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from corank.layers import FilterLayer, groups, is_transposed


@dataclass(slots=True)  # not frozen: made for every layer at every step
class Rows:
    """A force to be added in place: factor · ΔW of `weight` to `target`, which may be the weight itself.

    The order of the weights in a filter is that in memory: channels last where the weight is so. `basis` is
    V (G, D, R) of the subspace force or U (G, N, R) of the output force, in the plain order.
    """

    weight_GND: Tensor
    target_GND: Tensor
    factor: float
    basis: Tensor | None = None
    moves: bool = False  # whether target and weight are one and the same
    channels_last: int | None = None  # how many channels, where they are last


def rows_in_memory(
    target: Tensor, weight: Tensor, layer: FilterLayer, factor: float, basis: Tensor | None = None
) -> Rows | None:
    """View two float32 tensors on the CPU as rows; None where that cannot be. Call it under `no_grad`.

    Args:
        target: the gradient, or `weight` itself.
        weight: the weight of the layer.
        layer: says how it is divided into groups.
        factor: strength with its sign.
        basis: what the force pulls towards, if it needs that.
    """
    plain, moves, channels = (Tensor, nn.Parameter), target is weight, None
    if type(target) not in plain or type(weight) not in plain or target.stride() != weight.stride():
        return None
    if weight.dtype != torch.float32 or target.dtype != torch.float32 or not weight.is_cpu:
        return None
    if is_transposed(layer) or not weight.numel():
        return None
    if not weight.is_contiguous():
        if weight.dim() != 4:
            return None
        channels = weight.shape[1]
        target, weight = target.permute(0, 2, 3, 1), weight.permute(0, 2, 3, 1)
        if not weight.is_contiguous():
            return None
    g = groups(layer)
    shape = g, weight.shape[0] // g, -1
    return Rows(weight.view(shape), target.view(shape), factor, basis, moves, channels)


def together(matrices: Sequence[Tensor]) -> Tensor:
    """Put the groups of several layers behind one another, (B · G, ...); one layer is not copied."""
    return matrices[0] if len(matrices) == 1 else torch.cat(tuple(matrices))


def add_apart_(batch: Sequence[Rows], pull_MND: Tensor, done: Sequence[bool]) -> None:
    """Add factor · pull to the target of each layer that is to be done."""
    for (rows, at), add in zip(apart(batch), done, strict=True):
        if add:
            rows.target_GND.add_(pull_MND[at], alpha=rows.factor)


def apart(batch: Sequence[Rows]) -> list[tuple[Rows, slice]]:
    """Give each layer of a batch with its groups in what `together` made."""
    g = batch[0].weight_GND.shape[0]
    return [(rows, slice(b * g, (b + 1) * g)) for b, rows in enumerate(batch)]
