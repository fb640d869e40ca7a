"""Tucker-2: fewer input and output channels around a smaller k×k core."""

from __future__ import annotations

from math import prod

import torch
from torch import Tensor, nn

from corank.calibration import Moments
from corank.layers import Conv, ConvTranspose, FilterLayer, from_filters, full_rank, is_conv
from corank.leading import leading_eigenvectors, leading_vectors
from corank.methods.channels import corrected_bias, input_root, kernel_tensor
from corank.methods.structure import conv_part, fill, kernel_dims


class Tucker2:
    """1×1 to r_in channels, k×k to r_out channels, 1×1 to the outputs with the bias.

    W ≈ core ×_N U ×_C V. One number sets both ranks: r_out = M and r_in = ⌈M·C/min(N, D)⌉, so that both
    reach the full size together.

    Source: Kim et al. 2016 (arXiv 1511.06530), by truncated HOSVD: the bases are the leading singular
    vectors of the two unfoldings, nested in the rank, so that the error never rises with it. With moments:
    principal components of the outputs, and inputs of unit covariance.
    """

    name = "tucker2"
    needs_inputs = True

    def refusal(self, layer: FilterLayer) -> str | None:
        """Say why this layer cannot be split this way; None where it can."""
        if not is_conv(layer):
            return "Tucker2 splits convolutions; use SVD for a linear layer"
        if all(size == 1 for size in layer.kernel_size):
            return "Tucker2 needs a kernel larger than 1; use FilterBasis for a 1×1 convolution"
        if layer.in_channels == layer.groups:
            return "Tucker2 needs more than one input channel in a group; use FilterBasis"
        return None

    def full_rank(self, layer: FilterLayer) -> int:
        """Return the rank per group at which the split is exact: min(N, D), as of the filters."""
        return full_rank(layer)

    def energies(self, layer: FilterLayer, moments: Moments | None = None) -> Tensor:
        """Return the energy that each further rank keeps, (G, R): what its larger core adds."""
        w = kernel_tensor(layer)
        g, n, c = w.shape[:3]
        u, v, whitened = _bases(layer, n, c, moments)
        core = torch.einsum("gno,gnc...,gci->goi...", u, whitened, v).flatten(3).square().sum(-1)
        kept = core.cumsum(1).cumsum(2)
        outputs = torch.arange(1, full_rank(layer) + 1, device=w.device)
        inputs = torch.tensor([_input_rank(layer, rank) for rank in outputs.tolist()], device=w.device)
        along = kept[:, outputs - 1, inputs - 1]
        return torch.diff(along, dim=1, prepend=along.new_zeros(g, 1))

    def structure(self, layer: FilterLayer, rank: int, *, bias: bool | None = None) -> nn.Sequential:
        """Build the three layers without weights, on meta: enough to cost and time the split."""
        conv: Conv | ConvTranspose = layer  # type: ignore[assignment]  # refusal() says no to all others
        r_in, r_out = conv.groups * _input_rank(layer, rank), conv.groups * rank
        bias = conv.bias is not None if bias is None else bias
        return nn.Sequential(
            conv_part(conv, conv.in_channels, r_in),
            conv_part(conv, r_in, r_out, kernel_dims(conv)),
            conv_part(conv, r_out, conv.out_channels, bias=bias),
        )

    def factors(self, layer: FilterLayer, rank: int, moments: Moments | None = None) -> nn.Sequential:
        """Build the three layers with their weights; with moments, to keep the layer's outputs."""
        u, v, whitened = _bases(layer, rank, _input_rank(layer, rank), moments)
        core = torch.einsum("gno,gnc...,gci->goi...", u, whitened, v)
        root = input_root(layer, moments)  # type: ignore[arg-type]
        reduce = v.mT if root is None else v.mT @ root[1]
        approximation = torch.einsum("gno,goi...,gic->gnc...", u, core, reduce)
        bias = corrected_bias(layer, approximation, moments)
        structure = self.structure(layer, rank, bias=bias is not None)
        spatial = from_filters(core.flatten(2), structure[1])  # type: ignore[arg-type]
        return fill(structure, [reduce, spatial, u], bias, layer)


def _input_rank(layer: FilterLayer, rank: int) -> int:
    """Return r_in: as large a share of C as M is of the full rank, and at most what N·k filters can span."""
    _, n, c, *kernel = kernel_tensor(layer).shape
    return min(-(-rank * c // full_rank(layer)), n * prod(kernel))


def _bases(
    layer: FilterLayer, r_out: int, r_in: int, moments: Moments | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the output basis (G, N, r_out), the input basis (G, C, r_in), and the weights they are of."""
    w = kernel_tensor(layer)
    root = input_root(layer, moments)  # type: ignore[arg-type]
    if root is not None:
        w = torch.einsum("gnc...,gcd->gnd...", w, root[0])
    v = leading_vectors(w.movedim(2, -1).flatten(1, -2), r_in)
    if moments is None:
        u = leading_vectors(w.flatten(2).mT, r_out)
    else:
        u = leading_eigenvectors(moments.covariance_GNN.to(w.device), r_out)
    return u, v, w
