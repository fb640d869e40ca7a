"""One small pilot with everything that the decision can ask for, then the same one decided again."""

from __future__ import annotations

import csv
import json

import pytest

from corank.pilot.corruptions import CORRUPTIONS
from tests.cli import own
from tests.cli.running import corank

__all__ = ["corank"]  # a fixture
for package in ("kornia", "matplotlib"):
    pytest.importorskip(package, reason="drift and the page come with the extras `drift` and `report`")

SECOND = f"{own.__name__}:shifted_parts"
WORDS = ["--out", "out", "--epochs", "3", "--backend", "torch", "-q", "--target", "macs=0.9"]
WORDS += ["--data", f"{own.__name__}:pictured", "--model", f"{own.__name__}:net", "--arms", "dense,lowrank"]
WORDS += ["--recipe", "recipe.toml", "--folds", "3"]


def test_a_pilot_with_drift_folds_and_money_is_decided_and_decided_again(corank, tmp_path):
    (tmp_path / "recipe.toml").write_text(f'drift = true\nfolds = 4\nshifted = "{SECOND}"')
    (tmp_path / "costs.toml").write_text("cost_per_hour = 1\nrequests_per_day = 1e6")
    code, out, err = corank("pilot", *WORDS, "--economics", "costs.toml")
    assert code == 0, err
    assert "| drift | " in out
    assert "Money" in out
    result = json.loads((tmp_path / "out" / "pilot.json").read_text())
    dense, lowrank = result["arms"]
    assert dense["drift"] is dense["comparison"] is None
    assert lowrank["drift"]["shifted"]["samples"] == 60
    assert [row["name"] for row in lowrank["drift"]["judged"]] == [*CORRUPTIONS, SECOND]
    assert [row["name"] for row in lowrank["comparison"]["slices"]] == ["0", "1", "2", "early"]
    assert result["folds"]["samples"] == [30, 30, 30]
    low, high = result["folds"]["arms"]["lowrank"]["difference_ci"]
    assert low < high
    assert list(result["economics"]["arms"]) == ["lowrank"]
    with (tmp_path / "out" / "samples.csv").open() as file:
        rows = list(csv.DictReader(file))
    lost = [int(row["final_sample"]) for row in rows if row["dense_correct"] > row["lowrank_correct"]]
    assert lowrank["comparison"]["flips"]["lost"] == lost
    assert all((row["label"] == row["dense_prediction"]) == (row["dense_correct"] == "1") for row in rows)
    assert not (tmp_path / "out" / "work").exists()

    (tmp_path / "policy.yaml").write_text("minimum_samples: 12345678")
    code, out, err = corank("pilot", *WORDS, "--policy", "policy.yaml", "--json")
    assert code == 0, err
    again = json.loads(out)
    assert again == json.loads((tmp_path / "out" / "pilot.json").read_text())
    assert again["decision"]["checks"][0]["needs"] == 12345678
    assert again["economics"] == result["economics"]
    assert again["arms"] == result["arms"]  # nothing was trained or timed
    assert "12,345,678" in (tmp_path / "out" / "report.html").read_text()
