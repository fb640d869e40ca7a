from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import save_model
from typer.testing import CliRunner

from corank import CorankError, LatencyTable
from corank.benchmarks import timing
from corank.cli import app
from corank.cli.models import load_model, make_example

NETWORK = """
from torch import nn

def make():
    return nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(1024, 4))
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "mynet.py").write_text(NETWORK)
    (tmp_path / "broken.py").write_text("1 / 0")
    return tmp_path


def test_weights_are_loaded(folder):
    first = load_model("mynet:make")
    save_model(first, str(folder / "a.safetensors"))
    second = load_model("mynet:make", folder / "a.safetensors")
    assert torch.equal(first[0].weight, second[0].weight)
    save_model(first[0], str(folder / "b.safetensors"))
    for name, message in {"b": "does not fit the network", "absent": "there is no such file"}.items():
        with pytest.raises(CorankError, match=message):
            load_model("mynet:make", folder / f"{name}.safetensors")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mynet", "allowed is package.module:factory, got 'mynet'"),
        ("nowhere:make", "there is no module 'nowhere'"),
        ("broken:make", "importing broken fails .ZeroDivisionError"),
        ("torch.nn:Nothing", "torch.nn has no 'Nothing'"),
        ("torch.nn:Linear", "torch.nn:Linear fails .TypeError"),
        ("builtins:dict", "gives a dict, not an nn.Module"),
    ],
)
def test_a_model_that_is_none_is_named(folder, name, message):
    with pytest.raises(CorankError, match=message):
        load_model(name)


def test_shapes():
    assert [one.shape for one in make_example(["1,3,8,8", "2x5"])] == [(1, 3, 8, 8), (2, 5)]
    ids, values = make_example(["3,9:int", "3,9"])
    assert set(ids.unique().tolist()) == {0, 1}  # ids that every vocabulary has
    assert (ids.dtype, values.dtype) == (torch.int64, torch.float32)
    for shapes in ([], ["1,x"], ["1,2:long"], ["0,3"], [""]):
        with pytest.raises(CorankError, match="shape: "):
            make_example(shapes)


def test_table_and_headroom_of_a_network_in_this_folder(folder, monkeypatch):
    pytest.importorskip("onnxscript", reason="files for ONNX Runtime come with the extra `onnx`")
    monkeypatch.setattr(
        timing, "time_interleaved", lambda runners, rounds, **_: dict.fromkeys(runners, np.full(rounds, 1e-3))
    )

    def corank(*words):
        done = CliRunner().invoke(app, list(words), catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.output

    model = ["mynet:make", "--shape", "2,3,8,8", "--threads", "1", "--cache", "cache", "--backend", "torch"]
    assert "t.json" in corank("table", *model, "--out", "t.json")
    table = LatencyTable.from_json((folder / "t.json").read_text())
    assert (table.layers, table.backend, table.batch) == (("0", "3"), "torch", 2)
    assert len(list((folder / "cache").iterdir())) == 1
    assert "whole network" in corank("headroom", *model, "--out", "h.json")
    assert (folder / "h.json").exists()
    assert "run_table.py" in corank("table", *model[:3], "--export", "device")
    assert (folder / "device" / "run_table.py").exists()
