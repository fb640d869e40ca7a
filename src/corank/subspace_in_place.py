"""The subspace and output forces added in place, in float32, on a CPU, where they would cost a training step.

`corank.force.subspace_force` and `output_force` work in float64 and return a new tensor, in two to three
times the time and several times the memory.
Shapes: M = B · G groups of all layers, N filters in a group, D weights in a filter, R rank, the largest of B.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from corank.rows_in_memory import Rows, add_apart_, apart, together

_SMALLEST, _LARGEST = 1e-15, 1e15  # norms whose squares float32 holds


def add_subspace_(batch: Sequence[Rows]) -> list[bool]:
    """Add factor · ΔW of the subspace force of each layer to its target, if float32 can hold it.

    target_i += factor · (V y_i − (‖y_i‖² / ‖W_i‖²) W_i), with y_i = Vᵀ W_i: ‖W_i‖ T_i V Vᵀ u_i without u_i.

    Rounding leaves an error below 1e-6 · ‖W_i‖, whatever the length of the force. That is what float32 means
    here: the weights and V are themselves known to no more than that.

    Args: batch: layers of one shape, with V as `corank.rank_targets.own_directions` gives it. There is a copy
        of weights and V while this runs, if the layers are more than one.
    Returns: for each layer whether it was done; nothing is changed otherwise.
    """
    w_MND = together([rows.weight_GND for rows in batch])
    norm_MN = torch.linalg.vector_norm(w_MND, dim=-1)
    fits = ((norm_MN > _SMALLEST) & (norm_MN < _LARGEST)).all(dim=1).tolist()
    done = [all(fits[at]) for _, at in apart(batch)]
    if not any(done):
        return done
    v_MDR = _directions(batch)
    y_MNR = torch.bmm(w_MND, v_MDR)
    share_MN1 = (torch.linalg.vector_norm(y_MNR, dim=-1) / norm_MN).square_()[..., None]
    if len(batch) > 1:
        w_MND.mul_(share_MN1.neg_()).baddbmm_(y_MNR, v_MDR.mT)
        add_apart_(batch, w_MND, done)  # the copy has become the force
        return done
    (rows,) = batch
    if rows.moves:
        w_MND.mul_(1 - rows.factor * share_MN1)
    else:
        rows.target_GND.addcmul_(w_MND, share_MN1, value=-rows.factor)
    rows.target_GND.baddbmm_(y_MNR, v_MDR.mT, alpha=rows.factor)
    return done


def add_output_(batch: Sequence[Rows]) -> list[bool]:
    """Add factor · ΔW of the output force of each layer to its target, one after the other.

    target += factor · (U (Uᵀ W) − W), with an error below 1e-6 · ‖W‖.

    Args: batch: as for `add_subspace_`, with U.
    Returns: as for `add_subspace_`.
    """
    for rows in batch:
        u_GNR = rows.basis
        assert u_GNR is not None  # the caller's part
        y_GRD = torch.bmm(u_GNR.mT, rows.weight_GND)
        rows.target_GND.sub_(rows.weight_GND, alpha=rows.factor)  # where they are one: W − factor · W
        rows.target_GND.baddbmm_(u_GNR, y_GRD, alpha=rows.factor)
    return [True] * len(batch)


def _directions(batch: Sequence[Rows]) -> Tensor:
    """Put V of all layers together; columns of zeros, which pull nowhere, make up for a lower rank."""
    found = [_in_memory_order(rows) for rows in batch]
    rank = max(v_GDR.shape[2] for v_GDR in found)
    return together(
        [v if v.shape[2] == rank else nn.functional.pad(v, (0, rank - v.shape[2])) for v in found]
    )


def _in_memory_order(rows: Rows) -> Tensor:
    """Order the rows of V as the weights of a filter lie in memory."""
    v_GDR = rows.basis
    assert v_GDR is not None  # the caller's part
    if rows.channels_last is None:
        return v_GDR
    g, d, r = v_GDR.shape
    return v_GDR.view(g, rows.channels_last, -1, r).transpose(1, 2).reshape(g, d, r)
