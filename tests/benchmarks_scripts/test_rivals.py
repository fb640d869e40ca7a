"""The rivals' benchmark: equal multiply-accumulates, refusals as rows, and its page on canned data."""

from __future__ import annotations

import pytest
import torch
from benchmarks.rival_cuts import largest, macs, our_plan, uniform_energy
from benchmarks.rivals import cut_all, page
from torch import nn

from benchmarks import rival_cuts

NETWORK = nn.Sequential(nn.Conv2d(32, 64, 3), nn.ReLU(), nn.Conv2d(64, 64, 3)).eval()
X = torch.randn(1, 32, 10, 10, generator=torch.Generator().manual_seed(0))


def test_ours_and_one_energy_stay_within_the_share():
    before = macs(NETWORK, X)
    plan = our_plan(NETWORK, X, 0.5, "torch", 1)
    assert plan.after.macs <= 0.5 * before
    assert 0.3 * before < macs(uniform_energy(NETWORK, X, 0.5), X) <= 0.5 * before


def test_the_largest_knob_within_the_share_is_found():
    def narrow(of, kept):
        return nn.Sequential(nn.Conv2d(32, max(round(100 * kept), 1), 1))

    wide = nn.Sequential(nn.Conv2d(32, 100, 1))
    assert round(100 * largest(narrow, wide, X, 0.5)) == 50
    with pytest.raises(ValueError, match="at best"):
        largest(narrow, wide, X, 0.001)


def test_a_rival_that_raises_becomes_a_row_with_its_reason(monkeypatch):
    def crash(model, x, share):
        raise AssertionError

    monkeypatch.setitem(rival_cuts.RIVALS, "crash", crash)
    made, rows = cut_all(NETWORK, X, ("crash", "uniform energy"))
    assert list(made) == ["uniform energy"]
    assert rows["crash"] == {"not_run": "AssertionError: no message"}
    assert rows["uniform energy"]["share"] <= 0.5


def test_the_page_names_every_row_where_ours_is_not_the_fastest():
    def timed(over_dense, ours, low, high):
        faster = {"speedup": ours, "ci": [low, high]}
        figures = {"ms": 1.0, "speedup": over_dense, "ci": [over_dense, over_dense]}
        return figures | {"ours_faster": faster, "peak_memory": 3_000_000}

    engine = {
        "dense": timed(1.0, 1.5, 1.4, 1.6),
        "ours": timed(1.5, 1.0, 1.0, 1.0) | {"share": 0.499, "output_error": 0.3},
        "slow": timed(1.2, 1.25, 1.2, 1.3),
        "fast": timed(1.6, 0.9, 0.85, 0.95),
        "close": timed(1.5, 1.0, 0.98, 1.02),
        "stuck": {"not_run": "cannot be exported"},
    }
    cuts = {name: {"share": 0.5, "output_error": 0.2} for name in ("slow", "fast", "close", "stuck")}
    cuts["absent"] = {"not_run": "ModuleNotFoundError: a | b"}
    text = page(
        {"net": {"macs": 2e9, "rows": cuts, "engines": {"torch": engine}, "versions": {"fasterai": "0.4.1"}}}
    )
    losses = text.split("## Where ours is not the fastest")[1]
    assert "fast is faster, ours over it 0.90 (0.85 – 0.95)" in losses
    assert "close is not told apart" in losses
    assert "slow" not in losses
    assert "| stuck | not run: cannot be exported |" in text
    assert "| absent | not run: ModuleNotFoundError: a / b |" in text
    assert "Rivals: fasterai 0.4.1" in text
