"""The forces that are sums over pairs of filters: tiles of the Gram matrix, exact where filters have met.

Shapes: B layers or groups of one shape, N filters, D weights in a filter, T a tile of N, K pairs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from corank.errors import LayerError
from corank.unit_rows import directions, divide, measure, passes, product_dtype, tangent_

TILE = 256
# d² = ‖a‖² + ‖b‖² − 2 a·b is lost to rounding where it is less than this share of ‖a‖² + ‖b‖²: in float32
# and in float64 for a force within 1e-5 (times its power, which multiplies the error), in float64 for 1e-9.
_LOST_FLOAT32 = 0.05
_LOST_FLOAT64 = 1e-10
_LOST_FOR_FLOAT64 = 1e-6
# The distance that rounding may leave between a filter and a multiple of it.
_IDENTICAL_FLOAT32 = 5e-7
_IDENTICAL_FLOAT64 = 1e-14


def pull_pairs(w_BND: Tensor, power: int, floor: float, tile: int) -> Tensor:
    """Sum (u_j − u_i) / max(d_ij, floor)^power over j, make it tangent at u_i, and scale it by ‖W_i‖.

    With P_ij = 1 / d_ij^power the sum is P x − diag(P 1) x, for x = u − c and any c. With c the mean of the
    unit rows, filters that the force has drawn together are as far apart as others: float32 does for them.
    """
    if tile < 1 or not floor >= 0:
        raise LayerError(f"tile: allowed is 1 or more, got {tile}; epsilon or floor: 0 or more, got {floor}.")
    norms_BN1, inverse_BN1, s_B1D = measure(w_BND)
    centre_B1D = s_B1D / w_BND.shape[1]
    pull_BND, mass_BN1 = _sum(w_BND, inverse_BN1, centre_B1D, power, floor, tile)
    for part in passes(w_BND):
        # −mass x is mass c plus a part along u: the smaller term where the filters lie all around.
        pull_BTD = pull_BND[:, part].to(torch.float64, copy=True)
        pull_BTD.addcmul_(mass_BN1[:, part].double(), centre_B1D)
        u_BTD = directions(w_BND[:, part], inverse_BN1[:, part])
        pull_BND[:, part] = tangent_(pull_BTD, u_BTD).mul_(norms_BN1[:, part])
    return pull_BND


def _sum(
    w_BND: Tensor, inverse_BN1: Tensor, centre_B1D: Tensor, power: int, floor: float, tile: int
) -> tuple[Tensor, Tensor]:
    """Return P x and P 1, tile by tile; what is lost to rounding there is done again in float64."""

    def unit(*index: slice | Tensor) -> Tensor:
        return directions(w_BND[index], inverse_BN1[index])

    every = slice(None)
    if w_BND.dtype == torch.float32:
        identical, lost = _IDENTICAL_FLOAT32, power * _LOST_FLOAT64
    else:
        identical, lost = _IDENTICAL_FLOAT64, _LOST_FOR_FLOAT64
    x_BND = torch.empty_like(w_BND, dtype=product_dtype(w_BND))
    lost_first = power * _LOST_FLOAT32 if x_BND.dtype == torch.float32 else lost
    sizes_BN1 = torch.empty_like(inverse_BN1)
    for part in passes(w_BND):
        x_BND[:, part] = x_BTD = unit(every, part).sub_(centre_B1D)
        sizes_BN1[:, part] = torch.linalg.vector_norm(x_BTD, dim=2, keepdim=True).square()
    sizes_BN1.masked_fill_(inverse_BN1 == 0, torch.inf)  # a filter of zeros is far from every other

    pull_BND, mass_BN1 = torch.zeros_like(x_BND), torch.zeros_like(x_BND[..., :1])
    few = w_BND.shape[0] * tile
    tiles = divide(w_BND.shape[1], tile)
    # The blocks below the diagonal are those above it, transposed.
    for rows, cols in ((rows, cols) for first, rows in enumerate(tiles) for cols in tiles[first:]):
        same = rows == cols
        sizes = sizes_BN1[:, rows], sizes_BN1[:, cols]
        a_BTD, b_BTD = x_BND[:, rows], x_BND[:, cols]
        squares_BTT, near_BTT, count = _squares(a_BTD, b_BTD, sizes, lost_first, same=same)
        if count > few:
            a_BTD, b_BTD = (unit(every, part).sub_(centre_B1D) for part in (rows, cols))
            squares_BTT, near_BTT, count = _squares(a_BTD, b_BTD, sizes, lost, same=same)
        if count > few:  # several tight knots of filters
            squares_BTT = torch.cdist(a_BTD, b_BTD, compute_mode="donot_use_mm_for_euclid_dist").square_()
        weights_BTT = _weights(squares_BTT, power, floor, identical)
        if 0 < count <= few:
            weights_BTT.masked_fill_(near_BTT, 0)
            batch, i, j = (near_BTT.triu_(1) if same else near_BTT).nonzero(as_tuple=True)
            i, j = i + rows.start, j + cols.start
            pull_KD = unit(batch, j) - unit(batch, i)
            pull_KD *= _weights(pull_KD.square().sum(1, keepdim=True), power, floor, identical)
            pull_KD = pull_KD.to(pull_BND.dtype)
            pull_BND.index_put_((batch, i), pull_KD, accumulate=True)
            pull_BND.index_put_((batch, j), -pull_KD, accumulate=True)
        _add(pull_BND[:, rows], mass_BN1[:, rows], weights_BTT, a_BTD, b_BTD)
        if not same:
            _add(pull_BND[:, cols], mass_BN1[:, cols], weights_BTT.mT, b_BTD, a_BTD)
    return pull_BND, mass_BN1


def _squares(
    a_BTD: Tensor, b_BTD: Tensor, sizes: tuple[Tensor, Tensor], lost: float, *, same: bool
) -> tuple[Tensor, Tensor, int]:
    """Return ‖b_j − a_i‖² from one product, where it is lost to rounding, and how often."""
    sizes_BTT = sizes[0].to(a_BTD.dtype) + sizes[1].to(a_BTD.dtype).mT
    if same:
        sizes_BTT.diagonal(dim1=1, dim2=2).fill_(torch.inf)  # no filter pulls itself
    squares_BTT = torch.baddbmm(sizes_BTT, a_BTD, b_BTD.mT, alpha=-2)
    near_BTT = squares_BTT < sizes_BTT.mul_(lost)
    return squares_BTT, near_BTT, int(near_BTT.count_nonzero())


def _weights(squares: Tensor, power: int, floor: float, identical: float) -> Tensor:
    """Return 1 / max(d, floor)^power, and 0 for filters that are the same up to rounding."""
    return squares.clamp(min=floor**2).pow_(-power / 2).masked_fill_(squares <= identical**2, 0)


def _add(pull_BTD: Tensor, mass_BT1: Tensor, weights_BTT: Tensor, a_BTD: Tensor, b_BTD: Tensor) -> None:
    """Add Σ_j P_ij (b_j − a_i) to the pull, or Σ_j P_ij b_j to it and Σ_j P_ij to the mass."""
    sums_BT1 = weights_BTT.sum(2, keepdim=True)
    if weights_BTT.dtype == pull_BTD.dtype:
        pull_BTD.baddbmm_(weights_BTT, b_BTD)
        mass_BT1 += sums_BT1
    else:  # the filters are close: subtract before rounding
        pull_BTD += torch.baddbmm(sums_BT1 * a_BTD, weights_BTT, b_BTD, beta=-1)
