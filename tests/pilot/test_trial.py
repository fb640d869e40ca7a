"""A whole trial in small: real digits, a small network, one or two epochs a part."""

from __future__ import annotations

import csv
import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from corank import store
from corank.cost import model_cost
from corank.cut_targets import parse_target
from corank.data.batches import Batches
from corank.decision.results import read_result
from corank.errors import CorankError, FileError, InfeasibleError
from corank.pilot.digits import digits
from corank.pilot.folder import locked
from corank.pilot.options import TrialOptions
from corank.pilot.problem import Problem
from corank.pilot.trial import run_trial
from corank.plans import Plan

pytest.importorskip("sklearn", reason="the digits come with the extra `digits`")
pytest.importorskip("matplotlib", reason="the report comes with the extra `report`")


def small_network() -> nn.Module:
    network = nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1, stride=2),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1, stride=2),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 10),
    )
    network.register_buffer("tiny", torch.full((3,), 1e-40))
    return network


def problem() -> Problem:
    full = digits()
    return Problem("digits", "small", full.samples, full.classes, full.make_task, small_network, keep=("8",))


OPTIONS = TrialOptions(
    shared=1,
    before_cut=1,
    after_cut=1,
    target=parse_target("macs=0.5"),
    multiple=1,
    backends=("torch",),
    rounds=4,
    seeds=(0, 1),
    front=(0.8, 0.5),
)


@pytest.fixture(scope="module")
def trial(tmp_path_factory):
    out = tmp_path_factory.mktemp("trial")
    return run_trial(problem(), out, OPTIONS, command="test", progress=False), out


def test_the_arms_are_equal_in_all_but_force_and_cut(trial):
    result, _ = trial
    dense, lowrank, force = result["arms"]
    assert [arm["name"] for arm in result["arms"]] == ["dense", "lowrank", "force"]
    assert [arm["epochs"] for arm in result["arms"]] == [3, 3, 3]
    assert dense["history"][0] == lowrank["history"][0] == force["history"][0]
    assert dense["history"][1] == lowrank["history"][1]  # the same data in the same order until the cut
    assert dense["history"][1] != force["history"][1]
    assert dense["decomposed"] == 0
    assert dense["plan_rank_ratio"] == 1.0
    for arm in (lowrank, force):
        assert arm["decomposed"] > 0
        assert arm["macs"] <= 0.5 * dense["macs"]
        assert arm["macs"] >= 0.4 * dense["macs"]
        assert arm["plan_rank_ratio"] < 1


def test_every_figure_of_the_schema_is_there(trial):
    result, out = trial
    assert json.loads((out / "pilot.json").read_text()) == read_result(out / "pilot.json") == result
    for arm in result["arms"]:
        low, high = arm["accuracy_ci"]
        assert 0 <= low <= arm["accuracy"] <= high <= 1
        assert arm["latency_ms"]["torch"] > 0
        low, high = arm["speedup_ci"]["torch"]
        assert low <= arm["speedup"]["torch"] <= high
        assert len(arm["layers"]) == 3
        assert arm["subnormal"] == {"before_cut": 3, "final": 3}
        assert all(row["plan_rank"] or row["reason"] for row in arm["layers"])
    assert result["spread"]["seeds"] == [0, 1]
    assert [len(arm["accuracy"]) for arm in result["spread"]["arms"].values()] == [2, 2, 2]
    low, high = result["arms"][2]["force_overhead_ci"]
    assert low <= result["arms"][2]["force_overhead"] <= high
    assert "final samples" in " ".join(result["proves"])


def test_the_front_is_one_training_cut_to_several_depths(trial):
    result, _ = trial
    front, (dense, _, force) = result["front"], result["arms"]
    assert (front["arm"], front["by"], front["part"], front["epochs_after_cut"]) == (
        "force",
        "macs",
        "dev",
        1,
    )
    assert [point["share"] for point in front["points"]] == [1.0, 0.8, 0.5]
    whole, light, chosen = front["points"]
    assert [point["chosen"] for point in front["points"]] == [False, False, True]
    assert (whole["macs"], chosen["macs"]) == (dense["macs"], force["macs"])
    assert chosen["speedup"] == force["speedup"]  # of the same interleaved run
    assert force["macs"] < light["macs"] <= 0.8 * dense["macs"]
    assert whole["accuracy"] == pytest.approx(dense["history"][-1]["dev_accuracy"])
    assert chosen["accuracy"] == pytest.approx(force["history"][-1]["dev_accuracy"])
    low, high = light["accuracy_difference_ci"]
    assert low <= light["accuracy_difference"] <= high


