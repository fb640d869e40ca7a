"""The speed benchmarks run from end to end in their reduced form, and leave the stored results alone."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs" / "results"
SAID = {
    "alexnet": ("## Goals", "ours for b", "## What holds it back"),
    "roofline": ("## torch, batch 1", "ResNet-18", "of the roofline"),
    "rivals": ("## resnet18", "uniform energy", "## Where ours is not the fastest"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SAID)
def test_the_quick_form_prints_its_page_and_writes_nothing(name):
    pytest.importorskip("onnxruntime")
    before = {path: path.stat().st_mtime_ns for path in RESULTS.glob(f"{name}.*")}
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.{name}", "--quick", "--threads", "1"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        timeout=280,
    )
    assert done.returncode == 0, done.stderr
    for part in SAID[name]:
        assert part in done.stdout
    assert {path: path.stat().st_mtime_ns for path in RESULTS.glob(f"{name}.*")} == before
