"""How many zeros a network holds, and what a compressor makes of its weights."""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from corank.errors import CorankError
from corank.layers import filter_layers, to_filters, unwrap

_LEVEL = 6  # zip's own


@dataclass(frozen=True, slots=True)
class LayerZeros:
    """The zeros of one layer; rows are filters, columns one weight of all filters of a group."""

    weights: int
    zeros: int
    rows: int
    zero_rows: int
    columns: int
    zero_columns: int


@dataclass(frozen=True, slots=True)
class Zeros:
    """The zeros of a network by layer, and the bytes of all its parameters and buffers, plain and zipped."""

    layers: Mapping[str, LayerZeros]
    bytes: int
    compressed_bytes: int

    @property
    def share(self) -> float:
        """The share of zeros in the weights of all layers."""
        weights = sum(one.weights for one in self.layers.values())
        return sum(one.zeros for one in self.layers.values()) / max(weights, 1)

    @property
    def nonzero(self) -> int:
        """The weights of all layers that are not zero."""
        return sum(one.weights - one.zeros for one in self.layers.values())

    def __str__(self) -> str:
        width = max((len(name) for name in self.layers), default=5)
        lines = [f"{'layer':{width}}  weights     zeros   zero rows      zero columns"]
        for name, one in self.layers.items():
            rows, columns = f"{one.zero_rows}/{one.rows}", f"{one.zero_columns}/{one.columns}"
            share = one.zeros / max(one.weights, 1)
            lines.append(f"{name:{width}}  {one.weights:<10}  {share:5.1%}  {rows:13}  {columns}")
        lines.append(
            f"{self.share:.1%} zeros in {len(self.layers)} layers; "
            f"{self.bytes / 1e6:.2f} MB of weights, {self.compressed_bytes / 1e6:.2f} MB zipped"
        )
        return "\n".join(lines)


def count_zeros(model: nn.Module) -> Zeros:
    """Count the zeros of every convolution and linear layer, and compress the weights by zlib.

    Args:
        model: any network.
    Returns: a Zeros; layers whose weight is computed or packed are not in it.
    Raises: CorankError, for weights on the meta device.

    >>> layer = nn.Linear(2, 2)
    >>> _ = layer.weight.data.copy_(layer.weight.new_tensor([[0.0, 1.0], [0.0, 0.0]]))
    >>> count_zeros(layer).layers[""]
    LayerZeros(weights=4, zeros=3, rows=2, zero_rows=1, columns=2, zero_columns=1)
    """
    layers, _ = filter_layers(unwrap(model))
    if any(one.is_meta for one in model.parameters()):
        raise CorankError("count_zeros: weights on the meta device have no values. Load the weights first.")
    found = {name: _count(to_filters(one.weight.detach(), one)) for name, one in layers.items()}
    held: dict[int, Tensor] = {
        id(one): one for one in (*model.parameters(), *model.buffers()) if not is_lazy(one)
    }
    packer, plain, packed = zlib.compressobj(_LEVEL), 0, 0
    for tensor in held.values():
        data = tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes()
        plain, packed = plain + len(data), packed + len(packer.compress(data))
    return Zeros(found, plain, packed + len(packer.flush()))


def _count(w_GND: Tensor) -> LayerZeros:
    dead_GND = w_GND == 0
    rows, columns = dead_GND.all(2), dead_GND.all(1)
    return LayerZeros(
        weights=w_GND.numel(),
        zeros=int(dead_GND.sum()),
        rows=rows.numel(),
        zero_rows=int(rows.sum()),
        columns=columns.numel(),
        zero_columns=int(columns.sum()),
    )
