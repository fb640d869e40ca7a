from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from torch import nn

import corank
from corank.remote.exchange import export_table, import_table

pytest.importorskip("onnxruntime", reason="the device's engine comes with the extra `onnx`")
pytest.importorskip("onnxscript", reason="files come with the extra `onnx`")

EXAMPLE = torch.randn(2, 3, 8, 8)
WITHOUT_TORCH = """
import runpy, sys
for name in ("torch", "corank", "onnx"):
    sys.modules[name] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def make_net():
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.Flatten()
    )


def _run(folder, *words):
    command = [sys.executable, "-c", WITHOUT_TORCH, str(folder / "run_table.py"), "--threads", "1", *words]
    return subprocess.run(command, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    folder = tmp_path_factory.mktemp("device") / "files"
    return export_table(make_net(), EXAMPLE, folder, ranks=[0.25, 0.5], methods=["filter_basis"], rounds=2)


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_device_without_torch_makes_the_table(exported, backend):
    pytest.importorskip(backend, reason="an optional engine")
    done = _run(exported, "--backend", backend)
    assert done.returncode == 0, done.stderr
    table = import_table(exported)
    assert (table.backend, table.threads, table.batch, table.precision) == (backend, 1, 2, "float32")
    assert table.layers == ("0", "3")
    assert [(row.method, row.rank) for row in table.splits("3")] == [
        ("filter_basis", 8),
        ("filter_basis", 16),
    ]
    assert table.whole_ms > 0
    assert corank.LatencyTable.from_json(table.to_json()) == table
    assert "group" not in _run(exported, "--backend", backend).stderr  # nothing is timed twice


def test_the_weights_are_shared_and_not_in_every_file(exported):
    sizes = {file.name: file.stat().st_size for file in exported.glob("*.onnx")}
    assert sizes.pop("model.onnx") > 32 * 32 * 9 * 4
    assert max(sizes.values()) < 8000
    assert (exported / "weights.bin").stat().st_size < 32 * 32 * 9 * 4 + 8


def test_times_that_are_missing_incomplete_or_of_other_files_are_refused(tmp_path):
    folder = export_table(make_net(), EXAMPLE, tmp_path / "a", ranks=[0.5], types=["conv"], rounds=2)
    with pytest.raises(corank.FileError, match="Run run_table.py in the folder first"):
        import_table(folder)
    manifest = json.loads((folder / "manifest.json").read_text())
    times = {"schema": 1, "manifest": manifest["digest"], "terms": {}, "groups": {"0": {}}}
    (folder / "times.json").write_text(json.dumps(times))
    with pytest.raises(corank.FileError, match="groups were not timed"):
        import_table(folder)
    (folder / "times.json").write_text(json.dumps({**times, "manifest": "other"}))
    with pytest.raises(corank.FileError, match="was made for other files"):
        import_table(folder)
    with pytest.raises(corank.FileError, match="is not an empty folder"):
        export_table(make_net(), EXAMPLE, folder)
