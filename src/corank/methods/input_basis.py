"""The mirror of the paper's split: a 1×1 convolution to M channels, then the k×k convolution on them."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor, nn

from corank.calibration import Moments
from corank.layers import Conv, ConvTranspose, FilterLayer, from_filters, is_conv
from corank.leading import leading_vectors
from corank.methods.channels import corrected_bias, input_root, kernel_tensor
from corank.methods.structure import conv_part, fill, kernel_dims
from corank.spectra import filter_energies


class InputBasis:
    """1×1 from C channels to M without bias, then k×k from M with the layer's geometry and bias.

    W[n, c, k] ≈ Σ_m A[n, m, k] P[m, c]: the right singular vectors of W unfolded along its input channels,
    (N·k, C). It pays where a layer has many inputs and few outputs, or a large stride.

    Source: Zhang et al. 2015 (arXiv 1505.06798) unfold along the outputs; this is the same along the inputs.
    """

    name = "input_basis"
    needs_inputs = True

    def refusal(self, layer: FilterLayer) -> str | None:
        """Say why this layer cannot be split this way; None where it can."""
        if not is_conv(layer):
            return "InputBasis splits convolutions; use SVD for a linear layer"
        if layer.in_channels == layer.groups:
            return "InputBasis needs more than one input channel in a group; use FilterBasis"
        return None

    def full_rank(self, layer: FilterLayer) -> int:
        """Return the rank per group at which the split is exact."""
        _, n, c, *kernel = kernel_tensor(layer).shape
        return min(c, n * prod(kernel))

    def energies(self, layer: FilterLayer, moments: Moments | None = None) -> Tensor:
        """Return the energy that each further rank keeps, (G, R), largest first."""
        return filter_energies(_unfolded(layer, moments))

    def structure(self, layer: FilterLayer, rank: int, *, bias: bool | None = None) -> nn.Sequential:
        """Build the two layers without weights, on meta: enough to cost and time the split."""
        conv: Conv | ConvTranspose = layer  # type: ignore[assignment]  # refusal() says no to all others
        channels = rank * conv.groups
        bias = conv.bias is not None if bias is None else bias
        return nn.Sequential(
            conv_part(conv, conv.in_channels, channels),
            conv_part(conv, channels, conv.out_channels, kernel_dims(conv), bias=bias),
        )

    def factors(self, layer: FilterLayer, rank: int, moments: Moments | None = None) -> nn.Sequential:
        """Build the two layers with their weights; with moments, to keep the outputs on such inputs."""
        w = kernel_tensor(layer)
        v_GCM = leading_vectors(_unfolded(layer, moments), rank)
        root = input_root(layer, moments)  # type: ignore[arg-type]
        reduce = v_GCM.mT if root is None else v_GCM.mT @ root[1]  # P: x ↦ Vᵀ S^-½ x
        expand = v_GCM if root is None else root[0] @ v_GCM  # A = W S^½ V
        reduced = torch.einsum("gnc...,gcm->gnm...", w, expand)
        approximation = torch.einsum("gnm...,gmc->gnc...", reduced, reduce)
        bias = corrected_bias(layer, approximation, moments)
        structure = self.structure(layer, rank, bias=bias is not None)
        spatial = from_filters(reduced.flatten(2), structure[1])  # type: ignore[arg-type]
        return fill(structure, [reduce, spatial], bias, layer)


def _unfolded(layer: FilterLayer, moments: Moments | None) -> Tensor:
    """Return (G, N·k, C), on inputs of unit covariance where the inputs are known."""
    w = kernel_tensor(layer)
    rows = w.movedim(2, -1).flatten(1, -2)
    root = input_root(layer, moments)  # type: ignore[arg-type]
    return rows if root is None else rows @ root[0]
