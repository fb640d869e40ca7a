from __future__ import annotations

import torch
from torch import nn

from corank.decomposition import decompose
from corank.footprint import dense_work, measure_footprint, structure_work
from corank.methods import METHODS
from corank.planning import plan
from corank.probing import Call, observe
from corank.rules import Ranks
from corank.testing import networks

IMAGE = torch.randn(2, 3, 8, 8)


def _peak(model):
    layers = {name: one for name, one in model.named_modules() if isinstance(one, nn.Conv2d | nn.Linear)}
    calls = {name: use.calls for name, use in observe(model, layers, IMAGE).items()}
    work = {name: dense_work(calls[name], 4) for name in layers}
    return measure_footprint(model, layers, IMAGE).peak(work)


def test_a_chain_by_hand():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Conv2d(3, 16, 1, bias=False)
            self.second = nn.Conv2d(16, 4, 1, bias=False)

        def forward(self, x):
            return self.second(torch.relu(self.first(x)))

    model = Net()
    found = measure_footprint(model, {"first": model.first, "second": model.second}, IMAGE)
    pixels = 2 * 8 * 8 * 4
    assert found.weights == 4 * (3 * 16 + 16 * 4)
    # the caller holds the input throughout; relu's input is gone when the second layer begins
    assert found.beside == {"first": 3 * pixels, "second": (3 + 16) * pixels}
    assert found.elsewhere == (3 + 16 + 16) * pixels
    assert found.peak({"first": 16 * pixels, "second": 4 * pixels}) == found.weights + found.elsewhere


def test_a_skip_connection_stays_alive():
    model = networks.Residual(24).eval()
    found = measure_footprint(model, {"head": model.head, "conv2": model.body.conv2}, IMAGE)
    assert found.beside["conv2"] >= 2 * 24 * 2 * 8 * 8 * 4  # its input and the shortcut


def test_predicted_work_of_a_split_is_what_the_split_network_holds():
    model = networks.Residual(24).eval()
    layer = model.body.conv2
    made = plan(model, Ranks({"body.conv2": 20}), example=IMAGE)
    small = decompose(model, made)
    calls = observe(model, {"body.conv2": layer}, IMAGE)["body.conv2"].calls
    work = structure_work(METHODS["filter_basis"].structure(layer, 20), calls)
    dense = measure_footprint(model, {"body.conv2": layer}, IMAGE)
    weights = sum(one.numel() * one.element_size() for one in (*small.parameters(), *small.buffers()))
    assert dense.peak({"body.conv2": work}, weights) == _peak(small)


def test_structure_work_takes_the_worst_stage():
    chain = nn.Sequential(nn.Linear(8, 100, device="meta"), nn.Linear(100, 4, device="meta"))
    assert structure_work(chain, (Call((1, 8), (1, 4)), Call((5, 8), (5, 4)))) == 5 * (100 + 4) * 4


def test_the_network_is_left_alone():
    model = networks.Residual(24).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    measure_footprint(model, {"head": model.head}, IMAGE)
    assert model.training
    assert not model.head._forward_hooks
    assert not model.head._forward_pre_hooks
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
