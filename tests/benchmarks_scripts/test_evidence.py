"""The protocol of the evidence on a network of seconds: what is done stays, final is read at the end."""

from __future__ import annotations

import json
import shutil
import sys

import pytest
import torch
from benchmarks.evidence_cuts import DENSE, cut_rules
from benchmarks.evidence_networks import Network
from torch import nn

from benchmarks import evidence, evidence_arms, evidence_page, evidence_plots, evidence_times, record
from corank.files import write_text
from corank.latency import LatencyTable, TableRow
from corank.pilot.problem import Problem, SameTask
from corank.recovery import default_optimizer
from tests.cli import own


def _network(shared: bool = False) -> Network:
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
        {"screen": cut_rules(0.9), "full": cut_rules(0.9, 0.8, time=0.9 if shared else None)},
        "float32",
        "A caveat." if shared else "",
        shared,
    )


def _table(model, example, **terms):
    """Times of a machine on which a rank takes its share of the dense layer."""
    convolution = [
        TableRow("2", "input_basis", rank, 0.1 * rank, 0.1 * rank, (0.09 * rank, 0.11 * rank))
        for rank in range(1, 8)
    ]
    rows = (TableRow("2", "dense", 8, 1.0), *convolution, TableRow("0", "dense", 8, 0.1))
    return LatencyTable(terms["backend"], terms["threads"], "float32", len(example), 1.2, rows)


