from __future__ import annotations

import pytest

optuna = pytest.importorskip("optuna", reason="the search comes with the extra `tune`")

from benchmarks import search  # noqa: E402
from corank.pilot.options import TrialOptions  # noqa: E402


def test_the_area_grows_with_every_better_point_and_with_no_worse_one():
    front = [(0.9, 0.5)]
    assert search.covered(front) == pytest.approx(0.25)
    assert search.covered([*front, (0.85, 0.6)]) == search.covered(front)
    assert search.covered([*front, (0.95, 0.9)]) > search.covered(front)
    assert search.covered([*front, (0.82, 0.1)]) > search.covered(front)
    assert search.covered([(0.7, 0.1)]) == 0.0


def test_epochs_of_a_trial_that_was_given_up_count_as_far_as_it_came():
    trials = [{"scores": [0.1, 0.2, 0.3]}, {"scores": [0.1]}, {"scores": []}]
    assert search.spent({"trials": trials}, TrialOptions(before_cut=2, after_cut=3)) == 5 + 3 + 2


def test_random_search_puts_everything_back():
    sampler, hopeless = optuna.samplers.TPESampler, search.search.is_hopeless
    with search.random_search():
        assert optuna.samplers.TPESampler is optuna.samplers.RandomSampler
    assert optuna.samplers.TPESampler is sampler
    assert search.search.is_hopeless is hopeless
