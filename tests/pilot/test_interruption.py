"""A trial that is killed at any moment goes on, and ends bit-equal to one that was not."""

from __future__ import annotations

import pytest

from tests.killed import run_killed

pytest.importorskip("matplotlib", reason="the report comes with the extra `report`")


def _check(result):
    assert result["equal"]
    assert "another run is at work in this folder" in result["refused"]
    assert result["kept"]
    visible = [name for name in result["left"] if not name.startswith(".")]
    assert visible == ["models", "pilot.json", "plans", "report.html", "samples.csv"]


def test_a_trial_that_is_killed_again_and_again_ends_bit_equal(tmp_path):
    result = run_killed("tests.pilot.killing", tmp_path, seed=0, kills=4)
    _check(result)
    assert result["killed"] == 4


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 5))
def test_a_trial_that_is_killed_many_times_ends_bit_equal(tmp_path, seed):
    _check(run_killed("tests.pilot.killing", tmp_path, seed=seed, kills=24))
