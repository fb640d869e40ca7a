from __future__ import annotations

import json

import pytest

optuna = pytest.importorskip("optuna", reason="the search comes with the extra `tune`")

from benchmarks import search  # noqa: E402
from corank.pilot.options import TrialOptions  # noqa: E402
from corank.pilot.problem import Problem, SameTask  # noqa: E402
from corank.tuning import Space  # noqa: E402
from tests.cli import own  # noqa: E402


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


def test_each_way_gets_the_epochs_of_the_search(tmp_path, monkeypatch):
    problem = Problem("own", "small", {}, (), SameTask(own.seeded(0)), own.net, keep=("6",))
    monkeypatch.setattr(search, "digits", lambda: problem)
    monkeypatch.setattr(search, "SPACE", Space(cut=(0.5, 0.95)))
    options = TrialOptions(shared=1, before_cut=1, after_cut=1, multiple=1, backends=("torch",))
    row = search.compare(0, 3, options, tmp_path)
    assert row["epochs"] == {"tune": 6, "random": 6, "fixed": 6}
    assert row["trials"] == {"tune": 3, "random": 3, "fixed": 3}
    swept = json.loads((tmp_path / "fixed0" / "tune.json").read_text())["trials"]
    assert [one["settings"]["cut"] for one in swept] == pytest.approx([0.725, 0.725, 0.95])
    assert {one["settings"]["kind"] for one in swept} == {"none"}
    assert len({one["settings"]["learning_rate_after"] for one in swept}) == 1
    page = search.page([row])
    assert "| 0 | 3 / 3 / 3 | 6 / 6 / 6 |" in page
    assert "The search was ahead of random search in " in page
