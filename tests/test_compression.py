"""The guarantee, with times that are made up: what a slow split does is known, and must be undone."""

from __future__ import annotations

import logging
from dataclasses import replace

import pytest
import torch
from torch import nn

from corank import compression
from corank.benchmarks.results import BenchResult, Timing
from corank.compression import compress
from corank.errors import CorankError, InfeasibleError
from corank.latency import LatencyTable, TableRow
from corank.rules import Accuracy, Budget, Energy, Latency, Ranks
from corank.store import load, save
from corank.tasks import Metric, Task
from corank.testing import networks

IMAGE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
BODY = ("body.conv1", "body.conv2")


def _network():
    torch.manual_seed(0)
    return networks.Residual(24).eval()


@pytest.fixture
def table():
    rows = []
    for name in BODY:
        rows.append(TableRow(name, "dense", 24, 4.0))
        rows += [
            TableRow(name, "filter_basis", rank, 4.0 * ratio, ratio, (ratio - 0.01, ratio + 0.01))
            for rank, ratio in ((4, 0.3), (8, 0.5), (16, 0.8))
        ]
    return LatencyTable("torch", 1, "float32", 2, 10.0, tuple(rows))


@pytest.fixture
def machine(monkeypatch):
    """Times a network as 2 ms, and for each body layer 4 ms dense or what the test says of its split."""
    costs = {name: dict.fromkeys((4, 8, 16), 0.0) for name in BODY}
    costs["body.conv1"] = {4: 1.2, 8: 2.0, 16: 3.2}
    costs["body.conv2"] = {4: 1.2, 8: 2.0, 16: 3.2}
    costs["width"] = 0.01
    costs["runs"] = []

    def time(model):
        total = 2.0
        for name in BODY:
            layer = model.get_submodule(name)
            total += costs[name][layer[0].out_channels] if isinstance(layer, nn.Sequential) else 4.0
        return total

    def bench(pair, example, *, backends, threads, rounds, seed, memory):
        costs["runs"].append(seed)
        (first, reference), (second, rival) = pair.items()
        ms, other = time(reference), time(rival)
        speedup, width = ms / other, costs["width"]
        interval = (speedup * (1 - width), speedup * (1 + width))
        peaks = (3_000_000, 2_000_000) if memory else (None, None)
        timings = (
            Timing(first, backends[0], ms, ms, ms, 1.0, (1.0, 1.0), peaks[0]),
            Timing(second, backends[0], other, other, other, speedup, interval, peaks[1]),
        )
        return BenchResult(timings, first, threads, "float32", 2, rounds, {})

    monkeypatch.setattr(compression, "bench", bench)
    return costs


def _compress(rules, table, **options):
    return compress(_network(), rules, example=IMAGE, table=table, progress=False, **options)


def test_what_pays_is_shipped_with_its_two_runs(machine, table, tmp_path):
    result = _compress(Latency(ratio=0.6), table)
    assert result.verdict.shipped, result.verdict
    assert result.verdict.faster
    assert len(result.verdict.runs) == 2
    assert len(set(machine["runs"][-2:])) == 2  # two independent runs
    assert all(run.small_ms <= 0.6 * run.dense_ms for run in result.verdict.runs)
    assert [run.peaks for run in result.verdict.runs] == [(3_000_000, 2_000_000), None]
    assert "peak memory: 2.0 MB against 3.0, in torch" in str(result.verdict)
    assert result.verdict.kept == {"Latency(ms=None, ratio=0.6)": True}
    assert all(type(part).__module__.startswith("torch.nn") for part in result.model.body.conv1.modules())
    save(result.model, tmp_path / "small.safetensors", reference=_network, plan=result.plan)
    again = load(tmp_path / "small.safetensors", _network)
    with torch.no_grad():
        assert torch.equal(again(IMAGE), result.model(IMAGE))


def test_a_split_that_is_slower_in_the_assembled_network_is_folded_back(machine, table):
    machine["body.conv1"] = dict.fromkeys((4, 8, 16), 5.0)
    result = _compress(Latency(ratio=0.9), table)
    assert result.verdict.shipped
    assert list(result.verdict.undone) == ["body.conv1"]
    assert type(result.model.body.conv1) is nn.Conv2d
    assert list(result.plan.layers) == ["body.conv2"]
    assert "times as fast without this split" in result.plan.skipped["body.conv1"]


