"""The filters of a layer as directions, in float64 and a tile at a time, so that the copies stay small.

Shapes: B layers or groups of one shape, N filters, D weights in a filter, T a tile of N.
"""

from __future__ import annotations

import torch
from torch import Tensor

_PASS = 2**16  # weights in one pass in float64, so that the copy stays in the cache
_TILE = 2**17  # weights in a tile of a product in float64: 1 MB, and enough for the product
# A tile is no more than this share of the layer, since three of them are there at once and take twice the
# bytes of the weights; below so many weights the number of tiles would cost more than it saves.
_SHARE, _FEWEST = 1 / 4, 2**12


def divide(n: int, size: int) -> list[slice]:
    """Divide n things into parts of a size, at least 1; the last may be smaller."""
    size = max(1, size)
    return [slice(start, min(start + size, n)) for start in range(0, n, size)]


def tile_weights(w_BND: Tensor, largest: int = _TILE) -> int:
    """Return how many weights a tile of these filters may hold."""
    return min(largest, max(_FEWEST, int(w_BND.numel() * _SHARE)))


def passes(w_BND: Tensor) -> list[slice]:
    """Divide the filters for one pass over all of them."""
    return _tiles(w_BND, 1, _PASS)


def tiles(w_BND: Tensor, dim: int) -> list[slice]:
    """Divide the filters (dim 1) or their weights (dim 2) for a product."""
    return _tiles(w_BND, dim, _TILE)


def _tiles(w_BND: Tensor, dim: int, largest: int) -> list[slice]:
    n = w_BND.shape[dim]
    return divide(n, tile_weights(w_BND, largest) * n // w_BND.numel())


def measure(w_BND: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the norms, their inverses (0 for a filter of zeros) and the sum of the unit rows, in float64."""
    norms_BN1 = torch.empty_like(w_BND[..., :1], dtype=torch.float64)
    inverse_BN1 = torch.empty_like(norms_BN1)
    s_B1D = torch.zeros_like(w_BND[:, :1], dtype=torch.float64)
    for part in passes(w_BND):
        w_BTD = w_BND[:, part].double()
        norms_BN1[:, part] = norms_BT1 = torch.linalg.vector_norm(w_BTD, dim=2, keepdim=True)
        inverse_BN1[:, part] = torch.where(norms_BT1 > 0, norms_BT1.reciprocal(), 0.0)
        s_B1D.baddbmm_(inverse_BN1[:, part].mT, w_BTD)
    return norms_BN1, inverse_BN1, s_B1D


def directions(rows: Tensor, inverse_norms: Tensor) -> Tensor:
    """Return rows over their norms, a copy in float64."""
    return rows.to(torch.float64, copy=True).mul_(inverse_norms)


def tangent_(pull: Tensor, u: Tensor) -> Tensor:
    """Take from a pull what points along the filter itself: f − (f·u) u."""
    return pull.addcmul_((pull * u).sum(-1, keepdim=True), u, value=-1)


def product_dtype(w_BND: Tensor) -> torch.dtype:
    """Return float32 if its products are true: neither autocast nor a global switch makes them shorter."""
    backend = torch.backends.cuda if w_BND.is_cuda else torch.backends.mkldnn
    short = backend.matmul.fp32_precision not in ("none", "ieee")
    return torch.float64 if short or torch.is_autocast_enabled(w_BND.device.type) else w_BND.dtype
