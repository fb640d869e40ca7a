from __future__ import annotations

import numpy as np
import pytest
from torch import nn

from corank.benchmarks.chain_onnx import write_chain
from corank.benchmarks.edges import edge_share, read_events, share
from corank.remote import run_table


def _node(kind, start, spent):
    return {
        "cat": "Node", "name": f"{kind}_kernel_time", "ts": start, "dur": spent, "args": {"op_name": kind},
    }  # fmt: skip


@pytest.mark.parametrize("measure", [share, run_table.edge_share])
@pytest.mark.parametrize(
    ("profile", "expected"),
    [
        ([(10.0, [("Conv", 8.0)])], 0.0),
        ([(10.0, [("Input", 1.0), ("Reorder", 2.0), ("Conv", 5.0), ("Reorder", 1.0), ("Output", 0.0)])], 0.3),
        ([(10.0, [("Conv", 3.0), ("ReorderOutput", 4.0), ("ReorderInput", 1.0), ("Conv", 2.0)])], 0.0),
        ([(10.0, [("Reorder", 9.0)])], 0.0),
        ([(30.0, [("Reorder", 9.0), ("Conv", 5.0)]), (10.0, [("Reorder", 2.0), ("Conv", 5.0)])], 0.2),
        ([(1.0, [("Reorder", 5.0), ("Conv", 5.0)])], 0.9),
    ],
)
def test_only_reorders_at_the_ends_count_and_disturbed_runs_do_not(measure, profile, expected):
    assert measure(profile) == pytest.approx(expected)


def test_what_an_int8_layer_alone_pays_at_its_ends_counts_too():
    ends = [("QuantizeLinear", 1.0), ("Transpose", 1.0), ("QLinearConv", 6.0), ("DequantizeLinear", 2.0)]
    assert share([(10.0, ends)]) == pytest.approx(0.4)


def test_the_events_of_a_profile_belong_to_their_runs():
    events = [
        {"cat": "Session", "name": "model_run", "ts": 100, "dur": 50},
        {"cat": "Session", "name": "model_run", "ts": 10, "dur": 50},
        _node("Conv", 120, 20),
        _node("ReorderInput", 101, 10),
        _node("Conv", 20, 30),
    ]
    first, second = read_events(events)
    assert first == (pytest.approx(50e-6), [("Conv", pytest.approx(30e-6))])
    assert [kind for kind, _ in second[1]] == ["ReorderInput", "Conv"]


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_both_engines_tell_their_edges(backend, tmp_path):
    pytest.importorskip(backend, reason="an optional engine")
    pytest.importorskip("onnx", reason="files come with the extra `onnx`")
    path, x = tmp_path / "a.onnx", np.ones((1, 16, 64, 64), np.float32)
    path.write_bytes(write_chain(nn.Sequential(nn.Conv2d(16, 16, 3, padding=1)), x.shape))
    assert edge_share(backend, path, [x], 1, "f32") > 0
    path.write_bytes(write_chain(nn.Sequential(nn.Linear(16, 16)), (4, 16)))
    assert edge_share(backend, path, [np.ones((4, 16), np.float32)], 1, "f32") == 0
