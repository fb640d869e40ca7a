"""The published recipe: Caffe's network, its shapes and counts, and every step once on a few images."""

from __future__ import annotations

import gzip
import json
import struct
import sys

import numpy as np
import pytest
import torch

from benchmarks import lenet


def test_the_network_is_caffes():
    torch.manual_seed(0)
    net = lenet.LeNet()
    assert sum(one.numel() for one in net.parameters()) == 431_080
    assert net(torch.zeros(2, 1, 28, 28)).shape == (2, 10)
    for layer in (net.conv1, net.fc1):
        fan_in = layer.weight[0].numel()
        assert layer.weight.var().item() == pytest.approx(1 / fan_in, rel=0.2)  # Xavier's, by fan-in
        assert not layer.bias.any()


def _write(folder, name, count):
    draw = np.random.default_rng(count)
    labels = (np.arange(count) % 10).astype(np.uint8)
    images = draw.integers(0, 60, (count, 28, 28)).astype(np.uint8)
    for row, label in zip(images, labels, strict=True):
        row[2 * label : 2 * label + 4] = 250  # a bar whose height tells the class
    for kind, data in (("images-idx3", images), ("labels-idx1", labels)):
        head = struct.pack(f">BBBB{data.ndim}I", 0, 0, 8, data.ndim, *data.shape)
        (folder / f"{name}-{kind}-ubyte.gz").write_bytes(gzip.compress(head + data.tobytes()))


@pytest.fixture
def run(monkeypatch, tmp_path):
    folder = tmp_path / "mnist"
    folder.mkdir()
    _write(folder, "train", 640)
    _write(folder, "t10k", 100)
    monkeypatch.setattr(lenet, "SHARED", tmp_path)
    monkeypatch.setattr(lenet, "RUNS", tmp_path)

    def call():
        monkeypatch.setattr(sys, "argv", ["lenet", "--seeds", "1", "--epochs", "3"])
        lenet.main()

    return call


def test_every_step_is_run_once_and_told(run, tmp_path, capsys):
    run()
    kept = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "lenet/3/0").glob("*.json")}
    assert set(kept) == set(lenet.ARMS)
    assert len({row["baseline"] for row in kept.values()}) == 1  # all start from one network
    assert len(kept["l1"]["after"]) == 100
    assert "cut" not in kept["l2, repel"]
    assert kept["l1"]["macs"] > 0
    text = capsys.readouterr().out
    assert "by seed" in text
    assert "Mark, that the l1 force lowers" in text
    times = {path: path.stat().st_mtime_ns for path in (tmp_path / "lenet").rglob("*.*")}
    run()
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "lenet").rglob("*.*")} == times
