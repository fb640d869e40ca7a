from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import corank
from corank import Headroom, headroom
from corank.benchmarks import table_runners, timing
from corank.benchmarks.chain_onnx import write_chain
from corank.benchmarks.onnx_layers import read_layers
from corank.benchmarks.table_units import find_units, layer_spec
from corank.layers import filter_layers

EXAMPLE = torch.randn(2, 8, 8, 8)


def make_net():
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(8, 32, 3, padding=1, bias=False),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.Conv2d(32, 32, (1, 3), padding=(0, 1), groups=32),
        nn.ReLU(),
        nn.ConvTranspose2d(32, 16, 2, stride=2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(16, 10),
    ).eval()
    nn.init.uniform_(net[1].running_mean)
    return net


@pytest.fixture
def pays(monkeypatch):
    """Take 1 ms for a dense layer, 10 ms for the whole network, and a fixed share of dense for a split."""

    def set_share(share, whole=10.0):
        def measure(runners, rounds, **_):
            first = next(iter(runners))  # the whole network with dense layers, or a dense layer with splits
            others = 1.0 if first == "whole" else share
            each = {"whole": whole, "dense": 1.0}
            return {name: np.full(rounds, each.get(name, others) * 1e-3) for name in runners}

        monkeypatch.setattr(timing, "time_interleaved", measure)
        monkeypatch.setattr(table_runners, "edge_share", lambda *_: 0.0)

    return set_share


def test_the_whole_network_by_amdahl(pays):
    pays(0.5)
    found = headroom(make_net(), EXAMPLE, progress=False)
    gains = [one for one in found.layers if one.method is not None]
    assert [one.layer for one in gains] == ["0", "5", "8"]
    assert all(one.share == pytest.approx(0.1) and one.best == pytest.approx(2) for one in gains)
    assert found.speedups["0.25"] == found.best == pytest.approx(1 / (1 - 3 * 0.05))
    assert found.bound == pytest.approx(1 / 0.7)
    assert found.worth_it
    assert found.verdict.startswith("worth it: 1.18")
    assert Headroom.from_json(found.to_json()) == found


def test_the_weights_are_those_of_the_fastest_splits(pays):
    pays(0.5)
    net = make_net()
    found = headroom(net, EXAMPLE, progress=False)
    gains = {one.layer: one for one in found.layers if one.method is not None}
    dense = best = sum(
        tensor.numel() * tensor.element_size() for tensor in (*net.parameters(), *net.buffers())
    )
    for name, one in gains.items():
        made = corank.plan(net, corank.Ranks({name: one.rank}, method=one.method), example=EXAMPLE)
        small = corank.decompose(net, made)
        best -= 4 * (sum(map(torch.numel, net.parameters())) - sum(map(torch.numel, small.parameters())))
    assert found.weight_bytes == (dense, best)
    assert best < dense
    pays(1.5)
    assert headroom(net, EXAMPLE, progress=False).weight_bytes == (dense, dense)


def test_what_does_not_gain_stays_dense_and_is_not_worth_it(pays):
    pays(1.5)
    found = headroom(make_net(), EXAMPLE, progress=False)
    assert found.best == found.speedups["0.25"] == 1
    assert not found.worth_it
    assert found.verdict.startswith("do not bother: 1.00")
    assert found.layers[0].speedups["0.25"] < 1


def test_every_layer_that_is_left_alone_has_a_reason(pays):
    pays(0.5)
    said = headroom(make_net(), EXAMPLE, progress=False, exclude=["8"]).skipped
    assert said == {
        "8": "excluded",
        "3": "no rank of any split saves multiply-accumulates",
    }
    text = str(headroom(make_net(), EXAMPLE, progress=False))
    assert "left alone: 3: no rank" in text
    assert "whole network" in text


