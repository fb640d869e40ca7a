"""The simulation does what the library does, and the router benchmark runs from end to end when small."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from benchmarks.rollouts import BACK, BLOCK, PAIRED, PROMOTED, Roll, Scenario, at_limit, grow_counts
from hypothesis import given, settings
from hypothesis import strategies as st

from corank.rollout.evidence import begin, grow
from corank.rollout.guards import guards_of


@settings(deadline=None)
@given(st.lists(st.sampled_from([-1.0, 0.0, 1.0]), min_size=BLOCK, max_size=BLOCK), st.integers(0, 9))
def test_counts_say_what_values_say(values, blocks):
    array = np.array(values)
    up, down = (array > 0).sum(), (array < 0).sum()
    counted = grow_counts(begin(), BLOCK * blocks, up, down, 0.005)
    np.testing.assert_allclose(counted, grow(begin(), BLOCK * blocks, array, -1.0, 0.005), atol=1e-9)


def test_simulated_roll_outs_end_as_they_should():
    for gain, fails, wanted in (
        (0.0, (0.001, 0.001), PROMOTED),
        (-0.05, (0.001, 0.001), BACK),
        (0.0, (0.0, 0.9), BACK),
    ):
        roll = Roll(Scenario("one", PAIRED, gain, fails), 20, np.random.default_rng(0))
        roll.run()
        assert (roll.status == wanted).mean() >= 0.9
        assert (roll.exposed <= roll.requests).all()


@pytest.mark.parametrize(
    "guard", [g for g in guards_of(PAIRED) if g.action == "roll back"], ids=lambda g: g.name
)
def test_the_limits_are_the_limits(guard):
    values = at_limit(guard.stream, guard.bound, (400, 500), np.random.default_rng(0))
    assert values.min() >= guard.low
    assert values.mean() == pytest.approx(guard.bound, abs=4 * values.std() / values.size**0.5)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["router", "rollouts"])
def test_the_quick_form_runs_and_writes_nothing(name):
    root = Path(__file__).parents[2]
    before = {path: path.stat().st_mtime_ns for path in (root / "docs" / "results").glob("*")}
    words = [sys.executable, "-m", f"benchmarks.{name}", "--quick"]
    done = subprocess.run(words, cwd=root, capture_output=True, text=True, check=False, timeout=280)
    assert done.returncode == 0, done.stderr
    said = {"router": "none lost, none twice", "rollouts": "**False roll-backs**"}[name]
    assert said in done.stderr
    assert {path: path.stat().st_mtime_ns for path in (root / "docs" / "results").glob("*")} == before
