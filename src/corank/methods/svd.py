"""The split of a linear layer into two: to M features, then to the outputs."""

from __future__ import annotations

from torch import Tensor, nn

from corank.calibration import Moments
from corank.layers import FilterLayer, full_rank
from corank.methods.projection import layer_energies, project
from corank.methods.structure import fill


class SVD:
    """Linear(in, M) without bias, then Linear(M, out) with it: W ≈ (U √S)(√S Vᵀ).

    Source: the truncated SVD of Eckart and Young; the singular values go to both factors in equal parts, so
    that neither learns faster than the other afterwards. With moments: principal components of the outputs,
    which is the optimum that activation-aware methods (ASVD, SVD-LLM) whiten the inputs for.
    """

    name = "svd"
    needs_inputs = False

    def refusal(self, layer: FilterLayer) -> str | None:
        """Say why this layer cannot be split this way; None where it can."""
        if not isinstance(layer, nn.Linear):
            return "SVD splits linear layers; use FilterBasis for a convolution"
        return None

    def full_rank(self, layer: FilterLayer) -> int:
        """Return the rank at which the split is exact."""
        return full_rank(layer)

    def energies(self, layer: FilterLayer, moments: Moments | None = None) -> Tensor:
        """Return the energy of each direction, (1, R), largest first."""
        return layer_energies(layer, moments)

    def structure(self, layer: FilterLayer, rank: int, *, bias: bool | None = None) -> nn.Sequential:
        """Build the two layers without weights, on meta: enough to cost and time the split."""
        outputs, inputs = layer.weight.shape
        bias = layer.bias is not None if bias is None else bias
        dtype = layer.weight.dtype
        return nn.Sequential(
            nn.Linear(inputs, rank, bias=False, device="meta", dtype=dtype),
            nn.Linear(rank, outputs, bias=bias, device="meta", dtype=dtype),
        )

    def factors(self, layer: FilterLayer, rank: int, moments: Moments | None = None) -> nn.Sequential:
        """Build the two layers with their weights; with moments, to keep the layer's outputs."""
        split = project(layer, rank, moments)
        structure = self.structure(layer, rank, bias=split.bias is not None)
        size = split.basis_GMD.norm(
            dim=-1, keepdim=True
        )  # of each direction; the singular value without moments
        root = size.sqrt().clamp(min=1e-150)  # a direction of no size stays zero
        return fill(
            structure, [split.basis_GMD.div_(root), split.combination_GNM * root.mT], split.bias, layer
        )
