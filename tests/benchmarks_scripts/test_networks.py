"""The benchmark networks have the published sizes."""

from __future__ import annotations

import pytest
import torch
from benchmarks.decaying import decay_, decay_layer_
from benchmarks.networks import NETWORKS, alexnet_features

from corank.layers import filter_matrix
from corank.spectra import filter_energies, rank_at

PARAMETERS = {
    "alexnet": 60_965_224,
    "vgg16": 138_357_544,
    "resnet18": 11_689_512,
    "resnet50": 25_557_032,
    "mobilenet_v2": 3_504_872,
}


@pytest.mark.parametrize("name", NETWORKS)
def test_has_the_published_number_of_parameters_and_a_thousand_classes(name):
    build, side = NETWORKS[name]
    with torch.device("meta"):
        network = build().eval()
        output = network(torch.empty(1, 3, side, side))
    assert sum(one.numel() for one in network.parameters()) == PARAMETERS[name]
    assert output.shape == (1, 1000)


def test_alexnet_has_the_maps_of_the_paper():
    shapes = {}
    with torch.device("meta"):
        x = torch.empty(1, 3, 227, 227)
        for name, layer in alexnet_features().named_children():
            x = layer(x)
            shapes[name] = tuple(x.shape[1:])
    assert [shapes[f"conv{number}"] for number in range(1, 6)] == [
        (96, 55, 55),
        (256, 27, 27),
        (384, 13, 13),
        (384, 13, 13),
        (256, 13, 13),
    ]
    assert shapes["pool5"] == (256, 6, 6)


def test_a_decaying_layer_keeps_its_size_and_needs_fewer_directions():
    layer = torch.nn.Conv2d(32, 64, 3)
    size = layer.weight.norm().item()
    flat = rank_at(filter_energies(filter_matrix(layer)), 0.95)
    decay_layer_(layer, share=0.25)
    assert layer.weight.norm().item() == pytest.approx(size, rel=1e-5)
    assert rank_at(filter_energies(filter_matrix(layer)), 0.95) < 0.35 * 64 < flat


def test_a_depthwise_layer_is_left_as_it_is():
    layer = torch.nn.Conv2d(8, 8, 3, groups=8)
    before = layer.weight.detach().clone()
    decay_(torch.nn.Sequential(layer))
    assert torch.equal(layer.weight, before)
