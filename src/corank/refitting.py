"""A layer fitted to give the outputs that are wanted from the inputs that it gets, by least squares.

Shapes: G groups, N filters in a group, C input channels of a group.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TypeAlias

import torch
from torch import Tensor, nn

from corank.calibration import Moments, Sums, channel_columns
from corank.layers import FilterLayer, filter_matrix, from_filters

RIDGE = 1e-6  # of the mean variance, at least; a layer seen at few positions gets filters / positions

Pair: TypeAlias = tuple[Tensor, Tensor]  # an input, and the output that is wanted for it


def refit(
    layer: FilterLayer, run: Callable[[Tensor], Tensor], pairs: Iterable[Pair], *, inputs: bool = False
) -> tuple[FilterLayer, Moments]:
    """Recombine a layer's outputs so that they come closest to those wanted: W' = T W and a new bias.

    T = I + E[(y − ŷ) ŷᵀ] E[ŷ ŷᵀ]⁻¹ about the means, inside each group: what the errors have in common with
    the outputs is put right. A ridge draws T to the identity, so that where there is no error, or no data,
    the layer stays as it is. It is N / positions of the mean variance: what N entries a row can follow of
    chance alone.

    Args:
        layer: the layer whose weight and bias are changed in a copy.
        run: x̂ ↦ ŷ, the layer itself, or a chain that ends in it.
        pairs: (x̂, y), a batch each.
        inputs: measure x̂ too; `layer` must then be what x̂ enters.
    Returns: the copy, and the moments of its own outputs on these inputs.
    """
    outputs, errors, seen = Sums(), Sums(), Sums()
    for x, wanted in pairs:
        given = run(x)
        columns = channel_columns(layer, given).double()
        if layer.bias is not None:
            columns = columns - layer.bias.reshape(len(columns), -1, 1)
        outputs.add(columns)
        errors.add(channel_columns(layer, wanted).double() - channel_columns(layer, given).double(), columns)
        if inputs:
            seen.add(channel_columns(layer, x))
    covariance, cross = outputs.covariance(), errors.covariance(outputs)
    size = covariance.diagonal(dim1=-2, dim2=-1).mean(-1)
    share = RIDGE + covariance.shape[-1] / outputs.count
    rounding = 1e-12 * outputs.second.diagonal(dim1=-2, dim2=-1).mean(-1) / outputs.count
    ridge = (share * size + rounding).clamp(min=torch.finfo(torch.float64).tiny)
    one = torch.eye(covariance.shape[-1], dtype=covariance.dtype, device=covariance.device)
    change = torch.linalg.solve(covariance + ridge[:, None, None] * one, cross, left=False)
    t_GNN = one + change
    shift = errors.mean() - (change @ outputs.mean()[..., None])[..., 0]
    fitted = _with(layer, t_GNN @ filter_matrix(layer).double(), shift.flatten())
    mean = (t_GNN @ outputs.mean()[..., None])[..., 0]
    moments = Moments(outputs.count, mean, t_GNN @ covariance @ t_GNN.mT)
    if inputs:
        moments = replace(moments, input_mean_GC=seen.mean(), input_second_GCC=seen.second / seen.count)
    return fitted, moments


def _with(layer: FilterLayer, w_GND: Tensor, shift: Tensor) -> FilterLayer:
    """Copy a layer with another weight, of the same layout, and its bias shifted."""
    made = copy.deepcopy(layer)
    weight = torch.empty_like(layer.weight).copy_(from_filters(w_GND, layer))
    made.weight = nn.Parameter(weight, layer.weight.requires_grad)
    bias = shift if layer.bias is None else layer.bias.double() + shift
    frozen = layer.weight if layer.bias is None else layer.bias
    made.bias = nn.Parameter(bias.to(layer.weight.dtype), frozen.requires_grad)
    return made