def test_layers_that_take_longer_than_the_whole_are_scaled_to_it(pays):
    pays(0.5, whole=2.0)
    found = headroom(make_net(), EXAMPLE, progress=False)
    assert sum(one.share for one in found.layers) == pytest.approx(1)
    assert any("2.00 times as long as the whole network" in note for note in found.notes)


def test_a_file_gives_the_same_layers_as_its_network(tmp_path, monkeypatch, pays):
    pytest.importorskip("onnxscript", reason="files for ONNX Runtime come with the extra `onnx`")
    pays(0.5)
    net = make_net()
    corank.export(net, EXAMPLE, tmp_path / "net.onnx", dynamic_batch=False)
    read = read_layers(tmp_path / "net.onnx")
    layers, _ = filter_layers(net)
    ours = find_units(net, layers, EXAMPLE)[0].values()
    first, *rest = ours  # the exporter folds the batch norm into the first, which gives it a bias
    specs = [{**layer_spec(first.layer), "bias": True}, *(layer_spec(unit.layer) for unit in rest)]
    assert [layer_spec(unit.layer) for unit in read.units.values()] == specs
    assert [unit.shape for unit in read.units.values()] == [unit.shape for unit in ours]
    kinds = [[one.kind for one in unit.followers] for unit in read.units.values()]
    assert kinds == [["ReLU"], ["ReLU"], [], []]
    found = headroom(tmp_path / "net.onnx", progress=False)
    assert (found.backend, found.batch, len(found.layers)) == ("onnxruntime", 2, 4)
    assert found.best == pytest.approx(1 / (1 - 3 * 0.05))
    assert headroom(tmp_path / "net.onnx", precision="int8", progress=False).precision == "int8"


def test_a_batch_norm_and_a_bias_of_their_own_are_read_from_a_file(tmp_path):
    pytest.importorskip("onnx", reason="files come with the extra `onnx`")
    conv = nn.Sequential(nn.Conv2d(2, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU6()).eval()
    (tmp_path / "a.onnx").write_bytes(write_chain(conv, (1, 2, 5, 5)))
    (unit,) = read_layers(tmp_path / "a.onnx").units.values()
    assert [one.kind for one in unit.followers] == ["BatchNorm2d", "ReLU6"]
    (tmp_path / "b.onnx").write_bytes(write_chain(nn.Sequential(nn.Linear(4, 6), nn.Tanh()), (2, 3, 4)))
    (unit,) = read_layers(tmp_path / "b.onnx").units.values()
    assert (repr(unit.layer), unit.shape) == (repr(nn.Linear(4, 6)), (2, 3, 4))
    assert [one.kind for one in unit.followers] == ["Tanh"]


def test_a_file_without_a_batch_size_needs_one(tmp_path, pays):
    pytest.importorskip("onnxscript", reason="files for ONNX Runtime come with the extra `onnx`")
    pays(0.5)
    corank.export(make_net(), EXAMPLE, tmp_path / "net.onnx")
    with pytest.raises(corank.FileError, match=r"the shape of input input is open \(batch×8×8×8\)"):
        headroom(tmp_path / "net.onnx", progress=False)
    found = headroom(tmp_path / "net.onnx", torch.zeros(4, 8, 8, 8), progress=False)
    assert found.batch == 4
    with pytest.raises(corank.FileError, match="input is batch×8×8×8, got"):
        headroom(tmp_path / "net.onnx", torch.zeros(4, 9, 8, 8), progress=False)


def test_what_cannot_be_done_is_said(tmp_path):
    (tmp_path / "bad.onnx").write_text("no")
    with pytest.raises(corank.FileError, match="is not an ONNX file"):
        headroom(tmp_path / "bad.onnx")
    with pytest.raises(corank.CorankError, match="a network needs an example"):
        headroom(make_net())
    with pytest.raises(corank.CorankError, match="a file runs in onnxruntime or openvino, got 'torch'"):
        headroom(tmp_path / "bad.onnx", backend="torch")
    with pytest.raises(corank.FileError, match="headroom: the text is not one"):
        Headroom.from_json("[]")
