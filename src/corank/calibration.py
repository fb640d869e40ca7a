"""Statistics of what layers really put out, for factors that keep the outputs rather than the weights.

Shapes: G groups, N filters in a group, T positions (samples times places in the map).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from itertools import islice
from typing import Any

import torch
from torch import Tensor, nn

from corank.errors import CorankError
from corank.inputs import Forward, run_batch
from corank.layers import FilterLayer, filter_layers, groups, unwrap
from corank.probing import unchanged


@dataclass(frozen=True, slots=True)
class Moments:
    """What a layer was seen to do, in float64.

    Of its outputs without bias: mean (G, N) and centred covariance (G, N, N). Of its inputs, where asked for:
    mean (G, C) and uncentred second moment (G, C, C) of the channels.
    """

    positions: int
    mean_GN: Tensor
    covariance_GNN: Tensor
    input_mean_GC: Tensor | None = None
    input_second_GCC: Tensor | None = None


def channel_columns(layer: FilterLayer, values: Tensor) -> Tensor:
    """Reshape a layer's input or output into (G, channels of a group, T), one column for each position.

    >>> channel_columns(nn.Conv2d(1, 4, 3), torch.ones(2, 4, 5, 5)).shape
    torch.Size([1, 4, 50])
    """
    if isinstance(layer, nn.Linear):
        columns = values.reshape(-1, values.shape[-1]).mT
    else:
        batched = values if values.dim() == layer.weight.dim() else values[None]
        columns = batched.transpose(0, 1).flatten(1)
    return columns.reshape(groups(layer), -1, columns.shape[-1])


class Sums:
    """Running count, sum, and sum of products of columns (G, N, T), in float64.

    >>> sums = Sums()
    >>> sums.add(torch.tensor([[[1.0, 3.0]]]))
    >>> sums.mean().item(), sums.covariance().item()
    (2.0, 1.0)
    """

    def __init__(self) -> None:
        self.count = 0
        self.first = self.second = torch.zeros(())

    def add(self, columns: Tensor, others: Tensor | None = None) -> None:
        """Add columns; the products are with `others`, of the same positions, where given."""
        columns = columns.double()
        self.count += columns.shape[-1]
        self.first = self.first.to(columns) + columns.sum(-1)
        self.second = self.second.to(columns) + columns @ (columns if others is None else others).mT

    def mean(self) -> Tensor:
        """Return the mean column, (G, N)."""
        return self.first / self.count

    def covariance(self, others: Sums | None = None) -> Tensor:
        """Return the centred second moment, (G, N, N); `others` are the sums of what was added with it."""
        mean = (self if others is None else others).mean()
        return self.second / self.count - self.mean()[..., None] * mean[..., None, :]


class _Recorder:
    """A forward hook that keeps the sums behind one layer's moments, over any number of calls."""

    def __init__(self, inputs: bool) -> None:
        self.outputs = Sums()
        self.inputs = Sums() if inputs else None

    def __call__(self, layer: FilterLayer, args: tuple[Tensor, ...], output: Tensor) -> None:
        columns = channel_columns(layer, output.detach())
        if layer.bias is not None:
            columns = columns - layer.bias.reshape(len(columns), -1, 1)
        self.outputs.add(columns)
        if self.inputs is not None:
            self.inputs.add(channel_columns(layer, args[0].detach()))

    def moments(self) -> Moments | None:
        if self.outputs.count == 0:
            return None
        found = Moments(self.outputs.count, self.outputs.mean(), self.outputs.covariance())
        if self.inputs is None:
            return found
        return replace(
            found,
            input_mean_GC=self.inputs.mean(),
            input_second_GCC=self.inputs.second / self.inputs.count,
        )


def calibrate(
    model: nn.Module,
    batches: Iterable[Any],
    *,
    inputs: bool = False,
    max_batches: int | None = None,
    types: Collection[str] = ("conv", "linear"),
    include: Iterable[str] | None = None,
    exclude: Iterable[str] | None = None,
    forward: Forward = run_batch,
) -> dict[str, Moments]:
    """Measure the outputs of every layer on a few batches, in eval mode, without gradients.

    Args:
        model: the trained network; left as it was.
        batches: what the network is used on; a few hundred samples are enough for most layers.
        inputs: measure the layers' input channels too, for the methods that choose a basis along them.
        max_batches: stop after so many.
        types, include, exclude: which layers, as in `spectrum`.
        forward: `(model, batch) -> anything`, how a batch is run; by default its first item is the input.
    Returns: `{layer: Moments}`; layers that were never called are absent.
    Raises: CorankError, when there was no batch or a layer put out NaN or infinite values.
    Source: Zhang et al. 2015 (arXiv 1505.06798), the linear case: principal components of the responses.

    >>> stats = calibrate(nn.Sequential(nn.Linear(4, 3)), [(torch.randn(8, 4), None)])
    >>> stats["0"].covariance_GNN.shape
    torch.Size([1, 3, 3])
    """
    model = unwrap(model)
    layers, _ = filter_layers(model, types=types, include=include, exclude=exclude)
    sums = {name: _Recorder(inputs) for name in layers}
    handles = [layer.register_forward_hook(sums[name]) for name, layer in layers.items()]
    count = 0
    try:
        with unchanged(model), torch.no_grad():
            model.eval()
            for batch in islice(batches, max_batches):
                forward(model, batch)
                count += 1
    finally:
        for handle in handles:
            handle.remove()
    if count == 0:
        raise CorankError(
            "calibrate: there was no batch. Give a loader, or a list of batches, with at least one."
        )
    found = {name: moments for name, one in sums.items() if (moments := one.moments()) is not None}
    for name, moments in found.items():
        if not bool(torch.isfinite(moments.covariance_GNN).all()):
            raise CorankError(f"{name}: its output has NaN or infinite values on the calibration batches.")
    return found
