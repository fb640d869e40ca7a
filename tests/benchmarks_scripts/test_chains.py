"""A chain written to ONNX directly computes what torch computes, in both engines that read it."""

from __future__ import annotations

import pytest
import torch
from benchmarks.chains import against, prepare, random_chain, time_chains, write_onnx
from torch import nn

from corank.methods import METHODS


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_an_engine_computes_what_torch_does(engine, tmp_path):
    pytest.importorskip("onnx")
    pytest.importorskip(engine)
    layer = nn.Conv2d(4, 6, (3, 5), stride=(2, 1), padding=(1, 2), groups=2)
    chain = random_chain(METHODS["spatial"].structure(layer, 2)).eval()
    x = torch.randn(2, 4, 9, 9)
    got = prepare(engine, chain, x, 1, tmp_path)()[0]
    with torch.no_grad():
        assert torch.allclose(torch.tensor(got), chain(x), atol=1e-5)


def test_another_layer_is_refused(tmp_path):
    pytest.importorskip("onnx")
    with pytest.raises(TypeError, match="Conv2d and ReLU"):
        write_onnx(nn.Sequential(nn.Tanh()), torch.zeros(1), tmp_path / "x.onnx")


def test_chains_may_have_inputs_of_their_own():
    chains = {"wide": nn.Sequential(nn.Conv2d(8, 8, 3)), "narrow": nn.Sequential(nn.Conv2d(2, 2, 3))}
    inputs = {"wide": torch.zeros(1, 8, 9, 9), "narrow": torch.zeros(1, 2, 9, 9)}
    times = time_chains("torch", chains, inputs, 1, rounds=2, min_time=1e-4)
    assert [len(one) for one in times.values()] == [2, 2]
    assert against(times["wide"], times["wide"])["speedup"] == 1.0
