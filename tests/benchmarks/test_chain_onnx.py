from __future__ import annotations

import pytest
import torch
from torch import nn

from corank.benchmarks.chain_onnx import CannotWriteError, write_chain
from corank.benchmarks.table_runners import save_chain
from corank.engines import OPENERS
from corank.exporting import relative_error
from corank.testing.layers import LAYERS

pytest.importorskip("onnx", reason="files for ONNX Runtime come with the extra `onnx`")
pytest.importorskip("onnxruntime", reason="running them comes with the extra `onnx`")

ACTIVATIONS = [
    nn.ReLU(),
    nn.ReLU6(),
    nn.Hardtanh(-0.5, 0.7),
    nn.SiLU(),
    nn.GELU(),
    nn.GELU(approximate="tanh"),
    nn.Hardswish(),
    nn.Hardsigmoid(),
    nn.Mish(),
    nn.LeakyReLU(0.2),
    nn.ELU(0.7),
    nn.Sigmoid(),
    nn.Tanh(),
    nn.Identity(),
]


def _run(data, x, tmp_path, engine="onnxruntime"):
    path = tmp_path / "chain.onnx"
    path.write_bytes(data)
    return torch.from_numpy(OPENERS[engine](path, 1).bind([x.contiguous().numpy()])()[0].copy())


@pytest.mark.filterwarnings("ignore:Using padding='same' with even")
@pytest.mark.parametrize("case", LAYERS.values(), ids=LAYERS)
def test_every_layer_computes_what_torch_computes(case, tmp_path):
    layer, x = case.build()
    chain = nn.Sequential(layer)
    if getattr(layer, "padding_mode", "zeros") != "zeros":
        with pytest.raises(CannotWriteError, match="padding mode"):
            write_chain(chain, tuple(x.shape))
        return
    engine = "onnxruntime"
    if any(
        p >= s
        for p, s in zip(getattr(layer, "output_padding", ()), getattr(layer, "stride", ()), strict=True)
    ):
        engine = "openvino"  # ONNX Runtime refuses an output padding that is not below the stride
        pytest.importorskip("openvino", reason="OpenVINO comes with the extra `openvino`")
    with torch.no_grad():
        expected = chain(x)
    assert relative_error(expected, _run(write_chain(chain, tuple(x.shape)), x, tmp_path, engine)) < 1e-5


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=lambda one: repr(one))
def test_a_chain_with_batch_norm_and_activation(activation, tmp_path):
    torch.manual_seed(0)
    chain = nn.Sequential(
        nn.Conv2d(3, 4, 3, bias=False), nn.Conv2d(4, 5, 1), nn.BatchNorm2d(5), activation
    ).eval()
    nn.init.uniform_(chain[2].running_mean)
    nn.init.uniform_(chain[2].running_var, 0.5, 2.0)
    nn.init.uniform_(chain[2].weight, 0.5, 2.0)
    x = torch.randn(2, 3, 6, 6)
    with torch.no_grad():
        expected = chain(x)
    assert relative_error(expected, _run(write_chain(chain, tuple(x.shape)), x, tmp_path)) < 1e-5


def test_openvino_reads_the_same_file(tmp_path):
    pytest.importorskip("openvino", reason="OpenVINO comes with the extra `openvino`")
    torch.manual_seed(0)
    chain = nn.Sequential(
        nn.ConvTranspose2d(3, 4, 3, stride=2, output_padding=1), nn.BatchNorm2d(4, affine=False), nn.SiLU()
    ).eval()
    x = torch.randn(2, 3, 5, 5)
    with torch.no_grad():
        expected = chain(x)
    got = _run(write_chain(chain, tuple(x.shape)), x, tmp_path, "openvino")
    assert relative_error(expected, got) < 1e-5


def test_what_cannot_be_written_directly_is_exported(tmp_path):
    pytest.importorskip("onnxscript", reason="torch's exporter comes with the extra `onnx`")
    chain = nn.Sequential(nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect"), nn.Softplus()).eval()
    x = torch.randn(1, 2, 5, 5)
    save_chain(chain, x, tmp_path / "chain.onnx")
    with torch.no_grad():
        expected = chain(x)
    assert relative_error(expected, _run((tmp_path / "chain.onnx").read_bytes(), x, tmp_path)) < 1e-5
