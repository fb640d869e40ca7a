"""When a force is added in place, and when it is left to float64."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import corank
from corank import forcing
from corank.in_place import IN_PLACE, add_in_place_, in_place
from corank.rows_in_memory import rows_in_memory


@pytest.mark.parametrize("kind", IN_PLACE)
def test_short_products_are_not_used(kind: str) -> None:
    """Autocast and `set_float32_matmul_precision("medium")` turn a float32 product into a bfloat16 one."""
    assert in_place(kind)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert not in_place(kind)
    before = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("medium")
        assert not in_place(kind)
    finally:
        torch.set_float32_matmul_precision(before)


def test_a_step_under_autocast_is_left_to_float64(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forcing, "add_in_place_", lambda *_: pytest.fail("added in place"))
    model = nn.Sequential(nn.Conv2d(3, 8, 3))
    model[0].weight.grad = torch.zeros_like(model[0].weight)
    force = corank.ForceRegularizer(model, 0.1, track_every=10)
    for _ in range(2):
        with torch.autocast("cpu", dtype=torch.bfloat16):
            force.add_grad_()
    assert model[0].weight.grad.any()


def test_forces_between_pairs_need_a_tensor_of_their_own() -> None:
    assert not any(in_place(kind) for kind in ("l1", "linear", "gravity", "axis"))


@torch.no_grad()
def test_it_says_of_each_layer_whether_it_was_done() -> None:
    torch.manual_seed(0)
    layers = [
        nn.Linear(9, 6),
        nn.Linear(20, 12),
        nn.Linear(9, 6),
        nn.Linear(9, 6).bfloat16(),
        nn.Linear(9, 6),
    ]
    layers[2].weight[0] = 0
    gradients = [torch.zeros_like(layer.weight) for layer in layers]
    rows = [
        rows_in_memory(gradient, layer.weight, layer, 1.0)
        for gradient, layer in zip(gradients, layers, strict=True)
    ]
    done = add_in_place_("l2", rows)
    assert done == [True, True, False, False, True]
    assert [bool(gradient.any()) for gradient in gradients] == done
