"""What a command cannot write, or would not heed, is said before it measures."""

from __future__ import annotations

import pytest

from corank.cli.tune import count_trials
from corank.tuning.record import front_of
from tests.cli.running import corank

__all__ = ["corank"]  # a fixture
ABSENT = ("absent:make", "--shape", "1,3,8,8")  # a network that is not there is said after the output


@pytest.mark.parametrize(
    "words",
    [
        ("table", *ABSENT),
        ("table", "--import", "absent"),
        ("headroom", *ABSENT),
        ("compress", *ABSENT, "--target", "macs=0.5"),
    ],
)
def test_an_output_that_cannot_be_written_is_said_first(corank, tmp_path, words):
    (tmp_path / "a").write_text("a file")
    for out in ("/proc/x/t.json", "a/t.json"):
        code, _, err = corank(*words, "--out", out)
        assert code == 2
        if "--import" not in words:  # it measures nothing, and says what is absent
            assert f"{out}: cannot be written" in err
    if "--import" not in words:
        code, _, err = corank(*words, "--out", tmp_path)
        assert "is a folder. Name a file." in err
        code, _, err = corank(*words, "--out", "new/folder/t.json")
        assert "there is no module 'absent' here" in err
    assert [one.name for one in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize(
    ("name", "value"), [("precision", "f32"), ("threads", "1"), ("seconds", "3"), ("cache", "kept")]
)
def test_what_an_export_would_not_heed_is_refused_beside_it(corank, tmp_path, name, value):
    code, _, err = corank("table", *ABSENT, "--export", "out", f"--{name}", value)
    assert code == 2
    assert f"{name}: it has no effect beside --export" in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--backend", "nonsense"), "got 'nonsense'"),
        (("--backend", "torch"), "torch is the engine of the latency, and the cost is macs"),
    ],
)
def test_an_engine_that_a_search_would_not_use_is_refused(corank, tmp_path, words, message):
    code, _, err = corank("tune", "--out", "out", *words)
    assert code == 2
    assert message in err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ('target = "macs=0.5"', "target: how deep is searched"),
        ("seeds = [3, 4]", "seeds: a trial trains one"),
        ('kind = "l1"', "kind: it is searched, among kinds of the space"),
    ],
)
def test_settings_that_a_search_would_not_use_are_refused(corank, tmp_path, recipe, message):
    (tmp_path / "a.toml").write_text(recipe)
    code, _, err = corank("tune", "--out", "out", "--recipe", "a.toml")
    assert code == 2
    assert message in err
    assert not (tmp_path / "out").exists()


def test_a_search_says_how_its_trials_ended():
    trials = [
        {"number": 0, "state": "complete", "cost": 0.5, "failed": None},
        {"number": 1, "state": "pruned", "cost": 0.4, "failed": None},
        {"number": 2, "state": "fail", "cost": None, "failed": "the loss is nan"},
        {"number": 3, "state": "complete", "cost": 0.3, "failed": None},
        {"number": 4, "state": "running", "cost": None, "failed": None},
    ]
    result = {"trials": trials, "front": [0, 3]}
    assert [one["number"] for one in front_of(result)] == [3, 0]
    said = count_trials(result)
    assert said == "5 trials: 2 finished, 1 given up, 1 failed, 1 run elsewhere; trial 2: the loss is nan"
