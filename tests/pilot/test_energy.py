"""Energy is only ever called measured where counters were read."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from corank.pilot.energy import measure_energy, source_of


@pytest.mark.parametrize(
    ("modes", "label"),
    [
        (["cpu_load"], "estimated"),
        (["constant"], "estimated"),
        ([], "estimated"),
        (["intel_rapl"], "measured"),
        (["intel_rapl", "constant"], "estimated"),
    ],
)
def test_only_counters_measure(modes, label):
    hardware = [SimpleNamespace(_mode=mode) for mode in modes] + [SimpleNamespace()]
    found = source_of(SimpleNamespace(_hardware=hardware), "1")
    assert found["label"] == label
    assert found["by"].startswith("codecarbon 1: ")


def test_a_network_takes_energy():
    pytest.importorskip("codecarbon", reason="energy comes with the extra `energy`")
    found = measure_energy({"dense": nn.Linear(8, 8)}, torch.zeros(4, 8), seconds=0.05)
    assert found["dense"]["kwh_per_million"] > 0
    assert found["dense"]["label"] in ("estimated", "measured")
