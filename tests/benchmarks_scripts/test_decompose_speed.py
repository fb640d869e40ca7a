"""The speed benchmark runs from end to end in its reduced form, and leaves the stored results alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from benchmarks.networks import vgg16
from benchmarks.split_rivals import plain_svd
from torch import nn

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "results"


def test_vgg16_has_the_published_number_of_parameters():
    with torch.device("meta"):
        assert sum(one.numel() for one in vgg16().parameters()) == 138_357_544


def test_the_plain_split_is_exact_at_full_rank():
    layer = nn.Conv2d(3, 5, 3)
    left, right = plain_svd(layer, 5)
    assert torch.allclose((left @ right).view_as(layer.weight), layer.weight, atol=1e-6)


@pytest.mark.slow
def test_the_quick_form_prints_every_table_and_writes_nothing():
    before = {path: path.stat().st_mtime_ns for path in RESULTS.glob("decompose_speed.*")}
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.decompose_speed", "--quick", "--threads", "1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    for part in ("| torch.linalg.svd |", "| corank, plan and decompose |", "rank 2%", "Rivals: AIMET"):
        assert part in done.stdout
    assert {path: path.stat().st_mtime_ns for path in RESULTS.glob("decompose_speed.*")} == before
