from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from corank.benchmarks.followers import watch_calls


class Net(nn.Module):
    def __init__(self, after):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.after = after

    def forward(self, x):
        return self.after(self, self.conv(x), x)


def _followers(after):
    net = Net(after)
    (seen,) = watch_calls(net, {"conv": net.conv}, torch.randn(2, 3, 6, 6))["conv"]
    return [one.kind for one in seen.followers]


def _residual(net, y, x):
    y = net.norm(y)
    y += x.sum(1, keepdim=True)
    return torch.relu_(y)


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (lambda net, y, x: y, []),
        (lambda net, y, x: F.relu(net.norm(y)), ["BatchNorm2d", "ReLU"]),
        (lambda net, y, x: torch.relu(net.norm(y)), ["BatchNorm2d", "ReLU"]),
        (lambda net, y, x: net.norm(y).relu_(), ["BatchNorm2d", "ReLU"]),
        (lambda net, y, x: F.relu(y, inplace=True), ["ReLU"]),
        (lambda net, y, x: F.relu6(y), ["ReLU6"]),
        (lambda net, y, x: F.gelu(y, approximate="tanh"), ["GELU"]),
        (lambda net, y, x: F.dropout(F.silu(y), training=False), ["SiLU"]),
        (lambda net, y, x: F.silu(F.dropout(y, training=False)), ["SiLU"]),
        (lambda net, y, x: net.norm(F.relu(y)), ["ReLU"]),
        (lambda net, y, x: F.relu(F.relu(y)), ["ReLU"]),
        (lambda net, y, x: F.relu(y + 1), []),
        (_residual, ["BatchNorm2d"]),
        (lambda net, y, x: F.batch_norm(y, None, None, training=True), []),
        (lambda net, y, x: F.relu(F.max_pool2d(y, 2)), []),
    ],
)
def test_only_what_directly_follows_is_found(after, expected):
    assert _followers(after) == expected


def test_the_settings_are_kept():
    net = Net(lambda net, y, x: F.hardtanh(net.norm(y), -0.5, max_val=0.7, inplace=True))
    (seen,) = watch_calls(net, {"conv": net.conv}, torch.randn(1, 3, 6, 6))["conv"]
    norm, activation = (one.build() for one in seen.followers)
    assert (norm.num_features, norm.affine, norm.training) == (4, True, False)
    assert (activation.min_val, activation.max_val, activation.inplace) == (-0.5, 0.7, True)


def test_each_call_is_told_apart_and_nothing_is_left_behind():
    net = Net(lambda net, y, x: (F.relu(y), net.conv(x[..., ::2, ::2]))).train()
    x = torch.randn(1, 3, 8, 8).contiguous(memory_format=torch.channels_last)
    first, second = watch_calls(net, {"conv": net.conv}, x)["conv"]
    assert (first.shape, first.channels_last, len(first.followers)) == ((1, 3, 8, 8), True, 1)
    assert (second.shape, len(second.followers)) == ((1, 3, 4, 4), 0)
    assert net.training
    assert not net.conv._forward_hooks
