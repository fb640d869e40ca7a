"""A target means the same as text, as a table of a recipe, and as rules."""

from __future__ import annotations

import tomllib

import pytest

from corank.cut_targets import KEYS, CutTarget, make_target, parse_target, require_key
from corank.errors import CorankError
from corank.rules import Accuracy, Budget, Energy, Error, Latency, Ranks


@pytest.mark.parametrize(
    ("text", "rules"),
    [
        ("macs=0.35", (Budget(macs=0.35),)),
        ("macs=0.5, params=0.4", (Budget(macs=0.5, params=0.4),)),
        ("bytes=0.5,peak_memory=0.9", (Budget(bytes=0.5, peak_memory=0.9),)),
        ("latency=0.5,backend=onnxruntime", (Latency(ratio=0.5),)),
        ("latency_ms=3", (Latency(ms=3.0),)),
        ("energy=0.95", (Energy(0.95),)),
        ("error=0.1,macs=0.5", (Budget(macs=0.5), Error(0.1))),
        ("accuracy=0.005,latency=0.5", (Latency(ratio=0.5), Accuracy(0.005))),
    ],
)
def test_text_and_table_and_rules_are_the_same(text, rules):
    target = parse_target(text)
    assert target.rules == rules
    assert make_target(target.to_dict()) == target
    written = "\n".join(f"{key} = {value!r}" for key, value in target.to_dict().items())
    assert make_target(tomllib.loads(written)) == target


def test_ranks_come_from_a_table():
    target = make_target(tomllib.loads('method = "svd"\n[ranks]\nconv1 = 8\n"re:layer.*" = 4'))
    assert target.rules == (Ranks({"conv1": 8, "re:layer.*": 4}, "svd"),)
    assert make_target(target.to_dict()) == target


def test_engine_and_budget_go_with_time():
    target = parse_target("latency=0.5,backend=openvino,time_budget=30")
    assert (target.backend, target.time_budget, target.timed) == ("openvino", 30.0, True)
    assert CutTarget().timed is False


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "names no rule"),
        ({"macs": True}, "macs: allowed is a number, got True"),
        ({"macs": [1]}, r"macs: allowed is a number, got \[1\]"),
        ({"ranks": 8}, "ranks is a table of layers"),
        ({"ranks": {"a": 8}, "macs": 0.5}, "ranks is an order and stands alone"),
        ({"ranks": {"a": "8"}}, "a rank is a whole number"),
        ({"latency": 0.5, "time_budget": 0}, "time_budget is in seconds above 0"),
    ],
)
def test_what_is_no_target(values, message):
    with pytest.raises(CorankError, match=message):
        make_target(values)


@pytest.mark.parametrize("key", KEYS)
def test_the_nearest_key_is_named(key):
    with pytest.raises(CorankError, match=f"unknown key '{key}x'; the nearest is '{key}'"):
        require_key("target", f"{key}x", KEYS)
