"""A user's own project: what `corank bundle` and `corank serve` are told."""

from __future__ import annotations

import torch
from torch import nn


def make_model() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 30 * 30, 10))


def trained() -> nn.Module:
    torch.manual_seed(0)
    return make_model()
