"""The protocol of the evidence on a network of seconds: what is done stays, final is read at the end."""

from __future__ import annotations

import json
import sys

import pytest
import torch
from benchmarks.evidence_networks import Network
from torch import nn

from benchmarks import evidence, evidence_arms, evidence_plots
from corank.pilot.problem import Problem, SameTask
from corank.recovery import default_optimizer
from tests.cli import own


def _network() -> Network:
    torch.manual_seed(0)
    weights = own.net().state_dict()

    def start(*_):
        model = own.net()
        model.load_state_dict(weights)
        return model.eval()

    return Network(
        own.net,
        lambda files: Problem("own", "small", {}, (), SameTask(own.seeded(0)), own.net, keep=("6",)),
        start,
        {"screen": (0.9,), "full": (0.9, 0.8)},
        "float32",
        1.0,
    )


@pytest.fixture
def run(monkeypatch, tmp_path):
    short = {name: evidence.ARMS[name] for name in ("no force", "l2", "l2, repel", "TRP")}
    monkeypatch.setattr(evidence, "ARMS", short)
    monkeypatch.setattr(evidence, "RUNS", tmp_path)
    monkeypatch.setitem(evidence.NETWORKS, "small", _network())
    monkeypatch.setattr(
        evidence, "STAGES", {"screen": evidence.Stage(1, 1, (0,)), "full": evidence.Stage(1, 1, (0, 1))}
    )

    def call(*words):
        monkeypatch.setattr(sys, "argv", ["evidence", *words, "--network", "small", "--files", "1"])
        evidence.main()

    return call


def test_the_protocol(run, tmp_path, capsys):
    run("screen", "--arms", "TRP")
    kept = sorted(tmp_path.rglob("*.json"))
    assert [path.name for path in kept] == ["0.9.json", "0.9.json"]
    times = {path: path.stat().st_mtime_ns for path in kept}
    run("final")
    assert {path: path.stat().st_mtime_ns for path in kept} == times  # what was done is not done again
    assert not list(tmp_path.rglob("*recovery*"))
    rows = [json.loads(path.read_text()) for path in tmp_path.rglob("full/*/*.json")]
    cuts = {(row["arm"], row["cut"]) for row in rows}
    assert cuts >= {("no force", 1.0), ("no force", 0.9), ("l2", 0.8), ("l2, repel", 1.0)}
    assert ("l2, repel", 0.8) not in cuts  # it is for the accuracy of the uncut network
    assert all(row["macs"] <= row["cut"] + 1e-9 for row in rows)
    assert all(len(row["after"]) == 2 for row in rows)
    assert not any("final" in row for row in rows)  # it is read for the page alone
    page = capsys.readouterr().out
    assert "against no force (95%)" in page
    assert page.count("| TRP |") >= 3
    assert "Arms that were not run here: l1, subspace, output, " in page
    assert "Goal, a mean of at most 0.31 for at most 0.3 points" in page
    evidence_plots.draw_recovery(rows, tmp_path / "recovery.svg")
    evidence_plots.draw_ranks(rows, tmp_path / "ranks.svg")
    assert all("</svg>" in (tmp_path / f"{name}.svg").read_text() for name in ("recovery", "ranks"))


def test_the_better_trial_on_dev_is_chosen_and_the_dense_control_is_no_arm():
    rows = [
        {"arm": "a", "cut": 0.5, "strength": 1, "after": [0.9, 0.7]},
        {"arm": "a", "cut": 0.5, "strength": 2, "after": [0.1, 0.8]},
        {"arm": "b", "cut": 0.5, "strength": 3, "after": [0.2, 0.9]},
        {"arm": "no force", "cut": 1.0, "strength": 4, "after": [1.0, 1.0]},
    ]
    best = evidence.best_trials(rows)
    assert list(best) == ["b", "a"]
    assert best["a"]["strength"] == 2


def test_a_rival_lowers_the_rank_it_is_made_for():
    def train(make):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.Flatten(), nn.Linear(16, 2))
        optimizer = default_optimizer(model, 0.05)
        rival = make(model)
        rival.attach(optimizer)
        for _ in range(20):
            loss = nn.functional.cross_entropy(model(torch.randn(8, 3, 3, 3)), torch.arange(8) % 2)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        rival.detach()
        assert not optimizer._optimizer_step_pre_hooks
        assert not optimizer._optimizer_step_post_hooks
        return torch.linalg.svdvals(model[0].weight.detach().flatten(1))

    def start(strength):
        return lambda model: evidence_arms.Start(model, strength, 20, lambda: None)

    plain = train(lambda model: evidence_arms.NuclearNorm(start(0.0)(model)))
    nuclear = train(lambda model: evidence_arms.NuclearNorm(start(0.05)(model)))
    cut = train(lambda model: evidence_arms.Truncation(start(0.8)(model)))
    assert nuclear.sum() < 0.9 * plain.sum()
    assert (cut > 1e-5).sum() < (plain > 1e-5).sum()
