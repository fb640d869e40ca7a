"""A search that is killed at any moment goes on, and ends as one that was not."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
pytest.importorskip("optuna", reason="the search comes with the extra `tune`")
pytest.importorskip("matplotlib", reason="the pictures come with the extra `report`")


def _kill(folder, seed, kills):
    done = subprocess.run(
        [sys.executable, "-m", "tests.tuning.killing", str(folder), str(seed), str(kills)],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_search_that_is_killed_again_and_again_ends_the_same(tmp_path):
    result = _kill(tmp_path, seed=0, kills=4)
    assert result["equal"], (result["first"], result["second"])
    assert result["killed"] >= 2


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 5))
def test_a_search_that_is_killed_many_times_ends_the_same(tmp_path, seed):
    assert _kill(tmp_path, seed=seed, kills=16)["equal"]
