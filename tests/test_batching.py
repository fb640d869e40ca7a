"""Batches hold layers of one key, and no more weights than they may."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import corank
from corank import force_field, in_place
from corank.batching import batches, largest


@given(st.lists(st.integers(1, 9)), st.integers(0, 40))
def test_nothing_is_lost_and_no_batch_is_too_large(sizes: list[int], limit: int) -> None:
    items = [torch.zeros(size) for size in sizes]
    found = list(batches(items, len, lambda one: one, limit))
    assert sorted(id(one) for batch in found for one in batch) == sorted(map(id, items))
    for batch in found:
        assert len({len(one) for one in batch}) == 1
        assert len(batch) == 1 or sum(map(len, batch)) <= limit


def test_the_largest_of_none_is_empty() -> None:
    assert largest([]) == 0
    assert largest([torch.zeros(2, 3), torch.zeros(4)]) == 6


@pytest.mark.parametrize(("module", "kind", "share"), [(force_field, "l1", 0.5), (in_place, "l2", 1.0)])
def test_a_batch_of_a_network_is_within_its_largest_layer(
    monkeypatch: pytest.MonkeyPatch, module: object, kind: str, share: float
) -> None:
    """The copy of many small layers must not outgrow the one large layer, with which memory is compared."""
    sizes: list[list[int]] = []

    def watched(items, key, weight, limit):
        for batch in batches(items, key, weight, limit):
            sizes.append([weight(one).numel() for one in batch])
            yield batch

    monkeypatch.setattr(module, "batches", watched)
    model = nn.Sequential(*[nn.Conv2d(8, 8, 3) for _ in range(9)], nn.Conv2d(8, 40, 3))
    for layer in model:
        layer.weight.grad = torch.zeros_like(layer.weight)
    force = corank.ForceRegularizer(model, 0.1, kind=kind, track_every=10)
    force.add_grad_()
    sizes.clear()
    force.add_grad_()  # a step that is not recorded
    assert sorted(map(len, sizes))[-1] > 1
    assert max(sum(batch) for batch in sizes if len(batch) > 1) <= share * model[-1].weight.numel()
    assert sum(map(len, sizes)) == len(model)


def test_layers_of_one_batch_have_strengths_of_their_own() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(*[nn.Conv2d(8, 8, 3) for _ in range(3)], nn.Conv2d(8, 40, 3))
    twin = nn.Sequential(*[nn.Conv2d(8, 8, 3) for _ in range(3)], nn.Conv2d(8, 40, 3))
    twin.load_state_dict(model.state_dict())
    overrides = {"0": 0.5, "1": 0.1, "2": 0.25}
    for one in (model, twin):
        for layer in one:
            layer.weight.grad = torch.zeros_like(layer.weight)
    together = corank.ForceRegularizer(model, 0.2, overrides=overrides)
    for _ in range(2):  # the second is not recorded, and so done in place
        for layer in model:
            layer.weight.grad.zero_()
        together.add_grad_()
    for index, layer in enumerate(twin):
        strength = overrides.get(str(index), 0.2)
        corank.ForceRegularizer(twin, strength, include=[str(index)]).add_grad_()
        expected = layer.weight.grad
        assert (model[index].weight.grad - expected).norm() <= 1e-5 * expected.norm()
