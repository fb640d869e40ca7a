"""What the examples share: handwritten digits of 8×8, a small network, its cut, and its accuracy."""

from __future__ import annotations

import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

import corank

STRENGTH = 0.1  # of the force; corank.tune finds a better one


def make_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 48, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(48, 64, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(64, 64, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(256, 10),
    )


def make_data() -> tuple[TensorDataset, TensorDataset]:
    """Return 1,437 digits to train on and 360 to judge on."""
    data = load_digits()
    images, labels = torch.from_numpy(data.images).float()[:, None] / 16, torch.from_numpy(data.target).long()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    train, final = order.split([1437, 360])
    return TensorDataset(images[train], labels[train]), TensorDataset(images[final], labels[final])


def batches(data: TensorDataset, size: int = 64) -> DataLoader[tuple[Tensor, ...]]:
    return DataLoader(data, size, shuffle=True, generator=torch.Generator().manual_seed(0))


def cut(model: nn.Module, data: TensorDataset) -> nn.Module:
    """Halve the multiply-accumulates: a copy of stock modules, which the same trainer trains on."""
    seen = list(batches(data))[:8]
    stats = corank.calibrate(model, seen)
    plan = corank.plan(model, corank.Budget(macs=0.5), example=seen[0][0], stats=stats)
    return corank.decompose(model, plan, stats)


@torch.no_grad()
def accuracy(model: nn.Module, data: TensorDataset) -> float:
    images, labels = data.tensors
    return (model.eval()(images).argmax(1) == labels).float().mean().item()


def report(dense: nn.Module, small: nn.Module, final: TensorDataset) -> float:
    """Print the accuracy and the parameters of both networks."""
    for name, model in {"dense": dense, "small": small}.items():
        size = sum(p.numel() for p in model.parameters())
        print(f"{name}: accuracy {accuracy(model, final):.1%}, {size} parameters")
    return accuracy(small, final)
