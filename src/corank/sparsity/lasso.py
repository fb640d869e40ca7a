"""The group lasso on rows and columns of filter matrices: its penalty, and its proximal step.

Shapes: G groups, N filters in a group, D weights in a filter.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from corank.layers import to_filters
from corank.sparsity.choice import choose
from corank.sparsity.specs import GroupLasso


def penalty(w_GND: Tensor, rows: float, columns: float) -> Tensor:
    """Return rows · Σ ‖row‖ + columns · Σ ‖column‖ of a filter matrix; at zero its gradient is zero.

    >>> penalty(torch.tensor([[[3.0, 0.0], [4.0, 0.0]]]), rows=1.0, columns=10.0).item()
    57.0
    """
    norm = torch.linalg.vector_norm
    total: Tensor = rows * norm(w_GND, dim=2).sum() + columns * norm(w_GND, dim=1).sum()
    return total


def shrink(w_GND: Tensor, rows: float, columns: float) -> Tensor:
    """Shorten every column by `columns`, then every row by `rows`; what is shorter becomes zero.

    For one of the two it is the proximal step argmin_v ½‖v − w‖² + penalty(v); rows and columns cross, so
    that both in turn only come near it.

    >>> shrink(torch.tensor([[[3.0, 4.0], [0.1, 0.1]]]), rows=1.0, columns=0.0)
    tensor([[[2.4000, 3.2000],
             [0.0000, 0.0000]]])
    """
    for dim, length in ((1, columns), (2, rows)):
        if length:
            size = torch.linalg.vector_norm(w_GND, dim=dim, keepdim=True)
            tiny = torch.finfo(size.dtype).tiny
            kept = (1 - length / size.clamp(min=tiny)).clamp(min=0)
            w_GND = (w_GND * kept).masked_fill(kept == 0, 0.0)  # never −0, which zips worse
    return w_GND


def group_lasso(model: nn.Module, spec: GroupLasso) -> Tensor:
    """Return the penalty of a network, to add to a loss; a `Sparsifier` does better, it reaches zero.

    Args:
        model: any network.
        spec: strengths and layers.
    Returns: a scalar with a gradient.
    Raises: LayerError, when no layer is left.

    >>> group_lasso(nn.Linear(2, 2), GroupLasso(rows=0.1)).requires_grad
    True
    """
    layers, _ = choose(model, spec)
    terms = [penalty(to_filters(one.weight, one), spec.rows, spec.columns) for one in layers.values()]
    return torch.stack([term.to(terms[0].device) for term in terms]).sum()
