from __future__ import annotations

import pytest
from benchmarks.guarantee import measure, networks, page

CUT = {
    "network": "AlexNet",
    "engine": "torch",
    "batch": 1,
    "outcome": "cut",
    "split": 5,
    "of": 8,
    "undone": 1,
    "why": "",
    "speedup": [1.5, 1.6],
    "speedup_ci": [[1.4, 1.6], [1.5, 1.7]],
    "slower": False,
    "seconds": 3.0,
}


def test_the_page_counts_what_is_slower_and_what_was_refused():
    refused = {
        "network": "lazy",
        "engine": "torch",
        "batch": 1,
        "outcome": "refused",
        "why": "no",
        "seconds": 1,
    }
    good = page([CUT, refused], 240)
    assert "**0 of 1 results are slower than dense** (goal 0: passed)" in good
    assert "1 could not be compressed" in good
    assert "5 of 8, 1 undone" in good
    bad = page([CUT, {**CUT, "network": "VGG-16", "slower": True}], 240)
    assert "**1 of 2 results are slower than dense** (goal 0: **missed**)" in bad


def test_there_are_thirty_networks_and_each_takes_a_batch():
    every = networks()
    assert len(every) >= 30
    for name in ("residual", "ResNet-20"):
        make, example = every[name]
        make().eval()(example(2))


@pytest.mark.parametrize("cell", [("residual", "torch", 1), ("perceptron", "onnxruntime", 8)])
def test_a_sample_of_cells_is_never_slower(cell):
    assert not measure(*cell, threads=1, seed=0, seconds=2).get("slower")
