"""Zeros on top of low rank: single weights, 2:4, whole rows and columns, whole channels."""

from __future__ import annotations

from corank.sparsity.lasso import group_lasso
from corank.sparsity.sparsifier import Sparsifier
from corank.sparsity.sparsifying import Sparsified, sparsify
from corank.sparsity.specs import Channels, GroupLasso, SemiStructured, Unstructured
from corank.sparsity.zeros import LayerZeros, Zeros, count_zeros

__all__ = [
    "Channels",
    "GroupLasso",
    "LayerZeros",
    "SemiStructured",
    "Sparsified",
    "Sparsifier",
    "Unstructured",
    "Zeros",
    "count_zeros",
    "group_lasso",
    "sparsify",
]
