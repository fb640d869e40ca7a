"""Roofline arithmetic against numbers worked out by hand."""

from __future__ import annotations

import pytest
import torch
from benchmarks.peaks import Peaks, Stage, better, find_stages, predict
from torch import nn


def test_a_split_counts_the_map_between_its_parts_twice():
    split = nn.Sequential(nn.Conv2d(4, 2, 3, padding=1, bias=False), nn.Conv2d(2, 8, 1), nn.ReLU())
    first, second = find_stages(split, (1, 4, 5, 5))
    # 25 places, 2 filters of 36 weights; in 100, weights 72, out 50 numbers
    assert (first.flops, first.bytes) == (2 * 25 * 2 * 36, 4 * (100 + 72 + 50))
    # 25 places, 8 filters of 2 weights and a bias; in 50, weights 24, out 200 numbers
    assert (second.flops, second.bytes) == (2 * 25 * 8 * 2, 4 * (50 + 24 + 200))


def test_groups_count_only_their_own_inputs_and_stages_keep_their_order():
    network = nn.Sequential(nn.Conv2d(4, 8, 1, groups=2, bias=False), nn.MaxPool2d(2))
    conv, pool = find_stages(network, (1, 4, 2, 2))
    assert conv.flops == 2 * 4 * 8 * 2
    assert (pool.flops, pool.bytes) == (0, 4 * (32 + 8))


def test_the_slower_of_operations_and_bytes_decides_each_stage():
    peaks = Peaks(flops=100.0, bytes=10.0)
    computing, moving = Stage("a", flops=300, bytes=20), Stage("b", flops=10, bytes=50)
    assert predict([computing, moving], peaks) == pytest.approx(3.0 + 5.0)
    assert [one.bound(peaks) for one in (computing, moving)] == ["operations", "bytes"]


def test_stages_of_a_structure_on_meta_are_those_of_the_real_one():
    layer = nn.Conv2d(4, 8, 3)
    with torch.device("meta"):
        meta = nn.Conv2d(4, 8, 3)
    shape = (2, 4, 6, 6)
    assert find_stages(nn.Sequential(layer), shape) == find_stages(nn.Sequential(meta), shape)


def test_the_better_of_two_measurements_may_come_from_both():
    assert better(Peaks(2.0, 1.0), Peaks(1.0, 3.0)) == Peaks(2.0, 3.0)
