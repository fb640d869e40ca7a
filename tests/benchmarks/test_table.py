from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

import corank
from corank import LatencyTable, latency_table
from corank.benchmarks import table_runners, timing
from corank.quantizing import write_int8

EXAMPLE = torch.randn(2, 3, 8, 8)


@pytest.fixture(autouse=True)
def measured(monkeypatch):
    """Run everything once, take a millisecond for it, and keep the names of what took turns."""
    runs = []

    def measure(runners, rounds, **_):
        for run in runners.values():
            run()
        runs.append(list(runners))
        return {name: np.full(rounds, 1e-3) for name in runners}

    monkeypatch.setattr(timing, "time_interleaved", measure)
    return runs


def make_net():
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1),
        nn.Conv2d(16, 16, 3, padding=1),
        nn.Flatten(),
        nn.Linear(1024, 10),
    )


@pytest.mark.parametrize(
    "backend",
    [
        "torch",
        "torch_channels_last",
        "onnxruntime",
        "openvino",
        pytest.param("torch_compile", marks=pytest.mark.slow),
    ],
)
def test_every_engine_times_every_split(backend):
    if not backend.startswith("torch"):
        pytest.importorskip(backend, reason="an optional engine")
    table = latency_table(make_net(), EXAMPLE, backend=backend, ranks=[0.5], rounds=2, progress=False)
    assert table.layers == ("0", "3", "4", "6")
    assert (table.backend, table.threads, table.precision, table.batch) == (backend, 1, "float32", 2)
    assert {row.method for row in table.splits("3")} == {"filter_basis", "input_basis", "spatial", "tucker2"}
    assert [(row.method, row.rank) for row in table.splits("6")] == [("svd", 4)]
    assert table.whole_ms > 0
    assert LatencyTable.from_json(table.to_json()) == table
    assert table.skipped == {}


def test_equal_layers_share_their_times(measured):
    table = latency_table(
        make_net(), EXAMPLE, ranks=[0.5], methods=["filter_basis"], progress=False, types=["conv"]
    )
    # the whole network with the dense layers of two units, then each with one split
    assert [len(one) for one in measured] == [3, 2, 2]
    assert [table.dense(name).ms for name in table.layers] == [1.0, 1.0, 1.0]
    assert table.skipped == {"6": "Linear is not among the types asked for (conv)"}


def test_layers_that_cannot_be_split_are_left_out_with_the_reason():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c, self.unused = (nn.Linear(16, 16) for _ in range(4))
            self.b.weight = self.a.weight

        def forward(self, x):
            return self.c(self.b(self.a(x)))

    table = latency_table(Tied(), torch.ones(2, 16), progress=False)
    assert table.layers == ("c",)
    assert set(table.skipped) == {"a", "b", "unused"}
    assert "tied" in table.skipped["a"]
    assert "never calls it" in table.skipped["unused"]


def test_bf16_in_openvino_where_the_processor_has_it():
    openvino = pytest.importorskip("openvino", reason="an optional engine")
    options = {
        "backend": "openvino",
        "precision": "bf16",
        "ranks": [0.5],
        "include": ["0"],
        "progress": False,
    }
    if "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES"):
        assert latency_table(make_net(), EXAMPLE, **options).precision == "bfloat16"
    else:
        with pytest.raises(corank.CorankError, match="not bf16"):
            latency_table(make_net(), EXAMPLE, **options)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_int8_is_timed_from_a_quantized_file(backend, monkeypatch):
    pytest.importorskip(backend, reason="an optional engine")
    files = []

    def spy(path, feeds, out):
        write_int8(path, feeds, out)
        files.append(out)

    monkeypatch.setattr(table_runners, "write_int8", spy)
    options = {"precision": "int8", "ranks": [0.5], "include": ["0", "6"], "progress": False, "rounds": 2}
    table = latency_table(make_net(), EXAMPLE, backend=backend, **options)
    assert table.precision == "int8"
    assert set(table.layers) == {"0", "6"}
    assert len(files) >= 5  # the whole network, two dense layers, a split of each


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backend": "tensorrt"}, "allowed are torch"),
        ({"methods": ["magic"]}, "unknown method 'magic'"),
        ({"methods": {"6": "spatial"}}, "6: Spatial splits convolutions"),
        ({"ranks": [2]}, r"shares of the full rank in \(0, 1\], got \[2\]"),
        ({"ranks": {"0": [0.5]}}, "whole numbers from 1"),
        ({"ranks": {"conv9": [4]}}, "'conv9' matches no weighted layer"),
        ({"rounds": 3}, "even number"),
        ({"threads": 0}, "threads"),
        ({"multiple": 0}, "multiple"),
        ({"time_budget": 0}, "seconds above 0"),
        ({"precision": "int4"}, "allowed are f32, bf16 and int8"),
        ({"precision": "int8"}, "int8 is timed in onnxruntime and openvino, got torch"),
        ({"precision": "bf16"}, "torch runs the model as it is, in float32"),
        ({"exclude": ["*"]}, "no layer of the network can be timed"),
    ],
)
def test_what_cannot_be_done_is_said(options, message):
    with pytest.raises(corank.CorankError, match=message):
        latency_table(make_net(), EXAMPLE, progress=False, **options)
