"""A trial on a problem of one's own: inputs by name, several metrics, trained weights, measured time."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from safetensors.torch import save_file
from torch.utils.data import DataLoader

from corank import store
from corank.cut_targets import parse_target
from corank.pilot.arms import Trainer, distills
from corank.pilot.folder import is_same
from corank.pilot.identity import identity_of
from corank.pilot.options import TrialOptions
from corank.pilot.problem import Problem, SameTask
from corank.pilot.problems import make_problem
from corank.pilot.trial import run_trial
from corank.replay import set_seed
from corank.tasks import cross_entropy
from tests.cli import own

pytest.importorskip("matplotlib", reason="the report comes with the extra `report`")
OPTIONS = TrialOptions(
    arms=("dense", "lowrank", "force_plan"),
    shared=1,
    before_cut=1,
    after_cut=1,
    target=parse_target("macs=0.9"),
    multiple=1,
    backends=("torch",),
    rounds=4,
)


def test_inputs_by_name_and_several_metrics(tmp_path):
    problem = make_problem("own", "named", own.Named, task=own.named, keep=("net.6",))
    result = run_trial(problem, tmp_path, OPTIONS, command="test", progress=False)
    assert result["protocol"]["samples"] == {"train": 60, "dev": 30, "final": 30}
    assert result["protocol"]["metric"] == {"name": "log_loss", "higher_is_better": False, "share": False}
    for arm in result["arms"]:
        assert list(arm["metrics"]) == ["log_loss", "accuracy", "worst"]
        low, high = arm["metrics"]["log_loss"]["ci"]
        assert low < arm["accuracy"] == arm["metrics"]["log_loss"]["value"] < high
        assert arm["metrics"]["worst"]["ci"] is None
        model = store.load(tmp_path / arm["model_file"], own.Named)
        again = own.regression_metrics(model, own.named(0).final)
        assert again["log_loss"].value == pytest.approx(arm["accuracy"])
    cut = result["arms"][1]
    difference = cut["accuracy"] - result["arms"][0]["accuracy"]
    assert cut["accuracy_difference"] == pytest.approx(difference)
    page = (tmp_path / "report.html").read_text()
    assert "All metrics on the final samples" in page
    assert "Log_loss" in page
    assert "log_loss against" in result["summary"][0] or "log_loss" in result["summary"][0]
    assert (tmp_path / "samples.csv").read_text().startswith("final_sample,dense_value,lowrank_value")


def test_every_arm_starts_at_the_trained_weights(tmp_path):
    pytest.importorskip("onnxscript", reason="files for ONNX Runtime come with the extra `onnx`")
    torch.manual_seed(3)
    save_file(own.net().state_dict(), tmp_path / "a.safetensors")
    problem = make_problem(
        "own", "net", own.net, task=own.TASK, weights=tmp_path / "a.safetensors", keep=("6",)
    )
    target = parse_target("latency=1,backend=torch,time_budget=2")
    options = TrialOptions(
        arms=("dense", "lowrank"), before_cut=1, after_cut=1, target=target, backends=("torch",), rounds=4
    )
    result = run_trial(problem, tmp_path / "out", options, command="test", progress=False)
    assert [[row["phase"] for row in arm["history"]] for arm in result["arms"]] == [
        ["before_cut", "after_cut"]
    ] * 2
    assert result["protocol"]["epochs"]["shared"] == 0
    assert result["protocol"]["target"] == {"latency": 1.0, "backend": "torch", "time_budget": 2.0}
    assert result["identity"]["weights"]
    plan = json.loads((tmp_path / "out" / "plans" / "lowrank.json").read_text())
    assert plan["table"]  # its digest: the plan was made from measured time
    assert result["arms"][0]["history"][0]["loss"] == result["arms"][1]["history"][0]["loss"]


def test_arms_without_force_are_one_training_up_to_the_cut(tmp_path):
    steps = []

    def loss(model, batch):
        if torch.is_grad_enabled():
            steps.append(len(batch[1]))
        return cross_entropy(model, batch)

    task = replace(own.seeded(0), loss=loss)
    problem = Problem("own", "net", {}, (), SameTask(task), own.net, keep=("6",))
    options = TrialOptions(
        arms=("dense", "lowrank", "force"),
        shared=1,
        before_cut=2,
        after_cut=3,
        target=parse_target("macs=0.9"),
        multiple=1,
        precision="bfloat16",
    )
    trainer = Trainer(problem, 0, options, tmp_path, progress=False)
    set_seed(0)
    start = trainer.make_start()
    arms = [trainer.make_arm(name, start) for name in options.arms]
    assert sum(steps) == 60 * (1 + 2 + 3 + 3 + 2 + 3)
    assert [len(arm.history) for arm in arms] == [6, 6, 6]
    assert arms[0].history[:3] == arms[1].history[:3] != arms[2].history[:3]
    # what is found finished is what an arm alone would have trained
    alone = Trainer(problem, 0, options, tmp_path / "alone", progress=False)
    set_seed(0)
    again = alone.make_arm("lowrank", alone.make_start())
    assert again.history == arms[1].history
    assert all(
        torch.equal(a, b) for a, b in zip(again.model.parameters(), arms[1].model.parameters(), strict=True)
    )


def test_a_stop_right_after_the_cut_shifts_no_generator_that_the_loaders_share(tmp_path):
    options = TrialOptions(
        arms=("dense", "lowrank"),
        shared=1,
        before_cut=1,
        after_cut=1,
        target=parse_target("macs=0.9"),
        multiple=1,
    )

    def run(folder, watch=None):
        train, dev, final = own.parts()
        shared = torch.Generator().manual_seed(0)  # of train, and of dev, whose passes draw from it too
        loaders = DataLoader(train, 16, shuffle=True, generator=shared), DataLoader(dev, 16, generator=shared)
        task = replace(own.make(train, dev, final), train=loaders[0], dev=loaders[1])
        problem = Problem("own", "net", {}, (), SameTask(task), own.net, keep=("6",))
        trainer = Trainer(problem, 0, options, folder, progress=False, watch=watch)
        set_seed(0)
        return trainer.make_arm("lowrank", trainer.make_start())

    def stop(arm):
        if arm.plan is not None:
            raise KeyboardInterrupt

    whole = run(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "stopped", stop)
    assert (tmp_path / "stopped" / "lowrank" / "cut.safetensors").exists()
    assert run(tmp_path / "stopped").history == whole.history


def test_what_would_change_the_networks_tells_two_problems_apart(tmp_path):
    image_module = pytest.importorskip("PIL.Image", reason="images come with the extra `images`")
    for folder, value in (("a", 0), ("b", 100)):
        for number in range(20):
            path = tmp_path / folder / "data" / "xy"[number % 2] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            image_module.new("RGB", (4, 4), (value + number,) * 3).save(path)

    def identity(folder="a", **terms):
        problem = make_problem(f"folder:{tmp_path / folder / 'data'}", "net", own.net, **terms)
        return identity_of(problem, TrialOptions().to_dict())

    base = identity()
    assert identity(batch_size=64, latency_batch=16) == base
    # begun by a version that did not hold them
    assert is_same({key: value for key, value in base.items() if key != "data_digest"}, base)
    for other in (identity("b"), identity(batch_size=32), identity(latency_batch=8)):
        assert not is_same(base, other)
    assert identity("b")["data"] == base["data"]
    digits = [make_problem("digits", "", None, **terms).terms for terms in ({}, {"batch_size": 32})]
    assert digits == [{}, {"batch_size": 32}]


def test_after_the_cut_a_classification_follows_itself_and_no_other_task_does(tmp_path):
    options = TrialOptions(arms=("dense", "lowrank"), shared=1, target=parse_target("macs=0.9"), multiple=1)
    assert distills(options, own.TASK)
    assert not distills(replace(options, distill=False), own.TASK)
    assert not distills(options, own.named(0))
    losses = {}
    for distill in (True, False):
        problem = Problem("own", "net", {}, (), SameTask(own.seeded(0)), own.net, keep=("6",))
        short = replace(options, before_cut=1, after_cut=1, distill=distill)
        trainer = Trainer(problem, 0, short, tmp_path / str(distill), progress=False)
        set_seed(0)
        losses[distill] = [row["loss"] for row in trainer.make_arm("lowrank", trainer.make_start()).history]
    assert losses[True][:2] == losses[False][:2]
    assert losses[True][2] != losses[False][2]
