"""The decompositions, one file each; to add one, write its file and list it here."""

from __future__ import annotations

from torch import nn

from corank.layers import FilterLayer
from corank.methods.cp import CP
from corank.methods.filter_basis import FilterBasis
from corank.methods.folding import fold
from corank.methods.input_basis import InputBasis
from corank.methods.kmeans import KMeans
from corank.methods.method import Method
from corank.methods.spatial import Spatial
from corank.methods.svd import SVD
from corank.methods.tucker import Tucker2

METHODS: dict[str, Method] = {
    method.name: method
    for method in (FilterBasis(), InputBasis(), Spatial(), Tucker2(), SVD(), KMeans(), CP())
}
"""Every decomposition by its name, as `methods=` of `corank.plan` takes it."""


def default_method(layer: FilterLayer) -> Method:
    """Return the split that suits a layer: filter basis for convolutions, SVD for linear layers."""
    return METHODS["svd" if isinstance(layer, nn.Linear) else "filter_basis"]


__all__ = [
    "METHODS",
    "SVD",
    "FilterBasis",
    "InputBasis",
    "Method",
    "Spatial",
    "Tucker2",
    "default_method",
    "fold",
]
