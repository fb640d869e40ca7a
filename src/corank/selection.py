"""One option for each layer, so that the total loss is the least and every limit is kept: a knapsack.

Shapes: L layers, K_l options of layer l.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from corank.errors import CorankError

_SECONDS = 20.0  # for the solver; what it has found by then is within a fraction of a percent of the best
_GAP = 1e-4


@dataclass(frozen=True, slots=True)
class Limit:
    """What the chosen options may cost together: Σ_l costs[l][chosen_l] ≤ at_most."""

    name: str
    costs: Sequence[Sequence[float]]
    at_most: float

    def total(self, chosen: Sequence[int]) -> float:
        """Return what a choice costs."""
        return sum(costs[index] for costs, index in zip(self.costs, chosen, strict=True))

    def least(self) -> list[int]:
        """Return the cheapest option of every layer."""
        return [int(np.argmin(costs)) for costs in self.costs]

    def holds(self, chosen: Sequence[int]) -> bool:
        """Say whether a choice keeps the limit, but for rounding."""
        return self.total(chosen) <= self.at_most + 1e-9 * abs(self.at_most)


def select(losses: Sequence[Sequence[float]], limits: Sequence[Limit]) -> list[int] | None:
    """Choose one option a layer, with the least total loss under all limits.

    min Σ_l losses[l][x_l] subject to Σ_l costs[l][x_l] ≤ at_most for each limit: the multiple-choice
    knapsack, solved as an integer program by HiGHS.

    Args:
        losses: (L, K_l), finite; any unit, since only their order and ratios matter.
        limits: each with costs of the same shape.
    Returns: the index of the chosen option of every layer; None where nothing keeps all the limits.
    Raises: CorankError, when the solver gives up without an answer.
    Source: Kellerer, Pferschy and Pisinger 2004, chapter 11; `scipy.optimize.milp`.

    >>> saved = Limit("ms", [[4.0, 1.0], [4.0, 1.0]], at_most=5.0)
    >>> select([[0.0, 0.3], [0.0, 0.1]], [saved])
    [0, 1]
    """
    if not losses:
        return [] if all(limit.at_most >= 0 for limit in limits) else None
    if any(not limit.holds(limit.least()) for limit in limits):
        return None
    from scipy.optimize import Bounds, LinearConstraint, milp  # here, for it takes as long to import as torch
    from scipy.sparse import csr_array

    sizes = [len(row) for row in losses]
    layer_of = np.repeat(np.arange(len(sizes)), sizes)
    count = len(layer_of)
    pick_one = csr_array((np.ones(count), (layer_of, np.arange(count))), shape=(len(sizes), count))
    constraints = [LinearConstraint(pick_one, 1, 1)]
    for limit in limits:
        costs = np.concatenate([np.asarray(row, float) for row in limit.costs])
        unit = max(float(np.abs(costs).max()), 1e-300)  # so that the solver's tolerance is a relative one
        constraints.append(LinearConstraint(csr_array(costs[None] / unit), -np.inf, limit.at_most / unit))
    loss = np.concatenate([np.asarray(row, float) for row in losses])
    with _quiet():
        found = milp(
            loss / max(float(np.abs(loss).max()), 1e-300),
            integrality=np.ones(count),
            bounds=Bounds(0, 1),
            constraints=constraints,
            options={"time_limit": _SECONDS, "mip_rel_gap": _GAP},
        )
    if found.x is None:
        if found.status == 2:  # infeasible
            return None
        raise CorankError(f"plan: the solver gave up ({found.message}). Allow fewer methods or ranks.")
    chosen = [int(np.argmax(part)) for part in np.split(found.x, np.cumsum(sizes)[:-1])]
    return chosen if all(limit.holds(chosen) for limit in limits) else _repaired(losses, limits, chosen)


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep HiGHS from writing a line of its debugging to standard output, where `--json` goes."""
    try:
        kept = os.dup(1)
    except OSError:  # there is no standard output
        yield
        return
    sys.stdout.flush()
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1)
        yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)
        os.close(nowhere)


def _repaired(
    losses: Sequence[Sequence[float]], limits: Sequence[Limit], chosen: list[int]
) -> list[int] | None:
    """Mend a choice that the solver's tolerance let past a limit, by the cheapest single exchanges."""
    for _ in range(len(chosen)):
        broken = [limit for limit in limits if not limit.holds(chosen)]
        if not broken:
            return chosen
        limit = broken[0]
        moves = [
            (losses[layer][other] - losses[layer][now], layer, other)
            for layer, now in enumerate(chosen)
            for other in range(len(losses[layer]))
            if limit.costs[layer][other] < limit.costs[layer][now]
        ]
        if not moves:
            return None
        _, layer, other = min(moves)
        chosen = [other if index == layer else one for index, one in enumerate(chosen)]
    return chosen if all(limit.holds(chosen) for limit in limits) else None
