from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from corank.benchmarks.backends import BACKENDS, find_backend
from corank.errors import CorankError, ExtraError
from corank.inputs import call


class Keywords(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x, scale):
        return self.norm(self.conv(x)) * scale[:, None, None, None]


def as_array(output) -> np.ndarray:
    output = output[0] if isinstance(output, list) else output
    return output if isinstance(output, np.ndarray) else output.numpy()


NO_CUDA = pytest.mark.skipif(not torch.cuda.is_available(), reason="torch sees no CUDA device")
MARKS = {"torch_compile": pytest.mark.slow, "torch_cuda": NO_CUDA}


@pytest.mark.parametrize("backend", [pytest.param(name, marks=MARKS.get(name, ())) for name in BACKENDS])
def test_every_engine_computes_what_torch_does(tmp_path, backend):
    torch.manual_seed(0)
    model = Keywords().eval()
    model.norm.running_var.uniform_(0.5, 2)
    example = {"x": torch.randn(2, 3, 8, 8), "scale": torch.rand(2)}
    runner = find_backend(backend)(model, example, 1, tmp_path)
    with torch.no_grad():
        wanted = call(model, example).numpy()
    for _ in range(2):
        assert np.abs(as_array(runner.run()) - wanted).max() < 1e-5 * np.abs(wanted).max()
    assert all(runner.versions.values())
    assert not runner.notes or backend == "torch_cuda"  # which names the device
    peak = runner.peak_memory()
    assert peak is None or peak >= 0
    assert model.conv.weight.is_contiguous()  # channels-last works on a copy


def test_an_unknown_engine_is_one_clear_error():
    with pytest.raises(CorankError, match="allowed are torch, .*openvino; got 'tensorrt'"):
        find_backend("tensorrt")


@pytest.mark.parametrize(("backend", "extra"), [("onnxruntime", "onnx"), ("openvino", "openvino")])
def test_a_missing_engine_names_its_extra(tmp_path, monkeypatch, backend, extra):
    monkeypatch.setitem(sys.modules, backend, None)
    with pytest.raises(ExtraError, match=rf"pip install 'corank\[{extra}\]'"):
        find_backend(backend)(nn.Linear(2, 2), torch.ones(1, 2), 1, tmp_path)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_missing_device_is_one_clear_error(tmp_path):
    with pytest.raises(CorankError, match="sees no CUDA device here. Choose another backend"):
        find_backend("torch_cuda")(nn.Linear(2, 2), torch.ones(1, 2), 1, tmp_path)


def test_channels_last_takes_maps_of_two_and_of_three_dimensions(tmp_path):
    class Both(nn.Module):
        def __init__(self):
            super().__init__()
            self.flat, self.deep = nn.Conv2d(2, 4, 3), nn.Conv3d(2, 4, 3)

        def forward(self, image, volume):
            return self.flat(image).sum() + self.deep(volume).sum()

    model, example = Both(), (torch.randn(1, 2, 6, 6), torch.randn(1, 2, 6, 6, 6))
    runner = find_backend("torch_channels_last")(model, example, 1, tmp_path)
    assert torch.allclose(runner.run(), model(*example), rtol=1e-4)
    assert not runner.notes
    assert model.deep.weight.is_contiguous()


def test_channels_last_takes_a_weight_that_is_computed(tmp_path):
    # pruning leaves a weight with a graph, which deepcopy refuses
    model = nn.Sequential(prune.random_unstructured(nn.Conv2d(2, 4, 3), "weight", 0.5))
    runner = find_backend("torch_channels_last")(model.eval(), torch.ones(1, 2, 6, 6), 1, tmp_path)
    assert torch.allclose(runner.run(), model(torch.ones(1, 2, 6, 6)), rtol=1e-4)


def test_channels_last_says_when_it_changes_nothing(tmp_path):
    runner = find_backend("torch_channels_last")(nn.Linear(2, 2), torch.ones(1, 2), 1, tmp_path)
    assert "changes nothing" in runner.notes[0]


@pytest.mark.slow
def test_the_twelfth_network_is_compiled_too(tmp_path):
    """Torch runs the ninth forward of one code object uncompiled, unless something is done about it."""
    from torch._dynamo.utils import counters

    for width in range(2, 14):
        model = nn.Sequential(nn.Linear(2, width), nn.ReLU())
        before = counters["stats"]["unique_graphs"]
        runner = find_backend("torch_compile")(model, torch.ones(1, 2), 1, tmp_path)
        assert counters["stats"]["unique_graphs"] == before + 1
        assert torch.allclose(runner.run(), model(torch.ones(1, 2)))
