"""A small residual network whose layers have a structure to find."""

from __future__ import annotations

import torch
from torch import nn

from corank.testing import networks


def decaying_residual() -> nn.Module:
    """Return a network of 24 filters a layer, whose singular values fall by a hundred."""
    torch.manual_seed(0)
    model = networks.Residual(24)
    with torch.no_grad():
        for name in ("conv1", "conv2"):
            weight = model.body.get_submodule(name).weight
            weight.mul_(torch.logspace(0, -2, 24)[:, None, None, None])
    return model.eval()
