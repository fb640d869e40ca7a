"""The roofline benchmark: its arithmetic, and its page on canned data."""

from __future__ import annotations

from dataclasses import asdict

import pytest
import torch
from benchmarks.peaks import Peaks, Stage
from benchmarks.roofline import _cases, achieved, page
from torch import nn

import corank

PEAKS = Peaks(flops=100.0, bytes=10.0)


def test_achieved_figures_by_hand():
    stages = [asdict(Stage("a", flops=300, bytes=20)), asdict(Stage("b", flops=100, bytes=20))]
    found = achieved(stages, 8.0, PEAKS)
    assert found["gflops"] == pytest.approx(400 / 8 / 1e9)
    assert found["of_flops"] == pytest.approx(0.5)
    assert found["of_bytes"] == pytest.approx(0.5)
    assert found["of_roofline"] == pytest.approx((3 + 2) / 8)
    assert found["bound"] == ["operations", "bytes"]


def test_layers_of_one_shape_and_rank_are_one_case():
    network = nn.Sequential(*(nn.Conv2d(4, 4, 3, padding=1) for _ in range(3)))
    x = torch.zeros(1, 4, 6, 6)
    plan = corank.plan(network, corank.Ranks({"0": 2, "1": 2}), example=x)
    cases = list(_cases("net", network, plan, x))
    assert [(one.layer, one.rank, one.times) for one in cases] == [("0", 2, 2), ("2", 0, 1)]


def test_the_page_weighs_layers_by_how_often_they_come():
    def row(layer, kind, seconds, share, times=1):
        figures = achieved([asdict(Stage("a", flops=1, bytes=1))], seconds, PEAKS) | {"of_roofline": share}
        return figures | {
            "network": "net",
            "layer": layer,
            "times": times,
            "kind": kind,
            "ms": seconds * 1e3,
            "speedup": 2.0,
            "ci": [1.9, 2.1],
            "seconds": seconds,
        }

    rows = [
        row("one", "dense", 2.0, 0.9, 3),
        row("one", "spatial 4", 1.0, 0.6, 3),
        row("two", "dense", 6.0, 0.3),
    ]
    text = page({"torch": {"batch": 1, "peaks": asdict(PEAKS), "rows": rows}})
    # dense: (3·2·0.9 + 6·0.3) / 12 = 0.60; the cut layer: 0.90 before, 0.60 after, 0.67 kept
    assert "| torch | net | 0.60 | 0.90 | 0.60 | 0.67 |" in text
    assert "| net one (3×) | spatial 4 |" in text
    assert "2.00 (1.90 – 2.10)" in text
