"""Spatial separation: a k×1 convolution, then a 1×k convolution."""

from __future__ import annotations

from math import prod

from torch import Tensor, nn

from corank.calibration import Moments
from corank.layers import Conv, ConvTranspose, FilterLayer, from_filters, is_conv
from corank.leading import leading_vectors
from corank.methods.channels import corrected_bias, input_root, kernel_tensor
from corank.methods.structure import conv_part, fill, kernel_dims
from corank.spectra import filter_energies


class Spatial:
    """k×1 to K channels without bias, then 1×k with the bias; in 3-d k×1×1, then 1×k×k.

    W[n, c, y, x] ≈ Σ_m H[n, m, x] V[m, c, y]: truncated SVD of W unfolded to (C·k_y, N·k_x).

    Source: Tai et al. 2016 (ICLR), who split √S evenly; Jaderberg et al. 2014. Rank is their K per group.
    """

    name = "spatial"
    needs_inputs = True

    def refusal(self, layer: FilterLayer) -> str | None:
        """Say why this layer cannot be split this way; None where it can."""
        if not is_conv(layer):
            return "Spatial splits convolutions; use SVD for a linear layer"
        if sum(size > 1 for size in layer.kernel_size) < 2:
            return "Spatial needs a kernel larger than 1 along two dimensions; use FilterBasis"
        return None

    def full_rank(self, layer: FilterLayer) -> int:
        """Return the rank per group at which the split is exact."""
        return min(_unfolded(layer, None).shape[1:])

    def energies(self, layer: FilterLayer, moments: Moments | None = None) -> Tensor:
        """Return the energy that each further rank keeps, (G, R), largest first."""
        return filter_energies(_unfolded(layer, moments))

    def structure(self, layer: FilterLayer, rank: int, *, bias: bool | None = None) -> nn.Sequential:
        """Build the two layers without weights, on meta: enough to cost and time the split."""
        conv: Conv | ConvTranspose = layer  # type: ignore[assignment]  # refusal() says no to all others
        channels = rank * conv.groups
        bias = conv.bias is not None if bias is None else bias
        return nn.Sequential(
            conv_part(conv, conv.in_channels, channels, (0,)),
            conv_part(conv, channels, conv.out_channels, kernel_dims(conv)[1:], bias=bias),
        )

    def factors(self, layer: FilterLayer, rank: int, moments: Moments | None = None) -> nn.Sequential:
        """Build the two layers with their weights; with moments, to keep the outputs on such inputs."""
        g, n, c, height, *rest = kernel_tensor(layer).shape
        unfolded = _unfolded(layer, moments)
        u = leading_vectors(unfolded.mT, rank)  # (G, C·k_y, M)
        size = (u.mT @ unfolded).norm(dim=-1)  # the singular values
        share = size.sqrt().clamp(min=1e-150)
        horizontal = (u.mT @ unfolded) / share[..., None]  # (G, M, N·k_x)
        vertical = (u * share[:, None]).mT.reshape(g, rank, c, height)
        root = input_root(layer, moments)  # type: ignore[arg-type]
        if root is not None:
            vertical = (root[1][:, None] @ vertical).contiguous()
        horizontal = horizontal.reshape(g, rank, n, prod(rest)).transpose(1, 2)  # (G, N, M, k_x)
        approximation = (horizontal.sum(-1) @ vertical.sum(-1))[..., None]
        bias = corrected_bias(layer, approximation, moments)
        structure = self.structure(layer, rank, bias=bias is not None)
        weights = [
            from_filters(part.flatten(2), structure[number])  # type: ignore[arg-type]
            for number, part in enumerate((vertical, horizontal))
        ]
        return fill(structure, weights, bias, layer)


def _unfolded(layer: FilterLayer, moments: Moments | None) -> Tensor:
    """Return (G, C·k_y, N·k_x), on inputs of unit covariance where the inputs are known."""
    w = kernel_tensor(layer)
    root = input_root(layer, moments)  # type: ignore[arg-type]
    if root is not None:
        w = (w.movedim(2, -1) @ root[0].reshape(len(w), *[1] * (w.dim() - 3), *root[0].shape[1:])).movedim(
            -1, 2
        )
    return w.flatten(4).movedim(1, 3).flatten(3).flatten(1, 2)
