"""A policy is checked before any work, and an unknown key is an error that names it."""

from __future__ import annotations

import json

import pytest

from corank.errors import CorankError, FileError
from corank.rollout.guards import guards_of
from corank.rollout.policy import Policy


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"marginn": 0.1}, "unknown key 'marginn'; the nearest is 'margin'"),
        ({"zzz": 1}, "unknown key 'zzz'; allowed are stages, requests"),
        ({"stages": [0.1, 0.05, 1]}, "stages rise from 0 or more to 1"),
        ({"stages": [0, 0.5]}, "stages rise from 0 or more to 1"),
        ({"stages": [1, 100]}, "stages rise from 0 or more to 1"),
        ({"stages": "all"}, "stages is a list of shares"),
        ({"stages": []}, "stages is a list of shares"),
        ({"requests": 0}, "requests is a whole number from 1, got 0"),
        ({"requests": True}, "requests is a whole number from 1, got True"),
        ({"reference": 5}, "reference is a whole number from 20, got 5"),
        ({"seconds": -1}, "seconds is a number from 0, got -1"),
        ({"level": 5}, "level: allowed is a fraction in (0, 1), got 5"),
        ({"margin": 0}, "margin: allowed is a fraction in (0, 1), got 0"),
        ({"harm": 0.005}, "harm: allowed is [0, margin) = [0, 0.005), got 0.005"),
        ({"harm": -0.1}, "harm: allowed is [0, margin)"),
        ({"margin": "half"}, "margin is a fraction, got 'half'"),
        ({"margin": float("nan")}, "margin is a fraction, got nan"),
        ({"input_margin": 0.5}, "input_margin: allowed is a fraction in (0, 0.5), or none of it"),
        ({"unlabelled_ceiling": 10}, "unlabelled_ceiling: allowed is a fraction in [0, 1], got 10"),
        ({"slow_ms": 0}, "slow_ms is a number of milliseconds above 0"),
        ({"shadow_share": 0}, "shadow_share is 0"),
        (
            {"stages": [0.5, 1], "unlabelled_ceiling": 0.1},
            "the first stage, 0.5, is above unlabelled_ceiling",
        ),
        ({"stages": [1]}, "stages [1] leave no champion to compare with"),
        ({"stages": [0, 1]}, "stages [0, 1] give 500 requests to learn what is slow"),
    ],
)
def test_what_is_not_allowed_is_named(values, message):
    with pytest.raises(CorankError) as error:
        Policy.from_dict(values, "here.toml")
    assert message in str(error.value)
    assert str(error.value).startswith("here.toml: ")


def test_a_policy_survives_json_and_toml(tmp_path):
    policy = Policy(stages=(0.05, 1), margin=0.01, harm=0.002, disagreement=None)
    (tmp_path / "a.json").write_text(json.dumps(policy.to_dict()))
    assert Policy.read(tmp_path / "a.json") == policy
    (tmp_path / "a.toml").write_text("stages = [0.05, 1]\nmargin = 0.01\n")
    assert Policy.read(tmp_path / "a.toml") == Policy(stages=(0.05, 1), margin=0.01)


def test_the_ceiling_is_never_below_the_first_stage_unless_it_is_said():
    assert Policy().unlabelled_ceiling == Policy(stages=(0.05, 1)).unlabelled_ceiling == 0.1
    assert Policy(stages=(0.5, 1)).unlabelled_ceiling == 0.5
    assert Policy.from_dict(Policy(stages=(0.5, 1)).to_dict()).unlabelled_ceiling == 0.5
    for more in ({"slow_ms": 5.0}, {"requests": 600}):
        assert Policy(stages=(0, 1), **more).unlabelled_ceiling == 0.1


def test_files_that_are_no_policy(tmp_path):
    for name, text in (("a.json", "{"), ("b.json", "[1]"), ("c.toml", "= 3")):
        (tmp_path / name).write_text(text)
        with pytest.raises(FileError, match=name):
            Policy.read(tmp_path / name)
    for name in ("absent.json", "absent.toml"):
        with pytest.raises(FileError, match="cannot be read"):
            Policy.read(tmp_path / name)


@pytest.mark.parametrize(
    "changes", [{}, {"disagreement": None}, {"confidence_margin": None, "input_margin": None}]
)
def test_the_guards_of_one_kind_share_its_level(changes):
    policy = Policy(level=0.04, promotion_level=0.01, **changes)
    levels = {"roll back": 0.0, "prove": 0.0, "hold": 0.0}
    for guard in guards_of(policy):
        levels[guard.action] += guard.level
    assert levels["roll back"] == pytest.approx(0.04)
    assert levels["prove"] == pytest.approx(0.01)
    assert levels["hold"] == pytest.approx(0.0 if policy.input_margin is None else 0.04)
