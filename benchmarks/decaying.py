"""Random weights whose spectra fall off like a trained network's, so that a rank has something to choose.

The filters of a random layer are equally important in all directions; a trained layer's are not. Here a
Gaussian weight is multiplied along its filters and along its input channels by matrices whose singular values
fall as i^-p, and smoothed over its kernel. p is such that 95% of the sum of i^-2p lies in a stated share of
the directions. The result is made, not trained: it says nothing about accuracy.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from corank.layers import CONVS, filter_matrix, from_filters

RANK_SHARE = 0.45  # of the full rank at 95% of the energy: about the mean of the paper's Figure 6 with force
SMOOTH = 0.5  # correlation of neighbouring places of a kernel
ENERGY = 0.95
_STEPS = 30  # bisections of the exponent


def exponent(size: int, share: float) -> float:
    """Return p such that the first `share` of `size` directions hold 95% of the sum of i^-2p.

    >>> p = exponent(100, 0.4)
    >>> squares = [i ** (-2 * p) for i in range(1, 101)]
    >>> round(sum(squares[:40]) / sum(squares), 3)
    0.95
    """
    kept = max(round(share * size), 1)
    if kept >= ENERGY * size:
        return 0.0
    low, high = 0.0, 4.0
    for _ in range(_STEPS):
        power = (low + high) / 2
        squares = _decay(size, power).square()
        low, high = (low, power) if squares[:kept].sum() >= ENERGY * squares.sum() else (power, high)
    return high


def decay_layer_(layer: nn.Conv2d, share: float = RANK_SHARE, seed: int = 0) -> None:
    """Give a convolution weights with a falling spectrum, as large as they were.

    Args:
        layer: a convolution, changed in place; a depthwise one is left as it is.
        share: rank over full rank, per group, at 95% of the energy.
        seed: of the weights.
    """
    g, n, d = filter_matrix(layer).shape
    kernel = layer.weight.shape[2:]
    c = d // kernel.numel()
    if n == 1:
        return
    generator = torch.Generator().manual_seed(seed)
    noise = torch.randn(g, n, c, kernel.numel(), generator=generator, dtype=torch.float64)
    filters, inputs = (_mixing(size, share, generator) for size in (n, c))
    made = torch.matmul(filters, noise.flatten(2)).reshape(noise.shape)
    made = torch.matmul(inputs, made @ _smoothing(kernel)).flatten(2)
    made = made * (layer.weight.detach().double().norm() / made.norm())
    with torch.no_grad():
        layer.weight.copy_(from_filters(made, layer).reshape(layer.weight.shape))


def decay_(model: nn.Module, share: float = RANK_SHARE, seed: int = 0) -> nn.Module:
    """Give every convolution of a network a falling spectrum; linear layers are left as they are."""
    for number, layer in enumerate(model.modules()):
        if isinstance(layer, CONVS):
            decay_layer_(layer, share, seed + number)
    return model


def _mixing(size: int, share: float, generator: torch.Generator) -> Tensor:
    turn = torch.linalg.qr(torch.randn(size, size, generator=generator, dtype=torch.float64)).Q
    return turn * _decay(size, exponent(size, share))


def _decay(size: int, power: float) -> Tensor:
    return torch.arange(1, size + 1, dtype=torch.float64) ** -power


def _smoothing(kernel: torch.Size) -> Tensor:
    """Return the root of SMOOTH^distance along each side of the kernel, as one matrix over its places."""
    whole = torch.ones(1, 1, dtype=torch.float64)
    for size in kernel:
        place = torch.arange(size)
        likeness = SMOOTH ** (place[:, None] - place).abs().double()
        whole = torch.kron(whole, torch.linalg.cholesky(likeness).mT.contiguous())
    return whole
