"""The float32 shortcut of the ℓ2 force: within 1e-5 of the naive loop, or not taken."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from corank.l2_in_place import add_l2_
from corank.layers import from_filters, to_filters
from corank.rows_in_memory import rows_in_memory

LAYERS = {
    "conv": nn.Conv2d(16, 64, 3),
    "odd": nn.Conv2d(3, 50, 5),
    "grouped": nn.Conv2d(8, 48, 3, groups=2),
    "blocks": nn.Conv2d(8, 256, 1, groups=2),
    "conv1d": nn.Conv1d(4, 30, 3),
    "linear": nn.Linear(20, 128),
}


@torch.no_grad()
def add(target: torch.Tensor, weight: torch.Tensor, layer: nn.Module, factor: float) -> bool:
    rows = rows_in_memory(target, weight, layer, factor)
    return rows is not None and add_l2_([rows]) == [True]


def exact_force(layer: nn.Module) -> torch.Tensor:
    w_GND = to_filters(layer.weight.detach().double(), layer)
    u_GND = w_GND / w_GND.norm(dim=-1, keepdim=True)
    pairs_GNND = u_GND[:, None] - u_GND[:, :, None]  # u_j − u_i
    tangent = pairs_GNND - (pairs_GNND * u_GND[:, :, None]).sum(-1, keepdim=True) * u_GND[:, :, None]
    return from_filters(tangent.sum(2) * w_GND.norm(dim=-1, keepdim=True), layer)


def error(added: torch.Tensor, layer: nn.Module, factor: float) -> float:
    expected = factor * exact_force(layer)
    return float((added.double() - expected).norm() / expected.norm())


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_it_adds_the_force_and_nothing_else(name: str, memory_format: torch.memory_format) -> None:
    torch.manual_seed(0)
    layer = LAYERS[name]
    layer.reset_parameters()
    if memory_format is torch.channels_last:
        layer = layer.to(memory_format=memory_format)
    gradient = torch.randn_like(layer.weight)
    before = gradient.clone()
    assert add(gradient, layer.weight, layer, -0.5)
    assert error(gradient - before, layer, -0.5) <= 1e-5
    weight = layer.weight.detach().clone()
    expected = 1e-2 * exact_force(layer)
    assert add(layer.weight, layer.weight, layer, 1e-2)
    torch.testing.assert_close(layer.weight.double(), weight + expected, rtol=1e-6, atol=1e-6)
    layer.to(memory_format=torch.contiguous_format)


@pytest.mark.parametrize("gap", [1.0, 0.3, 0.1, 0.03, 0.01, 1e-4])
def test_near_filters_are_exact_or_left_to_float64(gap: float) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(512, 256, bias=False)
    with torch.no_grad():
        direction = nn.functional.normalize(torch.randn(1, 512), dim=1)
        layer.weight.copy_((direction + gap * torch.randn(256, 512) / 32) * (0.5 + torch.rand(256, 1)))
    gradient = torch.zeros_like(layer.weight)
    done = add(gradient, layer.weight, layer, 1.0)
    assert done == (gap >= 0.3)
    assert error(gradient, layer, 1.0) <= 1e-5 if done else not gradient.any()


def refused() -> dict[str, tuple[torch.Tensor, nn.Module]]:
    torch.manual_seed(0)
    balanced = nn.Linear(8, 4, bias=False)
    zero, half, transposed = nn.Linear(8, 6), nn.Linear(8, 6).bfloat16(), nn.ConvTranspose2d(4, 8, 3)
    crossed = nn.Conv2d(4, 8, 3)
    with torch.no_grad():
        balanced.weight[2:] = -balanced.weight[:2] * 3
        zero.weight[1] = 0
    cases = {"balanced": balanced, "zero": zero, "half": half, "transposed": transposed}
    gradients = {name: (torch.zeros_like(layer.weight), layer) for name, layer in cases.items()}
    other_order = torch.zeros(8, 4, 3, 3).to(memory_format=torch.channels_last)
    return {**gradients, "crossed": (other_order, crossed)}


@pytest.mark.parametrize("name", ["balanced", "zero", "half", "transposed", "crossed"])
def test_what_it_does_not_take_stays_as_it_was(name: str) -> None:
    gradient, layer = refused()[name]
    assert not add(gradient, layer.weight, layer, 1.0)
    assert not gradient.any()


@pytest.mark.parametrize("moves", [False, True])
@torch.no_grad()
def test_a_batch_is_each_layer_with_its_own_strength(moves: bool) -> None:
    """One of them is left to float64, for its filters have met; the others are done all the same."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(8, 16, 3, groups=2) for _ in range(4)]
    with torch.no_grad():
        layers[1].weight.copy_(layers[1].weight[:1] + 1e-3 * layers[1].weight)
    layers[2].to(memory_format=torch.channels_last)
    factors = [0.5, 0.1, -0.3, 0.01]
    before = [layer.weight.detach().clone() for layer in layers]
    expected = [exact_force(layer) for layer in layers]
    gradients = [layer.weight if moves else torch.zeros_like(layer.weight) for layer in layers]
    rows = [
        rows_in_memory(gradient, layer.weight, layer, factor)
        for gradient, layer, factor in zip(gradients, layers, factors, strict=True)
    ]
    assert add_l2_(rows) == [True, False, True, True]
    for index, factor in enumerate(factors):
        start = before[index] if moves else torch.zeros_like(before[index])
        added = (gradients[index].detach() - start).double()
        if index == 1:
            assert not added.any()
        else:
            wanted = factor * expected[index]
            tolerance = 1e-4 if moves else 1e-5  # the sum with the weight is rounded
            assert float((added - wanted).norm() / wanted.norm()) <= tolerance
