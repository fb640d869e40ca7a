"""The float32 shortcuts of the subspace and output forces: as exact as float32 weights are, or not taken."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor, nn

import corank
from corank.layers import from_filters, to_filters
from corank.rows_in_memory import Rows, rows_in_memory
from corank.subspace_in_place import add_output_, add_subspace_

LAYERS = {
    "conv": nn.Conv2d(16, 24, 3),
    "narrow": nn.Conv2d(3, 50, 3),
    "grouped": nn.Conv2d(8, 48, 3, groups=2),
    "1x1": nn.Conv2d(12, 40, 1),
    "conv1d": nn.Conv1d(4, 30, 3),
    "linear": nn.Linear(20, 128),
}
FORCES: dict[str, Callable[[Sequence[Rows]], list[bool]]] = {
    "subspace": add_subspace_,
    "output": add_output_,
}


@torch.no_grad()
def add(kind: str, target: Tensor, weight: Tensor, layer: nn.Module, factor: float, basis: Tensor) -> bool:
    rows = rows_in_memory(target, weight, layer, factor, basis)
    return rows is not None and FORCES[kind]([rows]) == [True]


def orthonormal(groups: int, rows: int, rank: int) -> Tensor:
    return torch.linalg.qr(torch.randn(groups, rows, rank, dtype=torch.float64)).Q.float()


def exact(kind: str, w_GND: Tensor, basis: Tensor) -> Tensor:
    """Project in float64, filter by filter, by the definition of each force."""
    w, b = w_GND.double(), basis.double()
    if kind == "output":
        return b @ b.mT @ w - w
    u = w / w.norm(dim=-1, keepdim=True)
    inside = u @ b @ b.mT
    return (inside - (inside * u).sum(-1, keepdim=True) * u) * w.norm(dim=-1, keepdim=True)


def share_of_norms(error_GND: Tensor, w_GND: Tensor, kind: str) -> float:
    """Return the largest error of a filter over its norm; of the output force, which mixes them, overall."""
    dim = None if kind == "output" else -1
    return float((error_GND.norm(dim=dim) / w_GND.double().norm(dim=dim)).max())


@pytest.mark.parametrize("kind", FORCES)
@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_it_adds_the_force_and_nothing_else(name: str, memory_format: torch.memory_format, kind: str) -> None:
    torch.manual_seed(0)
    layer = LAYERS[name].to(memory_format=torch.contiguous_format)
    layer.reset_parameters()
    if memory_format is torch.channels_last:
        layer = layer.to(memory_format=memory_format)
    w_GND = to_filters(layer.weight.detach(), layer).clone()
    basis = orthonormal(w_GND.shape[0], w_GND.shape[1 if kind == "output" else 2], 5)
    expected_GND = exact(kind, w_GND, basis)
    gradient = torch.zeros_like(layer.weight)
    assert add(kind, gradient, layer.weight, layer, -0.5, basis)
    added_GND = to_filters(gradient, layer).double()
    assert share_of_norms(added_GND / -0.5 - expected_GND, w_GND, kind) <= 1e-6
    assert float((added_GND / -0.5 - expected_GND).norm() / expected_GND.norm()) <= 1e-5
    assert add(kind, layer.weight, layer.weight, layer, 1e-2, basis)
    moved = from_filters(w_GND.double() + 1e-2 * expected_GND, layer)
    torch.testing.assert_close(layer.weight.detach().double(), moved, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("angle", [1.0, 1e-2, 1e-4, 0.0])
def test_close_to_the_subspace_it_is_as_exact_as_the_weights(angle: float) -> None:
    torch.manual_seed(0)
    layer, v_GDR = nn.Linear(200, 64, bias=False), orthonormal(1, 200, 20)
    with torch.no_grad():
        inside = torch.randn(64, 20) @ v_GDR[0].T
        layer.weight.copy_(inside + angle * torch.randn(64, 200))
    gradient = torch.zeros_like(layer.weight)
    assert add("subspace", gradient, layer.weight, layer, 1.0, v_GDR)
    w_GND = layer.weight.detach()[None]
    assert share_of_norms(gradient.double()[None] - exact("subspace", w_GND, v_GDR), w_GND, "") <= 1e-6


def refused() -> dict[str, tuple[Tensor, nn.Module]]:
    torch.manual_seed(0)
    tiny, zero, half = nn.Linear(8, 6), nn.Linear(8, 6), nn.Linear(8, 6).bfloat16()
    with torch.no_grad():
        tiny.weight[2] *= 1e-20
        zero.weight[1] = 0
    cases = {"tiny": tiny, "zero": zero, "half": half}
    return {name: (torch.zeros_like(layer.weight), layer) for name, layer in cases.items()}


@pytest.mark.parametrize("name", refused())
def test_what_float32_cannot_hold_is_left_alone(name: str) -> None:
    gradient, layer = refused()[name]
    assert not add("subspace", gradient, layer.weight, layer, 1.0, orthonormal(1, 8, 3).to(gradient.dtype))
    assert not gradient.any()


@pytest.mark.parametrize("moves", [False, True])
@pytest.mark.parametrize("kind", FORCES)
@torch.no_grad()
def test_a_batch_is_each_layer_with_its_own_strength_and_rank(kind: str, moves: bool) -> None:
    torch.manual_seed(0)
    layers = [nn.Conv2d(8, 12, 3, groups=2) for _ in range(4)]
    if kind == "subspace":  # one is left to float64
        with torch.no_grad():
            layers[1].weight[2] = 0
    layers[2].to(memory_format=torch.channels_last)
    before = [layer.weight.detach().clone() for layer in layers]
    factors, ranks = [0.5, 0.1, -0.3, 0.01], [3, 2, 5, 1]
    bases = [orthonormal(2, 6 if kind == "output" else 36, rank) for rank in ranks]
    targets = [layer.weight if moves else torch.zeros_like(layer.weight) for layer in layers]
    rows = [
        rows_in_memory(target, layer.weight, layer, factor, basis)
        for target, layer, factor, basis in zip(targets, layers, factors, bases, strict=True)
    ]
    done = [True, kind == "output", True, True]
    assert FORCES[kind](rows) == done
    for index, factor in enumerate(factors):
        start = before[index] if moves else torch.zeros_like(before[index])
        added_GND = to_filters(targets[index].detach() - start, layers[index]).double()
        w_GND = to_filters(before[index], layers[index])
        wanted_GND = factor * exact(kind, w_GND, bases[index]) if done[index] else torch.zeros_like(w_GND)
        assert float((added_GND - wanted_GND).norm()) <= 1e-6 * float(w_GND.norm())


@pytest.mark.parametrize("coupling", ["gradient", "decoupled"])
@pytest.mark.parametrize("kind", FORCES)
def test_a_training_with_it_is_the_training_without_it(kind: str, coupling: str) -> None:
    """`track_every=1` records each step, for which the force is computed apart, in float64."""
    weights = []
    for track_every in (1, 100):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 8, 3))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        force = corank.ForceRegularizer(
            model, 0.5, kind=kind, coupling=coupling, track_every=track_every, refresh=3
        )
        force.attach(optimizer)
        for _ in range(5):
            optimizer.zero_grad()
            model(torch.randn(2, 3, 8, 8)).square().mean().backward()
            optimizer.step()
        weights.append(model[2].weight.detach())
    torch.testing.assert_close(*weights, rtol=1e-4, atol=1e-6)