@pytest.fixture
def run(monkeypatch, tmp_path):
    short = {name: evidence.ARMS[name] for name in ("no force", "l2", "l2, repel", "TRP")}
    monkeypatch.setattr(evidence, "ARMS", short)
    monkeypatch.setattr(evidence, "RUNS", tmp_path)
    for module in (evidence, evidence_page, record):
        monkeypatch.setattr(module, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(evidence_times.corank, "latency_table", _table)
    monkeypatch.setattr(evidence_times, "ROUNDS", 2)
    monkeypatch.setitem(evidence.NETWORKS, "small", _network())
    monkeypatch.setitem(evidence.NETWORKS, "large", _network(shared=True))
    monkeypatch.setattr(
        evidence, "STAGES", {"screen": evidence.Stage(1, 1, (0,)), "full": evidence.Stage(1, 1, (0, 1))}
    )

    def call(*words, network="small"):
        rest = ["--files", "1"] if network == "small" else []
        monkeypatch.setattr(sys, "argv", ["evidence", *words, "--network", network, *rest])
        evidence.main()

    return call


def test_the_protocol(run, tmp_path, capsys):
    run("screen", "--arms", "TRP")
    kept = sorted(tmp_path.rglob("*.json"))
    assert [path.name for path in kept] == ["0.9.json", "0.9.json"]
    times = {path: path.stat().st_mtime_ns for path in kept}
    with pytest.raises(SystemExit, match="Left of it: no_force-0.01-0-0, 1; "):
        run("full")
    run("screen")
    run("full")
    assert {path: path.stat().st_mtime_ns for path in kept} == times  # what was done is not done again
    assert not list(tmp_path.rglob("*recovery*"))
    with pytest.raises(SystemExit, match="Nothing to train: here are "):
        run("full", "--seeds", "7")
    rows = [json.loads(path.read_text()) for path in tmp_path.rglob("full/*/*.json")]
    cuts = {(row["arm"], row["cut"]) for row in rows}
    assert cuts >= {("no force", DENSE), ("no force", "0.9"), ("l2", "0.8"), ("l2, repel", DENSE)}
    assert ("l2, repel", "0.8") not in cuts  # it is for the accuracy of the uncut network
    assert all(row["macs"] <= float(row["cut"]) + 1e-9 for row in rows)
    assert all(len(row["after"]) == 2 for row in rows)
    assert not list(tmp_path.rglob("*-final.json"))  # it is read by a command of its own
    capsys.readouterr()
    run("final")
    page = capsys.readouterr().out
    assert len(list(tmp_path.rglob("full/*/*-final.json"))) == len(rows)
    assert not list(tmp_path.rglob("screen/*/*-final.json"))
    assert "Not finished" not in page
    assert "against no force (95%)" in page
    assert page.count("| TRP |") >= 3
    assert "Arms that were not run here: l1, subspace, output, " in page
    assert "Goal, a mean of at most 0.31 for at most 0.3 points" in page
    evidence_plots.draw_recovery(rows, tmp_path / "recovery.svg")
    evidence_plots.draw_ranks(rows, tmp_path / "ranks.svg")
    assert all("</svg>" in (tmp_path / f"{name}.svg").read_text() for name in ("recovery", "ranks"))


def test_trainings_of_hours_are_shared_out_over_machines(run, tmp_path):
    run("screen", network="large")
    rows = tmp_path / "results" / "evidence_large"
    assert sorted({path.parts[-3] for path in rows.rglob("*.json")}) == ["screen"]
    run("final", network="large")
    page = (tmp_path / "results" / "evidence_large.md").read_text()
    assert "22 of 22 networks" in page
    assert "A caveat." in page
    assert "## Recovery" not in page
    with pytest.raises(SystemExit, match="run the stage `table` first, on an idle machine"):
        run("full", "--seeds", "0", "--arms", "no force", network="large")
    run("table", network="large")
    with pytest.raises(SystemExit, match="is there already"):
        run("table", network="large")
    run("full", "--seeds", "0", "--arms", "no force", "l2, repel", network="large")
    assert {path.parent.name[-1] for path in rows.rglob("full/*/*.json")} == {"0"}
    run("final", network="large")
    page = (tmp_path / "results" / "evidence_large.md").read_text()
    assert "**Not finished: 17 of 22 networks are not trained and read yet.**" in page
    assert page.count("| no force | 0.8 | 1 |") == 1
    final = {path: path.read_text() for path in rows.rglob("*-final.json")}
    assert len(final) == 5
    assert "Measured time" not in page  # l2 and TRP are not there yet
    shutil.rmtree(tmp_path / "evidence")  # another machine
    run("full", "--seeds", "0", "--arms", "TRP", network="large")
    run("final", network="large")
    page = (tmp_path / "results" / "evidence_large.md").read_text()
    assert "**Not finished: 14 of 22 networks are not trained and read yet.**" in page
    assert page.count("| TRP | 0.8 | 1 |") == 1
    assert all(path.read_text() == text for path, text in final.items())  # read once


def test_a_network_that_is_not_here_is_not_in_the_table_of_final_nor_timed(run, tmp_path):
    run("screen", network="large")
    run("table", network="large")
    run("full", "--seeds", "0", network="large")
    away = (tmp_path / "evidence").rename(tmp_path / "away")
    run("final", network="large")
    page = (tmp_path / "results" / "evidence_large.md").read_text()
    table, courses = page.split("## Recovery")
    assert "| no force | 0.8 |" not in table
    assert "| no force | 0.8 |" in courses
    assert "22 of 22 networks are not trained and read yet" in page
    assert "Measured time" not in page
    away.rename(tmp_path / "evidence")
    run("final", network="large")
    page = (tmp_path / "results" / "evidence_large.md").read_text()
    assert "| no force | 0.8 | 1 |" in page.split("## Recovery")[0]
    times = page.split("## Measured time")[1].split("## ")[0]
    assert "| arm | onnxruntime | torch |" in times
    assert all(f"| {arm} |" in times for arm in ("no force", "l2", "TRP"))


def test_torchaos_arm_is_left_out_without_it_unless_it_was_run_elsewhere(run, monkeypatch):
    arms = {name: evidence_arms.ARMS[name] for name in ("no force", "torchao PAT")}
    monkeypatch.setattr(evidence, "ARMS", arms)
    monkeypatch.setattr(evidence.importlib.util, "find_spec", lambda name: None)
    runner = evidence.Runner("large", "screen", evidence.RUNS)
    assert evidence.able_arms(runner) == ["no force"]
    for job in runner.jobs(evidence.screened(["torchao PAT"])):
        write_text(runner._row(*job), "{}")
    assert evidence.able_arms(runner) == ["no force", "torchao PAT"]


def test_whether_a_lower_rank_ends_higher():
    rows = [
        {"cut": "0.5", "rank_ratio": one, "output_ratio": 0.5, "after": [1 - one, one]}
        for one in (0.1, 0.2, 0.3, 0.4)
    ]
    dense = {"cut": DENSE, "rank_ratio": 0.9, "output_ratio": 0.9, "after": [1.0, 1.0]}
    told = evidence_page.rank_use([*rows, dense])
    assert told.startswith("Over the 4 trials")
    assert "| of the weights | -1.00 | +1.00 |" in told
    assert "| of the outputs | all alike | all alike |" in told


def test_seeds_on_one_image_are_no_more_images():
    one = [{"seed": seed, "final": "1" * 60 + "0" * 40} for seed in range(3)]
    other = [{"seed": seed, "final": "1" * 50 + "0" * 50} for seed in range(3)]
    single, thrice = (evidence_page.paired(one[:count], other[:count]) for count in (1, 3))
    assert thrice.split(";")[0] == single.split(";")[0]
    assert thrice.endswith("by seed +10.00, +10.00, +10.00")
    assert evidence_page.paired(one, []) == ""
    assert "*" in evidence_page.paired(one, other, comparisons=2)
    assert "*" not in evidence_page.paired(one, other, comparisons=1000)


def test_what_is_done_every_few_steps_is_done_in_a_short_training_too():
    assert [evidence_arms.Start(None, 0.0, steps, None).every(20) for steps in (1000, 36, 3)] == [20, 5, 1]


def test_the_spectrum_of_outputs_is_that_of_their_covariance():
    torch.manual_seed(0)
    layer = nn.Conv2d(2, 3, 1)
    with torch.no_grad():
        layer.weight[2] = layer.weight[0] + layer.weight[1]
    images = torch.randn(8, 2, 4, 4)
    (row,) = evidence.output_spectrum(nn.Sequential(layer), [images])
    columns = layer(images).detach().transpose(0, 1).flatten(1).double()
    expected = torch.linalg.eigvalsh(torch.cov(columns, correction=0)).flip(0)
    assert torch.allclose(row.singular_values[0] ** 2, expected.clamp(min=0), atol=1e-6)
    assert row.rank(0.999999) == 2


def test_the_better_trial_on_dev_is_chosen_and_the_dense_control_is_no_arm():
    rows = [
        {"arm": "a", "cut": "0.5", "strength": 1, "after": [0.9, 0.7]},
        {"arm": "a", "cut": "0.5", "strength": 2, "after": [0.1, 0.8]},
        {"arm": "b", "cut": "0.5", "strength": 3, "after": [0.2, 0.9]},
        {"arm": "no force", "cut": DENSE, "strength": 4, "after": [1.0, 1.0]},
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


def test_the_best_four_go_on_and_no_force_at_their_learning_rate():
    terms = [("no force", 0.01, 0.9), ("no force", 0.02, 0.8), *((name, 0.02, 0.7) for name in "abcde")]
    rows = [
        {"arm": arm, "cut": "0.5", "learning_rate": rate, "strength": 0.1, "after": [0.0, end]}
        for arm, rate, end in terms
    ]
    rows.append({"arm": "l2, repel", "cut": DENSE, "learning_rate": 0.02, "strength": 0.1, "after": [0.1]})
    found = evidence.chosen(rows)
    assert [arm for arm, *_ in found] == ["no force", "a", "b", "c", "d", "l2, repel"]
    assert found[0] == ["no force", 0.02, 0.1]
