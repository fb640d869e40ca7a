"""Masks, schedules and the lasso against independent oracles."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from corank.layers import from_filters, refusal, to_filters
from corank.sparsity import GroupLasso, SemiStructured, Unstructured, group_lasso
from corank.sparsity.lasso import penalty, shrink
from corank.sparsity.masks import input_channels, magnitude_masks, semi_structured_mask
from corank.testing import LAYERS


@settings(max_examples=30, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 40), min_size=1, max_size=4),
    share=st.floats(0, 0.99),
    scope=st.sampled_from(["global", "layer"]),
)
def test_a_mask_drops_the_smallest_and_as_many_as_asked(sizes, share, scope):
    weights = [torch.randn(size) for size in sizes]
    masks = magnitude_masks(weights, share, scope)
    whole = (
        list(zip(weights, masks, strict=True))
        if scope == "layer"
        else [(torch.cat(weights), torch.cat(masks))]
    )
    for weight, mask in whole:
        assert int((~mask).sum()) == round(share * weight.numel())
        kept, gone = weight[mask].abs(), weight[~mask].abs()
        assert not gone.numel() or not kept.numel() or gone.max() <= kept.min()


def _takes_fours(name):
    layer, _ = LAYERS[name].build()
    return refusal(layer) is None and input_channels(layer) % 4 == 0


@pytest.mark.parametrize("name", list(filter(_takes_fours, LAYERS)))
def test_two_of_every_four_input_channels_are_zero_at_every_place(name):
    layer, _ = LAYERS[name].build()
    mask = semi_structured_mask(layer)
    assert mask.shape == layer.weight.shape
    transposed = isinstance(layer, nn.ConvTranspose1d | nn.ConvTranspose2d | nn.ConvTranspose3d)
    blocks = mask.transpose(0, 1) if transposed else mask  # (outputs, inputs, *kernel)
    size = layer.weight.detach().abs().transpose(0, 1) if transposed else layer.weight.detach().abs()
    for first in range(0, blocks.shape[1], 4):
        kept, here = blocks[:, first : first + 4], size[:, first : first + 4]
        assert bool((kept.sum(1) == 2).all())
        least_kept = here.masked_fill(~kept, torch.inf).amin(1)
        assert bool((here.masked_fill(kept, 0.0).amax(1) <= least_kept).all())


def test_the_gradual_share_rises_from_first_to_last_and_stays():
    spec = Unstructured(0.9, initial=0.2, start=5, steps=20, every=3)
    shares = [spec.share(step) for step in range(40)]
    assert shares[:5] == [0.0] * 5
    assert shares[5] == pytest.approx(0.2)
    assert shares[24:] == [0.9] * 16  # the 20th step of the rise ends it
    assert shares == sorted(shares)
    assert [step for step in range(40) if spec.chooses(step)] == [5, 8, 11, 14, 17, 20, 23, 24]


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize(("rows", "columns"), [(0.3, 0.0), (0.0, 0.7), (0.3, 0.7)])
def test_the_gradient_of_the_penalty_is_that_of_its_formula(name, rows, columns):
    layer, _ = LAYERS[name].build(torch.float64)
    layer.weight.requires_grad_(True)
    group_lasso(layer, GroupLasso(rows=rows, columns=columns)).backward()
    w_GND = to_filters(layer.weight.detach(), layer)
    by_hand = rows * w_GND / w_GND.norm(dim=2, keepdim=True) + columns * w_GND / w_GND.norm(
        dim=1, keepdim=True
    )
    torch.testing.assert_close(layer.weight.grad, from_filters(by_hand, layer))


@pytest.mark.parametrize(("rows", "columns"), [(1.6, 0.0), (0.0, 2.2)])
def test_a_step_is_the_minimum_of_distance_and_penalty(rows, columns):
    w_GND = torch.randn(4, 5, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    moved = shrink(w_GND, rows, columns).requires_grad_()
    penalty(moved, rows, columns).backward()
    dim = 2 if rows else 1
    alive = moved.detach().norm(dim=dim, keepdim=True) > 0
    assert 0 < int(alive.sum()) < alive.numel()  # some of both
    torch.testing.assert_close((w_GND - moved.detach()) * alive, moved.grad * alive)
    assert bool((w_GND.norm(dim=dim, keepdim=True)[~alive] <= rows + columns).all())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Unstructured(80), r"sparsity is a fraction in \[0, 1\), got 80. Use 0.8 for 80%"),
        (lambda: Unstructured(0.5, scope="all"), "scope is 'global' or 'layer', got 'all'"),
        (lambda: Unstructured(0.5, initial=0.6), "initial is at most sparsity"),
        (lambda: Unstructured(0.5, every=0), "every is a whole number from 1"),
        (lambda: SemiStructured(zeros=4), "zeros is a whole number from 0 to 3, got 4"),
        (lambda: GroupLasso(), "give rows, columns or both"),
        (lambda: GroupLasso(rows=-1), "rows is a finite number ≥ 0, got -1"),
    ],
)
def test_a_spec_that_makes_no_sense_is_refused(make, message):
    from corank import CorankError

    with pytest.raises(CorankError, match=message):
        make()
