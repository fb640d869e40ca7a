"""The combinations' benchmark: a small network through every combination, and its page on canned data."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from benchmarks.cifar import ResNet
from benchmarks.combinations import cut, recovered, subsets, title
from benchmarks.combinations_page import page

import corank
from benchmarks import combinations


@pytest.fixture
def bench(monkeypatch):
    torch.manual_seed(0)
    batches = [(torch.randn(8, 3, 8, 8), torch.arange(8)) for _ in range(4)]
    net = ResNet(1).eval()
    example = batches[0][0]

    def ours(network, ratio, bench):
        return corank.decompose(network, corank.plan(network, corank.Budget(macs=ratio), example=example))

    monkeypatch.setattr(combinations, "ours", ours)
    monkeypatch.setattr(combinations, "for_int8", lambda bench: bench)
    monkeypatch.setattr(combinations, "score", lambda model, loader: [0.5, 0.4, 0.6])
    return SimpleNamespace(
        depth=8, seed=0, dense=net, example=example, train=batches, dev=batches, final=batches
    )


def test_every_combination_is_cut_and_none_touches_the_dense_network(bench):
    pytest.importorskip("torch_pruning", reason="channels come with the extra `prune`")
    before = [one.clone() for one in bench.dense.state_dict().values()]
    assert len(set(map(title, subsets()))) == 12
    some = [parts for parts in subsets() if combinations.FOR_INT8 not in parts and len(parts) < 3]
    sizes = {title(parts): sum(p.numel() for p in cut(parts, 2, bench).parameters()) for parts in some}
    assert sizes["dense"] == sizes["unstructured"]
    assert sizes["low rank + channels"] < min(sizes["low rank"], sizes["channels"])
    assert all(map(torch.equal, before, bench.dense.state_dict().values()))


def test_all_together_is_recovered_saved_and_quantized(bench, tmp_path):
    pytest.importorskip("torch_pruning", reason="channels come with the extra `prune`")
    pytest.importorskip("onnxscript", reason="ONNX files come with the extra `onnx`")
    row = recovered(bench, ("low rank", "channels", "unstructured"), 1, 1, tmp_path / "all")
    assert row["zeros"] == pytest.approx(0.7, abs=0.01)
    again = corank.load(tmp_path / "all.safetensors", lambda: ResNet(1))
    assert corank.count_zeros(again).share == row["zeros"]
    assert row["int8"]["bytes"] == (tmp_path / "all.onnx").stat().st_size
    assert sorted(one.name for one in tmp_path.iterdir()) == ["all.onnx", "all.safetensors"]


def test_the_page_says_which_combination_is_fastest_against_each_alone():
    def row(parts, level, dev, speed, int8_speed, int8_dev):
        speedup = {one: [speed, speed, speed] for one in ("torch", "onnxruntime", "openvino")}
        low = {one: [int8_speed] * 3 for one in ("onnxruntime", "openvino")}
        wide = [dev, dev - 0.01, dev + 0.01]
        return {
            "parts": parts, "level": level, "macs": 100, "zeros": 0.5, "zipped": 50, "after_cut": 0.5,
            "conv_nonzero": 1000 // (1 + len(parts)), "dev": wide, "final": wide, "speedup": speedup,
            "int8": {"dev": [int8_dev] * 3, "final": [int8_dev] * 3, "speedup": low},
        }  # fmt: skip

    rows = [
        row([], 0, 0.92, 1.0, 1.5, 0.918),
        row(["low rank"], 0, 0.915, 1.2, 1.8, 0.913),
        row(["unstructured"], 0, 0.919, 1.0, 1.5, 0.917),
        row(["low rank", "unstructured"], 0, 0.80, 3.0, 4.0, 0.80),
        {"parts": ["channels"], "level": 0, "not_run": "cannot"},
    ]
    lasso = [
        {"parts": ["low rank"], "strength": 0.1, "columns": 0.63, "rows": 0.7, "dev": [0.9], "final": [0.9]}
    ]
    text = page({"56": {"rows": rows, "lasso": lasso, "epochs": 1, "images": 10, "batch": 8}})
    assert (
        "In onnxruntime the fastest is low rank + int8: 1.50× low rank alone, "
        "1.80× unstructured alone, 1.20× int8 " in text
    )
    assert "In torch the fastest is low rank: 1.20× unstructured alone." in text
    assert "not run: cannot" in text
    assert "| ≤ 0.5 | 2.0× | none |" in text
    assert "| low rank | 0.1 | 63% | 70% | -2.00 | -2.00 |" in text
