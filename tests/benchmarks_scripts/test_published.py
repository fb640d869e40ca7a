"""The published recipes: Caffe's networks, their shapes and counts, and every step once on a few images."""

from __future__ import annotations

import gzip
import json
import struct
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from benchmarks.caffe_networks import ConvNet, LeNet, LocalNorm

from benchmarks import published
from corank.data.splits import Images, Parts
from corank.data.tasks import make_task


def test_lenet_is_caffes():
    torch.manual_seed(0)
    net = LeNet()
    assert sum(one.numel() for one in net.parameters()) == 431_080
    assert net(torch.zeros(2, 1, 28, 28)).shape == (2, 10)
    for layer in (net.conv1, net.fc1):
        fan_in = layer.weight[0].numel()
        assert layer.weight.var().item() == pytest.approx(1 / fan_in, rel=0.2)  # Xavier's, by fan-in
        assert not layer.bias.any()


def test_convnet_is_caffes():
    torch.manual_seed(0)
    net = ConvNet()
    assert sum(one.numel() for one in net.parameters()) == 89_578  # as Caffe counts cifar10_full
    assert net(torch.zeros(2, 3, 32, 32)).shape == (2, 10)
    assert net.conv1.weight.std().item() == pytest.approx(1e-4, rel=0.1)


def test_the_norm_divides_by_what_is_around():
    x = torch.full((1, 1, 5, 5), 100.0)
    inside = LocalNorm()(x)[0, 0, 2, 2].item()
    assert inside == pytest.approx(100 / (1 + 5e-5 * 100**2) ** 0.75, rel=1e-5)


def test_only_the_linear_layer_decays_otherwise(tmp_path):
    net = ConvNet()
    recipe = published.RECIPES["convnet"]
    groups = published.Runner(recipe, 1.0, 0, tmp_path)._groups(net)
    terms = {
        name: (group["lr"], group["weight_decay"])
        for (name, _), group in zip(net.named_parameters(), groups, strict=True)
    }
    assert terms["conv2.weight"] == (0.001, 4e-3)
    assert terms["conv2.bias"] == (0.002, 4e-3)
    assert terms["fc1.weight"] == (0.001, pytest.approx(1.0))
    assert terms["fc1.bias"] == (0.002, 0.0)


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
    monkeypatch.setattr(published, "SHARED", tmp_path)
    monkeypatch.setattr(published, "RUNS", tmp_path)

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["published", *words, "--seeds", "1", "--print"])
        published.main()

    return call


def test_every_step_is_run_once_and_told(run, tmp_path, capsys):
    words = ("lenet", "--share", "0.003")  # 3 epochs of 10 steps
    run(*words)
    home = tmp_path / "published/lenet"
    rows = {path.stem: json.loads(path.read_text()) for path in (home / "0.003/0").glob("*.json")}
    assert set(rows) == set(published.RECIPES["lenet"].arms)
    assert len({row["baseline"] for row in rows.values()}) == 1  # all start from one network
    assert len(rows["l1"]["after"]) == 100
    assert "cut" not in rows["l2, repel"]
    assert rows["l1"]["macs"] > 0
    text = capsys.readouterr().out
    assert "by seed" in text
    assert "Mark, that the l1 force lowers" in text
    times = {path: path.stat().st_mtime_ns for path in home.rglob("*.*")}
    run(*words)
    assert {path: path.stat().st_mtime_ns for path in home.rglob("*.*")} == times


def test_a_whole_force_pulls_as_hard_in_fewer_steps(run, monkeypatch, tmp_path, capsys):
    draw = torch.Generator().manual_seed(0)

    def images(count):
        pixels = torch.randint(0, 256, (count, 3, 32, 32), generator=draw, dtype=torch.uint8)
        return Images(pixels, torch.arange(count) % 10)

    parts = Parts("noise", tuple("abcdefghij"), images(100), images(50), images(50))
    recipe = published.RECIPES["convnet"]
    small = replace(recipe, task=lambda seed: make_task(parts, seed, batch_size=50))
    monkeypatch.setitem(published.RECIPES, "convnet", small)
    made = []
    real = published.corank.ForceRegularizer

    def force(*arguments, **options):
        made.append(real(*arguments, **options))
        return made[-1]

    monkeypatch.setattr(published.corank, "ForceRegularizer", force)
    run("convnet", "--share", "0.00001")
    for one, strength in zip(made, (5e-5, 5.0), strict=True):
        assert {layer.name: layer.strength for layer in one.layers} == {
            name: pytest.approx(strength) for name in ("conv1", "conv2", "conv3")
        }
    assert "l2, whole" in capsys.readouterr().out


def test_a_fine_tuning_that_diverged_is_told():
    recipe = published.RECIPES["lenet"]
    ranks = {"conv1": 3, "conv2": 4}
    common = {"seed": 0, "ranks": ranks, "baseline": "11", "before": "11", "cut": "10", "macs": 0.5}
    rows = [
        {"arm": published.NO_FORCE, **common, "after": "11"},
        {"arm": "l1", **common, "failed": "finetune: the loss is nan"},
    ]
    text = published.page(recipe, rows, 1.0)
    assert "| l1 | 3.0 of 20 | 4.0 of 50 | 0.50 |" in text
    assert "diverged with 1 of 1 seeds |" in text
