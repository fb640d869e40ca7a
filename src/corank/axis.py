"""The axis force: each filter towards the line of each other one.

Shapes: B layers or groups of one shape, N filters, D weights in a filter, T a tile of N, K one of D.
"""

from __future__ import annotations

import torch
from torch import Tensor

from corank.unit_rows import directions, divide, measure, tangent_, tile_weights, tiles


def pull_to_axis(w_BND: Tensor) -> Tensor:
    """Sum (u_i·u_j) u_j over j, make it tangent at u_i, and scale it by ‖W_i‖."""
    _, n, d = w_BND.shape
    return _of_many(w_BND) if 2 * d <= n else _of_few(w_BND)  # (D, D) in float64 is no more than the weights


def _of_many(w_BND: Tensor) -> Tensor:
    norms_BN1, inverse_BN1, _ = measure(w_BND)
    force_BND = torch.empty_like(w_BND)
    all_BDD = w_BND.new_zeros(w_BND.shape[0], *w_BND.shape[2:] * 2, dtype=torch.float64)
    for part in tiles(w_BND, 1):
        u_BTD = directions(w_BND[:, part], inverse_BN1[:, part])
        all_BDD.baddbmm_(u_BTD.mT, u_BTD)
    for part in tiles(w_BND, 1):
        u_BTD = directions(w_BND[:, part], inverse_BN1[:, part])
        force_BND[:, part] = tangent_(u_BTD @ all_BDD, u_BTD).mul_(norms_BN1[:, part])
    return force_BND


def _of_few(w_BND: Tensor) -> Tensor:
    """Use C = U Uᵀ, a tile of its rows at a time: f_i = Σ_j C_ij u_j, and f_i·u_i = Σ_j C_ij²."""
    norms_BN1, inverse_BN1, _ = measure(w_BND)
    b, n, _ = w_BND.shape
    force_BND = torch.empty_like(w_BND)
    for rows in divide(n, tile_weights(w_BND) // (b * n)):
        c_BTN = w_BND.new_zeros(b, rows.stop - rows.start, n, dtype=torch.float64)
        for part in tiles(w_BND, 2):
            u_BNK = directions(w_BND[..., part], inverse_BN1)
            c_BTN.baddbmm_(u_BNK[:, rows], u_BNK.mT)
        along_BT1 = c_BTN.square().sum(2, keepdim=True)
        for part in tiles(w_BND, 2):
            u_BNK = directions(w_BND[..., part], inverse_BN1)
            pull_BTK = (c_BTN @ u_BNK).addcmul_(along_BT1, u_BNK[:, rows], value=-1)
            force_BND[:, rows, part] = pull_BTK.mul_(norms_BN1[:, rows])
    return force_BND
