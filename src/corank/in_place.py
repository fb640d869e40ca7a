"""Forces that need no tensor of their own: large layers one at a time, small ones of one shape together."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch

from corank.batching import batches, largest
from corank.l2_in_place import add_l2_
from corank.rows_in_memory import Rows
from corank.subspace_in_place import add_output_, add_subspace_
from corank.unit_rows import product_dtype

IN_PLACE: dict[str, Callable[[Sequence[Rows]], list[bool]]] = {
    "l2": add_l2_,
    "subspace": add_subspace_,
    "output": add_output_,
}
_ANY = torch.empty(0)
_LIMIT = 2**16  # weights in a batch, 256 kB: a copy of more costs what the fewer calls save


def in_place(kind: str) -> bool:
    """Say whether a force can be added in place now.

    It cannot where autocast or a global switch would make float32 products shorter.
    """
    return kind in IN_PLACE and product_dtype(_ANY) == torch.float32


def add_in_place_(kind: str, layers: Sequence[Rows | None]) -> list[bool]:
    """Add the force to each layer, and say for each whether that was done; None is left alone.

    Args:
        kind: one of `IN_PLACE`.
        layers: strengths and ranks may differ within a shape.
    """
    done = [False] * len(layers)
    found = [(index, rows) for index, rows in enumerate(layers) if rows is not None]
    # a batch is held about twice, and may need no more than the largest layer and a tile beside it
    limit = min(_LIMIT, largest(rows.weight_GND for _, rows in found) * 3 // 4)
    for batch in batches(found, lambda one: one[1].weight_GND.shape, lambda one: one[1].weight_GND, limit):
        for (index, _), one in zip(batch, IN_PLACE[kind]([rows for _, rows in batch]), strict=True):
            done[index] = one
    return done