def test_where_nothing_pays_dense_comes_back_bit_for_bit(machine, table):
    for name in BODY:
        machine[name] = dict.fromkeys((4, 8, 16), 5.0)
    result = _compress(Latency(ratio=0.6), table)
    assert not result.verdict.shipped
    assert "nothing is left of the plan" in str(result.verdict)
    assert result.plan.layers == {}
    with torch.no_grad():
        assert torch.equal(result.model(IMAGE), _network()(IMAGE))


def test_no_doubtful_gain_is_shipped(machine, table):
    machine["width"] = 0.7  # every interval reaches far below 1
    result = _compress(Latency(ratio=0.6), table)
    assert not result.verdict.shipped
    assert "not faster than dense beyond doubt" in str(result.verdict)
    assert result.attempt is not None
    assert isinstance(result.attempt.body.conv1, nn.Sequential)


def test_a_missed_target_is_planned_again_and_said(machine, table):
    machine["body.conv1"] = {4: 1.3, 8: 3.0, 16: 3.9}  # slower than the table has it
    machine["body.conv2"] = {4: 1.3, 8: 3.0, 16: 3.9}
    result = _compress(Latency(ratio=0.6), table)
    assert "planned again" in str(result.verdict)
    assert "off by +" in str(result.verdict)
    assert all(run.small_ms <= 0.6 * run.dense_ms for run in result.verdict.runs)


def test_a_target_that_stays_missed_is_said_and_what_was_gained_is_kept(machine, table):
    machine["body.conv1"] = machine["body.conv2"] = {4: 2.5, 8: 3.0, 16: 3.9}
    result = _compress(Latency(ratio=0.5), table)
    assert result.verdict.shipped
    assert result.verdict.kept == {"Latency(ms=None, ratio=0.5)": False}
    assert "no plan reaches that" in str(result.verdict)


def test_an_impossible_target_says_so_before_any_work(machine, table):
    with pytest.raises(InfeasibleError, match="limit on time cannot be kept"):
        _compress(Latency(ratio=0.1), table)
    assert machine["runs"] == []


@pytest.mark.parametrize("slow", [1.0, 1.3])
def test_a_smaller_network_may_be_as_fast_but_not_slower(machine, table, slow):
    for name in BODY:
        machine[name] = dict.fromkeys((4, 8, 16), 4.0 * slow - 0.01)
    machine["width"] = 0.001
    result = _compress(Budget(params=0.7), table)
    assert result.verdict.shipped == (slow == 1.0), result.verdict
    assert result.verdict.slower is False  # what was slower has been undone


def _task(accuracy):
    batches = [(IMAGE, torch.tensor([0, 1]))]

    def evaluate(model, loader):
        return {"accuracy": Metric(accuracy(model))}

    def loss(model, batch):
        return model(batch[0]).square().mean()

    return Task(batches, batches, batches, loss, evaluate, IMAGE)


def _is_cut(model):
    return any(isinstance(model.get_submodule(name), nn.Sequential) for name in BODY)


def test_accuracy_is_judged_after_fine_tuning(machine, table):
    good = _compress(
        [Latency(ratio=0.6), Accuracy(0.02)],
        table,
        task=_task(lambda net: 0.9 - 0.01 * _is_cut(net)),
        epochs=1,
    )
    assert good.verdict.shipped
    assert good.verdict.accuracy == (0.9, pytest.approx(0.89))
    assert good.plan.factors == "outputs"
    bad = _compress(
        [Latency(ratio=0.6), Accuracy(0.02)],
        table,
        task=_task(lambda net: 0.9 - 0.1 * _is_cut(net)),
        epochs=1,
    )
    assert not bad.verdict.shipped
    assert "Accuracy(max_drop=0.02) is missed after fine-tuning" in str(bad.verdict)
    assert _is_cut(bad.attempt)
    assert not _is_cut(bad.model)


def test_the_network_given_is_left_alone_and_nothing_is_printed(machine, table, capsys, caplog):
    caplog.set_level(logging.ERROR)
    model = _network()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    compress(
        model,
        Latency(ratio=0.6),
        example=IMAGE,
        table=table,
        task=_task(lambda net: 0.5),
        epochs=1,
        progress=False,
    )
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert type(model.body.conv1) is nn.Conv2d
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (Ranks({"stem": 2}), "compress: Ranks is an order, and compress decides by measurement"),
        ([Energy(0.9), Accuracy()], "compress: Accuracy is measured and needs task="),
    ],
)
def test_rules_that_lack_what_they_need(table, rules, message):
    with pytest.raises(CorankError, match=message):
        _compress(rules, table)


def test_a_table_in_another_precision_is_refused(table):
    with pytest.raises(CorankError, match="times are in int8, and compress races networks in float32"):
        _compress(Latency(ratio=0.6), replace(table, precision="int8"))
