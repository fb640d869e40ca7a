"""Every example runs its whole road in a tiny form, and its networks are what the page says."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import pytest
import torch
from benchmarks.cifar import SHARED
from examples.page import body, measure_arms
from examples.study import make_arms
from torch import nn

import corank
from examples import alarms, detection, reading, search, segmentation, vowels

pytestmark = pytest.mark.shared

TINY = {
    "detection": replace(
        detection.STUDY, make=partial(detection.Detector, 24), task=partial(detection.task, files=3)
    ),
    "segmentation": replace(
        segmentation.STUDY, make=partial(segmentation.UNet, 8), task=partial(segmentation.task, tiles=4)
    ),
    "vowels": replace(vowels.STUDY, make=partial(vowels.make, 16)),
    "reading": replace(reading.STUDY, make=partial(reading.Reader, 16), task=partial(reading.task, lines=16)),
    "alarms": replace(alarms.STUDY, make=partial(alarms.make, 16), task=partial(alarms.task, images=500)),
}
NEEDS = {"detection": "bccd", "segmentation": "membrane", "reading": "mnist", "alarms": "mnist"}


def tiny(name):
    if name in NEEDS and not (SHARED / NEEDS[name]).exists():
        pytest.skip(f"{SHARED / NEEDS[name]} is not here")
    if name == "vowels":
        pytest.importorskip("aeon", reason="the series come with aeon: pip install --no-deps aeon==1.6.0")
    if name == "detection":
        pytest.importorskip("faster_coco_eval", reason="the extra detection")
    rules = TINY[name].rules if name == "alarms" else corank.Energy(0.5)  # so narrow, no budget can be kept
    return replace(TINY[name], epochs=(1, 1, 1), rules=rules)


@pytest.fixture(autouse=True)
def few_resamples(monkeypatch):
    monkeypatch.setattr("corank.decision.intervals.RESAMPLES", 20)


@pytest.mark.parametrize("name", TINY)
def test_an_example_trains_resumes_and_writes_its_page(name, tmp_path):
    study = tiny(name)
    arms = make_arms(study, tmp_path)
    again = make_arms(study, tmp_path)
    for one, other in zip(arms.values(), again.values(), strict=True):  # loaded, not trained anew
        assert all(torch.equal(*pair) for pair in zip(one.parameters(), other.parameters(), strict=True))
    plan = corank.Plan.from_json((tmp_path / study.name / "force_plan.json").read_text())
    found = measure_arms(study, arms, engines=("torch",), rounds=2)
    dense, _, force = found["arms"]
    assert force["macs"] == plan.after.macs
    assert dense["macs"] == plan.before.macs
    assert found["decision"]["verdict"] in ("hold", "roll back")  # so few samples prove nothing good
    assert found["decision"]["checks"][0]["name"] == found["protocol"]["metric"]["name"]
    page = body(study, found, {"force": plan})
    assert found["decision"]["sentence"] in page
    assert all(reason in page for reason in plan.skipped.values())


def test_recurrent_layers_are_left_alone_with_a_reason():
    model = reading.Reader(16).eval()
    plan = corank.plan(model, corank.Energy(0.5), example=torch.zeros(1, 1, 28, 112))
    assert "GRU is not a convolution or a linear layer" in plan.skipped["read"]
    assert any(name.startswith("look.") for name in plan.layers)


def test_transposed_convolutions_are_cut():
    model = segmentation.UNet(16).eval()
    plan = corank.plan(model, corank.Ranks({"up.*": 4}), example=torch.zeros(1, 1, 32, 32))
    small = corank.decompose(model, plan)
    assert isinstance(small.up[0], nn.Sequential)
    assert small(torch.zeros(2, 1, 32, 32)).shape == (2, 32, 32)


def test_recall_plans_and_gates():
    if not (SHARED / "mnist").exists():
        pytest.skip(f"{SHARED / 'mnist'} is not here")
    torch.manual_seed(0)
    task, model = alarms.task(0, images=500), alarms.make(16)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    corank.finetune(model, task.train, epochs=4, loss=task.loss, optimizer=optimizer, progress=False)

    def recall(network):
        return alarms.evaluate(network, task.dev)["recall"].value

    rule = corank.Accuracy(max_drop=0.1)
    stats = corank.calibrate(model, list(task.train), forward=task.loss)
    plan = corank.plan(model, rule, example=task.example, stats=stats, evaluate=recall)
    assert plan.layers
    assert recall(corank.decompose(model, plan, stats)) >= recall(model) - 0.1

    harmed = alarms.make(16).eval()  # knows nothing
    found = measure_arms(
        alarms.STUDY, {"dense": model, "lowrank": harmed}, engines=("torch",), rounds=2, task=task
    )
    (judged,) = (one for one in found["decision"]["checks"] if one["name"] == "recall")
    final = [alarms.evaluate(one, task.final)["recall"].value for one in (model, harmed)]
    assert judged["measured"] == pytest.approx(final[0] - final[1])
    assert judged["measured"] > judged["limit"]
    assert judged["outcome"] != "advance"


class Words(nn.Module):
    """What the encoder's BERT is to `search.Encoder`, small and untrained."""

    def __init__(self):
        super().__init__()
        transformers = pytest.importorskip("transformers", reason="the extra transformers")
        config = transformers.BertConfig(
            vocab_size=50, hidden_size=64, num_hidden_layers=1, num_attention_heads=2, intermediate_size=256
        )
        self.bert = transformers.BertModel(config)

    def forward(self, input_ids, attention_mask):
        return self.bert(input_ids=input_ids, attention_mask=attention_mask)


def test_the_encoder_is_cut_by_measured_time(tmp_path, monkeypatch):
    torch.manual_seed(0)
    words = torch.randint(0, 50, (16, 12))
    batch = ({"input_ids": words, "attention_mask": torch.ones_like(words)}, torch.arange(8))
    task = corank.Task([batch], [batch], [batch], search.loss, search.evaluate, batch[0])
    monkeypatch.setattr(search, "BACKEND", "torch")
    monkeypatch.setattr(search, "TIME_BUDGET", 1.0)
    study = replace(
        search.STUDY,
        make=lambda: search.Encoder(Words()).eval(),
        task=lambda _: task,
        rules=corank.Energy(0.3),
    )
    arms = make_arms(study, tmp_path)
    plan = corank.Plan.from_json((tmp_path / "search" / "lowrank_plan.json").read_text())
    assert plan.table is not None
    assert set(arms) == {"dense", "lowrank"}
    found = measure_arms(study, arms, engines=("torch",), rounds=2)
    assert found["arms"][1]["macs"] == plan.after.macs
