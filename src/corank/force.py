"""The forces between the filters of one layer: pure functions from weights to a force of the same shape.

A force points where the filters should go. It is summed over the other filters and carries no strength.
W_i is a filter, u_i = W_i / ‖W_i‖ its direction, d_ij = ‖u_j − u_i‖ the distance between two directions;
T_i = I − u_i u_iᵀ keeps what is tangent to the sphere at u_i. docs/forces holds a card for each force.
Shapes: B layers or groups of one shape, N filters, D weights in a filter, R rank, T a tile of N, K one of D.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from corank.axis import pull_to_axis
from corank.errors import LayerError
from corank.pairs import TILE, pull_pairs
from corank.unit_rows import directions, measure, passes, tangent_, tiles

L1_EPSILON = 1e-6
DISTANCE_FLOOR = 1e-4  # where the original code stops: it skips a pair of filters that are this close


def l2_force(filters: Tensor) -> Tensor:
    """Pull every filter towards the direction of each other one, the harder the farther away it is.

    It descends R = ½ Σ_i Σ_j ‖u_j − u_i‖² = N² − ‖s‖² by the published step, ΔW_i = −(‖W_i‖²/2) ∂R/∂W_i.

    ΔW_i = ‖W_i‖ T_i Σ_j (u_j − u_i) = ‖W_i‖ (s − (u_i·s) u_i), with s = Σ_j u_j: O(N·D), no pair is formed.

    Args:
        filters: weights (..., N, D), one row per filter; leading dimensions: layers or groups of one shape.
    Returns: ΔW, shaped and typed as the filters, computed in float64. A filter of zeros feels and exerts
        nothing; identical and antipodal filters feel nothing from each other.
    Raises: LayerError, for a tensor that is not floating-point or has fewer than two dimensions.
    Source: Wen et al. 2017 (arXiv 1703.09746), ℓ2-norm force; `Degradation` in their Caffe code, which also
        skips filters of norm ≤ 1e-4. Here only zeros are, since the directions do not depend on the scale.

    >>> l2_force(torch.tensor([[2.0, 0.0], [0.0, 1.0]]))
    tensor([[0., 2.],
            [1., 0.]])
    """
    return _apply(_l2, filters, fewest=2)


def l1_force(filters: Tensor, *, epsilon: float = L1_EPSILON, tile: int = TILE) -> Tensor:
    """Pull every filter towards the direction of each other one, as hard from far as from near.

    It descends R = Σ_i Σ_j ‖u_j − u_i‖ by the published step, ΔW_i = −(‖W_i‖²/2) ∂R/∂W_i.

    ΔW_i = ‖W_i‖ T_i Σ_j (u_j − u_i) / max(d_ij, ε): two products of N²·D, of which symmetry saves a quarter.
    Below ε the force fades linearly (R is Huber's there). Where filters are identical it is 0, the published
    convention, and so it is where only rounding parts them (d ≤ 5e-7 in float32). Filters that meet chatter
    by the length of a step: raise ε to that length to calm them.

    Args:
        filters: weights (..., N, D), as for `l2_force`.
        epsilon: ε, a distance between directions, 0 or more. From ε on the force is exact.
        tile: filters in a tile of the Gram matrix, 1 or more. Memory beyond the result: one layer's weights,
            for the centred unit rows, and a few tiles (T, T) and (T, D).
    Returns: ΔW, as for `l2_force`, to 1e-5 or better of its norm at any distance from ε on. Tiles are
        multiplied in float32; pairs, or tiles, that are too near for that are done again in float64.
    Raises: LayerError, as for `l2_force`, or for a negative epsilon or a tile below 1.
    Source: Wen et al. 2017 (arXiv 1703.09746), ℓ1-norm force; `Constant` in their Caffe code, which also
        skips pairs with d ≤ 1e-4 and, on the GPU, takes d = √(2 − 2 u_i·u_j), which cancels near 0.

    >>> l1_force(torch.tensor([[2.0, 0.0], [0.0, 1.0]]))
    tensor([[0.0000, 1.4142],
            [0.7071, 0.0000]])
    """
    return _apply(lambda w_BND: pull_pairs(w_BND, 1, epsilon, tile), filters, fewest=2)


def linear_force(filters: Tensor, *, floor: float = DISTANCE_FLOOR, tile: int = TILE) -> Tensor:
    """Pull every filter towards the direction of each other one with |f| = 1/d: the nearer, the harder.

    It descends R = Σ_i Σ_j log ‖u_j − u_i‖ by the step of `l2_force`.

    ΔW_i = ‖W_i‖ T_i Σ_j (u_j − u_i) / max(d_ij, floor)²

    Args: filters and tile as for `l1_force`; floor: the distance below which the force fades linearly to 0.
    Returns: ΔW, as for `l1_force`.
    Raises: LayerError, as for `l1_force`.
    Source: `Linear` in the Caffe code of Wen et al. 2017 (SGDSolver::ForceRegularize, CPU only). It skips a
        pair with d ≤ 1e-4, whose force so drops from 1e4 to 0; here it fades.

    >>> linear_force(torch.tensor([[2.0, 0.0], [0.0, 1.0]]))
    tensor([[0.0000, 1.0000],
            [0.5000, 0.0000]])
    """
    return _apply(lambda w_BND: pull_pairs(w_BND, 2, floor, tile), filters, fewest=2)


def gravity_force(filters: Tensor, *, floor: float = DISTANCE_FLOOR, tile: int = TILE) -> Tensor:
    """Pull every filter towards the direction of each other one with |f| = 1/d², as masses attract.

    It descends R = −Σ_i Σ_j 1 / ‖u_j − u_i‖ by the step of `l2_force`.

    ΔW_i = ‖W_i‖ T_i Σ_j (u_j − u_i) / max(d_ij, floor)³: up to 1e8 a pair, which float16 cannot hold.

    Args: filters and tile as for `l1_force`; floor: the distance below which the force fades linearly to 0.
    Returns: ΔW, as for `l1_force`.
    Raises: LayerError, as for `l1_force`.
    Source: `Gravity` in the Caffe code of Wen et al. 2017 (SGDSolver::ForceRegularize, CPU only). It skips a
        pair with d ≤ 1e-4, whose force so drops from 1e8 to 0; here it fades.

    >>> gravity_force(torch.tensor([[2.0, 0.0], [0.0, 1.0]]))
    tensor([[0.0000, 0.7071],
            [0.3536, 0.0000]])
    """
    return _apply(lambda w_BND: pull_pairs(w_BND, 3, floor, tile), filters, fewest=2)


def axis_force(filters: Tensor) -> Tensor:
    """Pull every filter towards the line of each other one, on whichever side of the origin it lies.

    It descends R = ½ Σ_i Σ_j (1 − (u_i·u_j)²), half the summed sin² of the angles, by the step of `l2_force`:
    the ℓ2 force at twice the angle, halved. So −w is as near as w, and orthogonal filters feel nothing.

    ΔW_i = ‖W_i‖ T_i Σ_j (u_i·u_j) u_j = ‖W_i‖ T_i A u_i, with A = Σ_j u_j u_jᵀ: each filter takes a step of
    the power iteration towards the principal axis of all of them. O(N·D·min(N, D)).

    Args: filters: weights (..., N, D), as for `l2_force`.
    Returns: ΔW, as for `l2_force`. Flipping the sign of a filter flips its own force and changes no other.
    Raises: LayerError, as for `l2_force`.
    Source: ours, derived from the ℓ2-norm force of Wen et al. 2017: u_j in their (u_j − u_i) becomes the
        point (u_i·u_j) u_j of its line that is nearest to u_i. See docs/forces/axis.md.

    >>> axis_force(torch.tensor([[1.0, 0.0], [-3.0, -4.0]]))
    tensor([[ 0.0000,  0.4800],
            [-1.9200,  1.4400]])
    """
    return _apply(pull_to_axis, filters, fewest=2)


def subspace_force(filters: Tensor, rank: int | None = None, *, directions: Tensor | None = None) -> Tensor:
    """Pull every filter towards the subspace that the layer's filters already favour, and no further.

    For the V at hand it descends R = Σ_i (1 − ‖Vᵀ u_i‖²), the summed squared distance of the directions from
    the subspace, by the step of `l2_force`. It stops at rank R, where the pair forces go on to rank 1.

    ΔW_i = ‖W_i‖ T_i V Vᵀ u_i, with V the R leading right singular vectors of the unit rows: O(N·D·R), and
    what `leading_directions` costs where they are not given. It is no sum over filters: never divide it by N.

    Args:
        filters: weights (..., N, D), as for `l2_force`.
        rank: R, from 1 to min(N, D); or else
        directions: V (..., D, R), orthonormal columns, such as `leading_directions` gave some steps ago.
    Returns: ΔW, as for `l2_force`; 0 for filters inside the subspace or orthogonal to it.
    Raises: LayerError, as for `l2_force`, or for an impossible rank, directions of another shape, both, none.
    Source: ours: the low rank that Wen et al. 2017 leave to the strength of a force, as the aim of one.

    >>> v_DR = torch.tensor([[1.0], [0.0]])
    >>> subspace_force(torch.tensor([[2.0, 0.0], [0.6, 0.8]]), directions=v_DR)
    tensor([[ 0.0000,  0.0000],
            [ 0.3840, -0.2880]])
    """
    if (rank is None) == (directions is None):
        got = "neither" if rank is None else "both"
        raise LayerError(f"subspace_force: allowed is a rank or directions, got {got}. Pass one of them.")
    if rank is not None:
        directions = leading_directions(filters, rank)
    return _apply(lambda w_BND: _subspace(w_BND, _basis("directions", directions, filters, -1)), filters)


def output_force(filters: Tensor, basis: Tensor) -> Tensor:
    """Pull a layer's weights to where its outputs stay inside the subspace that they favour.

    It descends ½ ‖(I − U Uᵀ) W‖², the part of the weights whose output a layer of rank R would drop.

    ΔW = U Uᵀ W − W, O(N·D·R). Not tangent: it shrinks what sticks out. It is no sum over filters.

    Args:
        filters: weights (..., N, D), as for `l2_force`.
        basis: U (..., N, R), orthonormal columns: the leading eigenvectors of the layer's output covariance.
    Returns: ΔW, shaped and typed as the filters, computed in float64.
    Raises: LayerError, as for `l2_force`, or for a basis of another shape.
    Source: ours (corank's design, fact 12), not in Wen et al. 2017.

    >>> output_force(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([[1.0], [0.0]]))
    tensor([[ 0.,  0.],
            [-3., -4.]])
    """
    return _apply(lambda w_BND: _output(w_BND, _basis("basis", basis, filters, -2)), filters)


FORCES: dict[str, Callable[[Tensor], Tensor]] = {
    "l2": l2_force,
    "l1": l1_force,
    "linear": linear_force,
    "gravity": gravity_force,
    "axis": axis_force,
}


def leading_directions(filters: Tensor, rank: int) -> Tensor:
    """Return the R directions that hold most of a layer's unit filters, (..., D, R), orthonormal, in float64.

    They maximise Σ_i ‖Vᵀ u_i‖²: the leading right singular vectors of the unit rows, by `eigh` of the smaller
    Gram matrix. O(min(N, D)³): form them every K steps and hand them to `subspace_force`.

    Args:
        filters: weights (..., N, D), as for `l2_force`.
        rank: R, from 1 to min(N, D). Beyond the rank of the filters the directions are arbitrary.
    Returns: V, the strongest direction first; the sign of a direction is arbitrary.
    Raises: LayerError, as for `l2_force`, or for an impossible rank.
    Source: Eckart and Young 1936: no other subspace of R dimensions is nearer to the unit rows.

    >>> leading_directions(torch.tensor([[0.0, 2.0], [0.0, 3.0]]), 1).abs()
    tensor([[0.],
            [1.]], dtype=torch.float64)
    """
    _check(filters)
    n, d = filters.shape[-2:]
    if not 1 <= rank <= min(n, d):
        raise LayerError(f"rank: allowed is 1 to min(N, D) = {min(n, d)} for filters ({n}, {d}), got {rank}.")
    with torch.no_grad():
        w_BND = _batch(filters)
        u_BND = directions(w_BND, measure(w_BND)[1])
        v_BDR: Tensor
        if n <= d:
            left_BNR = torch.linalg.eigh(u_BND @ u_BND.mT).eigenvectors[..., -rank:].flip(-1)
            v_BDR = torch.linalg.qr(u_BND.mT @ left_BNR)[0]  # no division by singular values, which may be 0
        else:
            v_BDR = torch.linalg.eigh(u_BND.mT @ u_BND).eigenvectors[..., -rank:].flip(-1)
        return v_BDR.reshape(*filters.shape[:-2], d, rank)


def _check(filters: Tensor) -> None:
    if filters.dim() < 2 or not filters.is_floating_point():
        raise LayerError(
            "filters: allowed are floating-point tensors (..., N, D), one row per filter, "
            f"got {filters.dtype} of shape {tuple(filters.shape)}. "
            "Reshape a weight with corank.layers.to_filters first."
        )


def _batch(tensor: Tensor) -> Tensor:
    return tensor.detach().reshape(math.prod(tensor.shape[:-2]), *tensor.shape[-2:])


def _apply(force: Callable[[Tensor], Tensor], filters: Tensor, *, fewest: int = 1) -> Tensor:
    """Run a force on (B, N, D) in float32 or float64, and give back the shape and dtype of the filters."""
    _check(filters)
    if filters.numel() == 0 or filters.shape[-2] < fewest:
        return torch.zeros_like(filters)
    with torch.no_grad():
        w_BND = _batch(filters).to(torch.promote_types(filters.dtype, torch.float32))
        return force(w_BND).to(filters.dtype).reshape(filters.shape)


def _basis(name: str, basis: Tensor | None, filters: Tensor, along: int) -> Tensor:
    """Return a basis for the dimension `along` of the filters as (B, dimension, R) in float64."""
    shape = (*filters.shape[:-2], filters.shape[along])
    if basis is None or basis.shape[:-1] != shape or not basis.is_floating_point():
        got = None if basis is None else f"{basis.dtype} of shape {tuple(basis.shape)}"
        allowed = ", ".join(map(str, shape))
        raise LayerError(f"{name}: allowed are floating-point tensors ({allowed}, R), got {got}.")
    return _batch(basis).double()


def _l2(w_BND: Tensor) -> Tensor:
    norms_BN1, inverse_BN1, s_B1D = measure(w_BND)
    force_BND = torch.empty_like(w_BND)
    for part in passes(w_BND):
        w_BTD = w_BND[:, part].double()
        along_BT1 = w_BTD @ s_B1D.mT * inverse_BN1[:, part]
        force_BND[:, part] = (norms_BN1[:, part] * s_B1D).addcmul_(along_BT1, w_BTD, value=-1)
    return force_BND


def _subspace(w_BND: Tensor, v_BDR: Tensor) -> Tensor:
    norms_BN1, inverse_BN1, _ = measure(w_BND)
    force_BND = torch.empty_like(w_BND)
    for part in tiles(w_BND, 1):
        u_BTD = directions(w_BND[:, part], inverse_BN1[:, part])
        force_BND[:, part] = tangent_(u_BTD @ v_BDR @ v_BDR.mT, u_BTD).mul_(norms_BN1[:, part])
    return force_BND


def _output(w_BND: Tensor, u_BNR: Tensor) -> Tensor:
    force_BND = torch.empty_like(w_BND)
    for part in tiles(w_BND, 2):
        w_BNK = w_BND[..., part].double()
        force_BND[..., part] = torch.baddbmm(w_BNK, u_BNR, u_BNR.mT @ w_BNK, beta=-1)
    return force_BND
