"""The ℓ2 force added in place, in float32, on a CPU, where each pass over memory counts.

`corank.force.l2_force` works in float64 and returns a new tensor, in more than twice the time.
Shapes: M = B · G groups of all layers, N filters in a group, D weights in a filter.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from corank.rows_in_memory import Rows, add_apart_, apart, together

_BLOCK = 64  # filters that are summed in float32 before the sums are added: rounding grows with their number


def add_l2_(batch: Sequence[Rows]) -> list[bool]:
    """Add factor · ΔW of the ℓ2 force of each layer to its target, if float32 is enough for it.

    target_i += factor · (‖W_i‖ s − (u_i·s) W_i), with s = Σ_j u_j

    Both terms are as long as s, so rounding counts in proportion to 1 / ‖ΔW‖: where the filters have nearly
    met, or nearly cancel in s, it is left to float64, so that the error stays below 1e-5 of the force.

    Args: batch: layers of one shape, of which there is a copy while this runs, if they are more than one.
    Returns: for each layer whether it was done; nothing is changed otherwise.
    """
    w_MND = together([rows.weight_GND for rows in batch])
    norm_MN = torch.linalg.vector_norm(w_MND, dim=-1)
    inverse_MN = norm_MN.reciprocal()
    s_MD = _sum_of_units(inverse_MN, w_MND)
    n = norm_MN.shape[1]
    # 1 where the filters have met, about 1 / n without order; NaN where a filter is zero
    shares = [(length / n) ** 2 for length in torch.linalg.vector_norm(s_MD, dim=-1).tolist()]
    done = [all(0.1 / n < share < 0.995 for share in shares[at]) for _, at in apart(batch)]
    if not any(done):
        return done
    if len(batch) > 1:  # vecdot is faster for small layers, and addcmul than baddbmm
        along_MN = torch.linalg.vecdot(w_MND, s_MD[:, None]).mul_(inverse_MN)
        w_MND.mul_(along_MN.neg_()[..., None]).addcmul_(norm_MN[..., None], s_MD[:, None])
        add_apart_(batch, w_MND, done)  # the copy has become the force
        return done
    (rows,) = batch
    along_MN1 = torch.bmm(w_MND, s_MD[..., None]).mul_(inverse_MN[..., None])
    if rows.moves:
        w_MND.mul_(1 - rows.factor * along_MN1)
    else:
        rows.target_GND.addcmul_(w_MND, along_MN1, value=-rows.factor)
    rows.target_GND.baddbmm_(norm_MN[..., None], s_MD[:, None], alpha=rows.factor)
    return done


def _sum_of_units(inverse_MN: Tensor, w_MND: Tensor) -> Tensor:
    m, n, d = w_MND.shape
    if n <= _BLOCK or n % _BLOCK:
        return torch.bmm(inverse_MN[:, None], w_MND)[:, 0]  # on small layers twice as fast as @
    blocks = torch.bmm(inverse_MN.view(-1, 1, _BLOCK), w_MND.view(-1, _BLOCK, d))
    return blocks.view(m, n // _BLOCK, d).sum(1)
