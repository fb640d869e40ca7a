"""The report of what zeros buy."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import corank
from corank.benchmarks.results import BenchResult, Timing
from corank.benchmarks.zeros import Size, SparsityReport


def test_it_says_plainly_where_nothing_is_bought():
    rows = [("dense", 1.0, 1.0), ("zeros", 1.005, 1.015), ("channels", 1.5, 1.7), ("odd", 0.8, 0.9)]
    times = tuple(Timing(name, "torch", 1, 1, 1, (a + b) / 2, (a, b)) for name, a, b in rows)
    sizes = {name: Size(0.5, 4000, 2000) for name, *_ in rows}
    report = SparsityReport(sizes, BenchResult(times, "dense", 1, "float32", 1, 2, {}))
    assert report.verdicts() == [
        "zeros buys no time in torch: 1.01 (1.00 to 1.01)",
        "channels is faster in torch: 1.60 (1.50 to 1.70)",
        "odd is slower in torch: 0.85 (0.80 to 0.90)",
    ]
    assert all(line in str(report) for line in report.verdicts())


def test_zipped_bytes_are_those_of_the_weights_that_are_left():
    net = nn.Sequential(nn.Linear(100, 100), nn.Linear(100, 100))
    sparse = corank.sparsify(net, corank.Unstructured(0.9)).model
    zeros = corank.count_zeros(sparse)
    assert zeros.bytes == corank.count_zeros(net).bytes == 4 * 20200
    assert zeros.nonzero == 2000
    assert 4 * 2200 * 0.9 < zeros.compressed_bytes < 4 * 2200 + 20000 / 2  # what is left, and where it is
    assert "90.0% zeros in 2 layers" in str(zeros)


def test_a_packing_rate_is_for_openvino_alone(tmp_path):
    pytest.importorskip("openvino", reason="an optional engine")
    pytest.importorskip("onnxscript", reason="ONNX files come with the extra `onnx`")
    net, x = nn.Sequential(nn.Linear(64, 64)), torch.randn(2, 64)
    net = corank.sparsify(net, corank.Unstructured(0.9)).model
    corank.export(net, x, tmp_path / "net.onnx")
    corank.quantize(tmp_path / "net.onnx", [x], tmp_path / "int8.onnx")
    plain, packed = (
        corank.open_exported(tmp_path / "int8.onnx", backend="openvino", sparse_rate=rate)
        for rate in (None, 0.5)
    )
    torch.testing.assert_close(packed(x), plain(x))
    files = {"plain": plain, "packed": packed}
    report = corank.sparsity_report(files, x, backends=["openvino"], rounds=2, min_time=1e-4, memory=False)
    assert report.sizes["packed"].zeros is None
    assert "packed" in report.verdicts()[0]
    with pytest.raises(corank.CorankError, match=r"in openvino alone; got 0.5 in onnxruntime"):
        corank.open_exported(tmp_path / "net.onnx", sparse_rate=0.5)
