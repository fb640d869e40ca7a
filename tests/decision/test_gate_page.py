"""docs/gate.md shows files that corank reads, and names every key that pilot.json has."""

from __future__ import annotations

import re
from pathlib import Path

import corank
from tests.pilot.sample import make_result
from tests.pilot.test_decision_tables import DRIFT

PAGE = (Path(__file__).parents[2] / "docs" / "gate.md").read_text()


def test_the_files_of_the_page_are_read(tmp_path):
    files = dict(re.findall(r"```(?:yaml|toml) (\S+)\n(.*?)```", PAGE, flags=re.DOTALL))
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    assert corank.Policy.read(tmp_path / "policy.yaml").stages[1].name == "canary"
    assert corank.Economics.read(tmp_path / "costs.toml").currency == "EUR"


def test_the_defaults_that_the_page_names_are_those_of_the_policy():
    policy = corank.Policy()
    for key in ("margin", "power", "minimum_samples", "minimum_speedup", "worst_slice", "drift", "memory"):
        assert f"{key} {getattr(policy, key)}" in PAGE
    for key in corank.Policy.model_fields:
        assert key in PAGE


def test_the_schema_on_the_page_names_every_key():
    result = make_result()
    force = result["arms"][2]
    told = PAGE.partition("## What pilot.json holds")[2]
    groups = [
        result["decision"],
        result["decision"]["checks"][0],
        force["comparison"],
        force["comparison"]["mcnemar"],
        force["comparison"]["slices"][0],
        force["calibration"],
        force["calibration"]["bins"][0],
        result["economics"],
        result["economics"]["arms"]["force"],
        DRIFT,
    ]
    for keys in groups:
        assert not [key for key in keys if not re.search(rf"[`.]{key}(\[\])?`", told)]
