"""A trial that is killed at any moment goes on, and ends bit-equal to one that was not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytest.importorskip("matplotlib", reason="the report comes with the extra `report`")


def _kill(folder, seed, kills):
    done = subprocess.run(
        [sys.executable, "-m", "tests.pilot.killing", str(folder), str(seed), str(kills)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _check(result):
    assert result["equal"]
    assert "another run is at work in this folder" in result["refused"]
    assert result["kept"]
    visible = [name for name in result["left"] if not name.startswith(".")]
    assert visible == ["models", "pilot.json", "plans", "report.html", "samples.csv"]


def test_a_trial_that_is_killed_again_and_again_ends_bit_equal(tmp_path):
    result = _kill(tmp_path, seed=0, kills=4)
    _check(result)
    assert result["killed"] == 4


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 5))
def test_a_trial_that_is_killed_many_times_ends_bit_equal(tmp_path, seed):
    _check(_kill(tmp_path, seed=seed, kills=24))
