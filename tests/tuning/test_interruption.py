"""A search that is killed at any moment goes on, and ends as one that was not."""

from __future__ import annotations

import pytest

from tests.killed import run_killed

pytest.importorskip("optuna", reason="the search comes with the extra `tune`")
pytest.importorskip("matplotlib", reason="the pictures come with the extra `report`")


def test_a_search_that_is_killed_again_and_again_ends_the_same(tmp_path):
    result = run_killed("tests.tuning.killing", tmp_path, seed=0, kills=4)
    assert result["equal"], (result["first"], result["second"])
    assert result["killed"] >= 2


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 5))
def test_a_search_that_is_killed_many_times_ends_the_same(tmp_path, seed):
    assert run_killed("tests.tuning.killing", tmp_path, seed=seed, kills=16)["equal"]
