"""The best basis of a layer's filters, of their weights or of their outputs.

Shapes: G groups, N filters in a group, M basis filters in a group, D weights in a filter, R = min(N, D).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from corank.calibration import Moments
from corank.layers import FilterLayer, filter_matrix
from corank.leading import gram, leading_eigenvectors, project_rows
from corank.spectra import filter_energies


class Factors(NamedTuple):
    """W ≈ combination · basis, and the bias of the whole."""

    basis_GMD: Tensor
    combination_GNM: Tensor
    bias: Tensor | None


def layer_energies(layer: FilterLayer, moments: Moments | None) -> Tensor:
    """Return the energy of each direction, (G, R), largest first: of the outputs where they are known.

    Without moments these are the squared singular values of the weights, with them the variances of the
    layer's outputs along their principal components.
    """
    if moments is None:
        return filter_energies(filter_matrix(layer))
    energies: Tensor = torch.linalg.eigvalsh(moments.covariance_GNN)
    return energies.flip(-1).clamp(min=0)[..., : min(filter_matrix(layer).shape[1:])]


def project(layer: FilterLayer, rank: int, moments: Moments | None) -> Factors:
    """Split a layer's filters into M basis filters and their combinations.

    Without moments, U holds the leading M left singular vectors of W (uncentred, as in the original code):
    W ≈ U (Uᵀ W), which minimises ‖W − Ŵ‖. With moments, U holds the leading M principal components of the
    outputs: it minimises E‖y − ŷ‖², and what it leaves out is replaced by its mean, b̂ = b + (I − U Uᵀ) μ.

    Args:
        layer: any layer of filters.
        rank: M per group, from 1 to min(N, D).
        moments: the layer's outputs, as `calibrate` measures them.
    Returns: the basis, which carries the energy, the orthonormal combinations, and the bias, in float64.
    Source: Wen et al. 2017, `pca` of the original code; Zhang et al. 2015 (arXiv 1505.06798) for outputs.
    """
    w = filter_matrix(layer).detach()
    bias = None if layer.bias is None else layer.bias.detach().double()
    if moments is not None:
        u = leading_eigenvectors(moments.covariance_GNN.to(w.device), rank)
        mean = moments.mean_GN.to(w.device)
        lost = mean - (u @ (u.mT @ mean[..., None]))[..., 0]
        bias = lost.flatten() if bias is None else bias + lost.flatten()
    elif w.shape[1] > w.shape[2]:  # W V is what u spans, so that W is read once less
        v = leading_eigenvectors(gram(w), rank)
        u, r = torch.linalg.qr(project_rows(v, w.mT).mT)
        return Factors(r @ v.mT, u, bias)
    else:
        u = leading_eigenvectors(gram(w), rank)
    return Factors(project_rows(u, w), u, bias)


def reconstruction_error(dense: FilterLayer, approximation: FilterLayer) -> float:
    """Return the relative Frobenius error of the weights, ‖W − Ŵ‖ / ‖W‖.

    >>> from torch import nn
    >>> layer = nn.Linear(2, 2)
    >>> reconstruction_error(layer, layer)
    0.0
    """
    w = dense.weight.detach().double()
    size = w.norm().item()
    return ((w - approximation.weight.detach().double()).norm().item() / size) if size else 0.0
