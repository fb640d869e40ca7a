from __future__ import annotations

import json

import pytest
import torch
from torch import nn

from corank.errors import CorankError, FileError
from corank.planning import plan
from corank.plans import Plan
from corank.rules import (
    RULES,
    Accuracy,
    Budget,
    Energy,
    Error,
    Latency,
    Ranks,
    rule_from_dict,
    rule_to_dict,
)


@pytest.fixture
def made():
    net = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4))
    return plan(net, Ranks({"0": 3}, method="svd"), example=torch.ones(1, 16))


@pytest.mark.parametrize(
    "rule",
    [
        Energy(),
        Energy(0.5),
        Error(0.1),
        Ranks({"a": 3}, "svd"),
        Budget(params=0.5),
        Budget(bytes=0.5, peak_memory=0.7),
        Latency(ms=3.5),
        Latency(ratio=0.5),
        Accuracy(0.01),
    ],
)
def test_every_rule_survives_json(rule):
    assert rule_from_dict(json.loads(json.dumps(rule_to_dict(rule)))) == rule


def test_every_kind_of_rule_is_listed():
    assert set(RULES.values()) == {Energy, Error, Ranks, Budget, Latency, Accuracy}


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Energy(95), "Energy: allowed is a fraction in .0, 1., got 95. Use 0.5 for 50%"),
        (lambda: Energy(float("nan")), "Energy: allowed is a fraction"),
        (lambda: Error(1.5), "Error: allowed is a fraction"),
        (lambda: Budget(), "Budget: name what to cut"),
        (lambda: Budget(macs=0), "Budget: allowed is a fraction"),
        (lambda: Budget(peak_memory=50), "Budget: allowed is a fraction"),
        (lambda: Latency(), "Latency: give one of ms and ratio"),
        (lambda: Latency(ms=1, ratio=0.5), "Latency: give one of ms and ratio"),
        (lambda: Latency(ratio=50), "Latency: allowed is a fraction"),
        (lambda: Latency(ms=0), "Latency: allowed are milliseconds above 0, got 0"),
        (lambda: Accuracy(-0.1), "Accuracy: max_drop is a fraction in .0, 1., got -0.1"),
        (lambda: Ranks({"a": 0}), "a: a rank is a whole number from 1, got 0"),
        (lambda: Ranks({"a": 1.5}), "a: a rank is a whole number from 1, got 1.5"),
        (
            lambda: rule_from_dict({"rule": "speed"}),
            "rule: allowed are energy, error, ranks, budget, latency, accuracy; got 'speed'",
        ),
        (lambda: rule_from_dict({"rule": "energy", "share": 1}), "rule 'energy':.*share"),
    ],
)
def test_bad_rules_say_what_is_allowed(make, message):
    with pytest.raises(CorankError, match=message):
        make()


def test_a_plan_survives_json(made):
    again = Plan.from_json(made.to_json())
    assert again == made
    assert again.to_json() == made.to_json()


def test_a_plan_reads_as_a_table(made):
    text = str(made)
    assert "svd" in text
    assert "3/16" in text
    assert "left alone: not named" in text


@pytest.mark.parametrize(
    "text", ["", "[]", "{}", "null", '{"schema": 1}', "[" * 100_000, '{"schema": 1, "layers": 3}']
)
def test_what_is_not_a_plan_is_refused(text):
    with pytest.raises(FileError, match="plan: "):
        Plan.from_json(text)


def test_another_schema_is_refused(made):
    values = json.loads(made.to_json())
    with pytest.raises(FileError, match="reads schema 1, got 2. Upgrade corank"):
        Plan.from_json(json.dumps({**values, "schema": 2}))
    values["layers"]["0"]["colour"] = "red"
    with pytest.raises(FileError, match="unknown key 'colour'"):
        Plan.from_json(json.dumps(values))


def test_the_rank_ratio_counts_layers_left_alone_as_whole(made):
    assert made.rank_ratio == pytest.approx((3 / 16 + 1) / 2)
