"""The training that every trainer must reproduce: accumulate two batches, clip, force, momentum."""

from __future__ import annotations

import copy

import torch
from torch import nn

from corank.force import l2_force
from corank.sparsity import Sparsifier, Unstructured

STEPS, ACCUMULATE, CLIP, LR, STRENGTH = 4, 2, 0.05, 0.1, 0.5


def make_net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 3))


def make_data() -> list[tuple[torch.Tensor, torch.Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        (torch.randn(4, 6, generator=generator), torch.randint(0, 3, (4,), generator=generator))
        for _ in range(STEPS * ACCUMULATE)
    ]


def make_optimizer(model: nn.Module) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), lr=LR, momentum=0.9)


def train_by_hand(strength: float = STRENGTH) -> nn.Sequential:
    model = make_net()
    optimizer = make_optimizer(model)
    for i, (x, y) in enumerate(make_data()):
        (nn.functional.cross_entropy(model(x), y) / ACCUMULATE).backward()
        if i % ACCUMULATE == ACCUMULATE - 1:
            nn.utils.clip_grad_norm_(model.parameters(), CLIP)
            for layer in (model[0], model[2]):
                layer.weight.grad -= strength * l2_force(layer.weight.detach()) / layer.out_features
            optimizer.step()
            optimizer.zero_grad()
    return model


def assert_trained_alike(model: nn.Module) -> None:
    expected, plain = train_by_hand(), train_by_hand(0.0)
    for a, b in zip(model.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(a.detach().cpu(), b.detach(), rtol=1e-5, atol=1e-7)
    assert not torch.allclose(expected[0].weight, plain[0].weight, rtol=1e-3)


def hooks_of(optimizer: torch.optim.Optimizer) -> list[object]:
    return copy.copy([*optimizer._optimizer_step_pre_hooks, *optimizer._optimizer_step_post_hooks])


def make_sparsifier(model: nn.Module) -> Sparsifier:
    """Zeros that grow from the first step to the last, so that a resumed training must know its step."""
    return Sparsifier(model, Unstructured(0.5, steps=2 * STEPS))


def zeros_of(model: nn.Sequential) -> list[int]:
    return [int((model[i].weight == 0).sum()) for i in (0, 2)]