def test_the_files_tell_the_same(trial):
    result, out = trial
    with (out / "samples.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 360
    task = problem().make_task(0)
    for arm in result["arms"]:
        hits = sum(int(row[f"{arm['name']}_correct"]) for row in rows)
        assert hits / 360 == pytest.approx(arm["accuracy"])
        model = store.load(out / arm["model_file"], small_network)
        assert task.evaluate(model, task.final)["accuracy"].value == pytest.approx(arm["accuracy"])
        assert model_cost(model, task.example).params == arm["params"]
        assert (out / arm["model_file"]).stat().st_size == arm["bytes"]
        if arm["plan_file"]:
            assert len(Plan.from_json((out / arm["plan_file"]).read_text()).layers) == arm["decomposed"]
    assert "<html" in (out / "report.html").read_text()
    assert not list(out.rglob(".*"))


def test_the_page_of_a_finished_trial_waits_for_no_one_and_is_not_written_beside_another_run(trial):
    _, out = trial
    before = (out / "report.html").read_bytes()
    with locked(out), pytest.raises(FileError, match="another run is at work in this folder"):
        run_trial(problem(), out, OPTIONS, command="test", progress=False, lang="ja")
    assert (out / "report.html").read_bytes() == before


def test_the_split_is_disjoint_and_the_same_for_every_seed():
    first, second = (problem().make_task(seed) for seed in (0, 1))
    parts = [part.images.flatten(1) for part in (first.train, first.dev, first.final)]
    assert [len(part) for part in parts] == list(problem().samples.values())
    assert torch.equal(first.final.images, second.final.images)
    keys = [{row.numpy().tobytes() for row in part} for part in parts]
    overlap = len(keys[0] & keys[2]) + len(keys[1] & keys[2])
    assert overlap == 0


def test_the_order_depends_on_seed_and_pass_alone():
    images = torch.arange(20.0)[:, None]
    one, two, other = (Batches(images, torch.arange(20), 8, seed) for seed in (0, 0, 1))
    first, second = [[y.tolist() for _, y in one] for _ in range(2)]
    assert [y.tolist() for _, y in two] == first
    assert first != second
    assert [y.tolist() for _, y in other] != first
    assert sorted(label for batch in first for label in batch) == list(range(20))
    assert len(one) == 3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"shared": -1}, "shared: allowed is a whole number of epochs from 0"),
        ({"before_cut": 0}, "before_cut: allowed is a whole number of epochs from 1"),
        ({"arms": ("lowrank", "force")}, "arms: allowed are dense and"),
        ({"arms": ("dense", "magic")}, "arms.*magic"),
        ({"seeds": (0, 0)}, "seeds: each may come once"),
        ({"rounds": 5}, "rounds: allowed is an even number"),
        ({"strength": float("nan")}, "strength: allowed is a finite number"),
        ({"learning_rate": 0.0}, "learning_rate: allowed is a number in"),
        ({"seeds": ()}, "seeds: give at least one"),
        ({"kind": "love"}, "kind.*love"),
        ({"backends": ("tensorrt",)}, "tensorrt"),
        ({"front": (1.5,)}, "front: allowed are shares"),
        ({"front": (0.5, 0.5)}, "front: each may come once"),
        ({"front": (0.5,), "target": parse_target("energy=0.9")}, "it must name one share"),
    ],
)
def test_bad_settings_stop_before_any_work(settings, message):
    with pytest.raises(CorankError, match=message):
        TrialOptions(**settings)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"schema": 99}'])
def test_a_file_that_is_no_result(tmp_path, text):
    path = tmp_path / "pilot.json"
    path.write_text(text)
    with pytest.raises(FileError, match=r"pilot\.json"):
        read_result(path)
    with pytest.raises(FileError, match="cannot be read"):
        read_result(tmp_path / "absent.json")


def test_a_front_that_cannot_be_reached_stops_before_any_work(tmp_path):
    with pytest.raises(InfeasibleError):
        run_trial(problem(), tmp_path / "out", replace(OPTIONS, front=(0.001,)), command="t", progress=False)
    assert not (tmp_path / "out").exists()


def test_another_language_than_those_there_are_stops_before_any_work(tmp_path):
    with pytest.raises(CorankError, match="lang: allowed are en, ja"):
        run_trial(problem(), tmp_path / "out", OPTIONS, command="t", progress=False, lang="xx")
    assert not (tmp_path / "out").exists()
