"""Boxes as corners (x1, y1, x2, y2)."""

from __future__ import annotations

import torch
from torch import Tensor


def iou(one: Tensor, two: Tensor) -> Tensor:
    """Return the intersection over union of boxes (..., 4), broadcast.

    >>> iou(torch.tensor([0.0, 0, 2, 2]), torch.tensor([1.0, 0, 3, 2])).item()
    0.3333333432674408
    """
    low, high = torch.maximum(one[..., :2], two[..., :2]), torch.minimum(one[..., 2:], two[..., 2:])
    common = (high - low).clamp(min=0).prod(-1)
    areas = [(box[..., 2:] - box[..., :2]).clamp(min=0).prod(-1) for box in (one, two)]
    return common / (areas[0] + areas[1] - common).clamp(min=1e-6)
