"""Plans from measured time; the times are made up, so that the right answer is known."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
import torch
from torch import nn

from corank.candidates import find_candidates
from corank.decomposition import decompose
from corank.errors import CorankError, InfeasibleError
from corank.latency import LatencyTable, TableRow
from corank.planning import plan
from corank.plans import Plan
from corank.rules import Accuracy, Budget, Energy, Latency, Ranks
from corank.sensitivities import sensitivity
from tests.residuals import decaying_residual

IMAGE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
CONVS = ("stem", "body.conv1", "body.conv2")


@pytest.fixture
def model():
    return decaying_residual()


def _row(layer, method, rank, ms, dense):
    ratio = ms / dense
    return TableRow(layer, method, rank, ms, ratio, (ratio * 0.95, ratio * 1.05))


def _table(whole=10.0, stem=1.0, body=4.0):
    rows = []
    for name, dense in (("stem", stem), ("body.conv1", body), ("body.conv2", body)):
        rows.append(TableRow(name, "dense", 24, dense))
        for rank in (4, 8, 12, 16, 20, 24):
            slower = 1.2 if name == "stem" else 0.0
            rows.append(_row(name, "filter_basis", rank, dense * (slower + 0.2 + 0.04 * rank), dense))
            if name != "stem":
                rows.append(_row(name, "spatial", rank, dense * (0.1 + 0.04 * rank), dense))
    return LatencyTable("torch", 1, "float32", 2, whole, tuple(rows), {"head": "too small to time"})


def test_a_latency_is_kept_in_predicted_time_and_the_table_is_recorded(model):
    table = _table()
    made = plan(model, Latency(ratio=0.6), example=IMAGE, table=table)
    assert made.table == table.digest
    assert made.ms_before == 10.0
    assert made.ms_after <= 6.0
    gained = sum(choice.ms_before - choice.ms_after for choice in made.layers.values())
    assert made.ms_after == pytest.approx(10.0 - gained)
    assert made.skipped["head"] == "too small to time"
    assert "no split pays in torch: the fastest measured, filter_basis at rank 4" in made.skipped["stem"]
    assert Plan.from_json(made.to_json()) == made
    assert "times as fast" in str(made)
    decompose(model, made)


def test_milliseconds_and_a_ratio_say_the_same(model):
    by_ratio = plan(model, Latency(ratio=0.6), example=IMAGE, table=_table())
    assert plan(model, Latency(ms=6.0), example=IMAGE, table=_table()).layers == by_ratio.layers


@pytest.mark.parametrize("ratio", [0.5, 0.6, 0.75])
def test_no_other_choice_of_measured_splits_loses_less(model, ratio):
    table = _table()
    made = plan(model, Latency(ratio=ratio), example=IMAGE, table=table)
    methods = {name: ["filter_basis", "spatial"] for name in ("body.conv1", "body.conv2")}
    candidates = find_candidates(model, IMAGE, methods).layers
    kept = {(n, one.method.name): one for n in methods for one in candidates[n]}

    def lost(name, row):
        energy = kept[name, row.method].choice(row.rank).energy
        return -torch.tensor(energy).clamp(min=1e-12).log().item()

    best = min(
        sum(lost(name, row) if row else 0.0 for name, row in zip(methods, rows, strict=True))
        for rows in product(*([None, *table.splits(name)] for name in methods))
        if 10.0 - sum(4.0 - row.ms for row in rows if row) <= ratio * 10.0 + 1e-9
    )
    mine = sum(lost(name, row) for name, row in made.layers.items())
    assert mine == pytest.approx(best, rel=1e-3, abs=1e-6)


def test_a_split_that_does_not_pay_in_time_is_not_made_whatever_it_saves(model):
    rows = [row for row in _table().rows if row.method == "dense"]
    rows += [
        _row(name, "filter_basis", 4, 1.01 * row.ms, row.ms)
        for name in CONVS
        for row in rows
        if row.layer == name
    ]
    table = replace(_table(), rows=tuple(rows))
    made = plan(model, Energy(0.01), example=IMAGE, table=table)
    assert not made.layers
    with pytest.raises(InfeasibleError, match="limit on multiply-accumulates cannot be kept"):
        plan(model, Budget(macs=0.5), example=IMAGE, table=table)


def test_an_interval_that_reaches_one_does_not_pay(model):
    rows = tuple(
        replace(row, ratio_ci=(row.ratio_ci[0], max(row.ratio_ci[1], 1.0))) if row.method != "dense" else row
        for row in _table().rows
    )
    assert not plan(model, Energy(0.01), example=IMAGE, table=replace(_table(), rows=rows)).layers


def test_an_impossible_latency_carries_the_fastest_plan(model):
    with pytest.raises(
        InfeasibleError, match=r"limit on time cannot be kept: .* predicted to take"
    ) as caught:
        plan(model, Latency(ratio=0.1), example=IMAGE, table=_table())
    best = caught.value.best_plan
    assert {choice.rank for choice in best.layers.values()} == {4}
    assert {choice.method for choice in best.layers.values()} == {"spatial"}


def test_two_limits_that_can_each_be_kept_but_not_together(model):
    # the one rank that is fast saves few parameters, the one that saves them is hardly faster than dense
    rows = [row for row in _table().rows if row.method == "dense"]
    for name in ("body.conv1", "body.conv2"):
        rows += [_row(name, "filter_basis", 18, 1.0, 4.0), _row(name, "filter_basis", 2, 3.0, 4.0)]
    table = replace(_table(), rows=tuple(rows))
    alone = [Latency(ratio=0.5), Budget(params=0.5)]
    for rule in alone:
        plan(model, rule, example=IMAGE, table=table)
    with pytest.raises(InfeasibleError, match="limits on time and parameters can each be kept, but not tog"):
        plan(model, alone, example=IMAGE, table=table)


def test_layers_that_sum_to_more_than_the_whole_are_scaled(model):
    made = plan(model, Latency(ratio=0.7), example=IMAGE, table=_table(whole=4.5))
    assert 0 < made.ms_after <= 0.7 * 4.5


def test_energy_alone_takes_the_fastest_split_that_keeps_it(model):
    made = plan(model, Energy(0.9), example=IMAGE, table=_table())
    table = _table()
    for name, choice in made.layers.items():
        assert choice.energy >= 0.9
        candidates = [row for row in table.splits(name) if row.ms < choice.ms_after]
        for row in candidates:  # every faster one keeps too little
            order = plan(model, Ranks({name: row.rank}, row.method), example=IMAGE)
            assert order.layers[name].energy < 0.9


def test_a_methods_table_may_be_narrowed(model):
    made = plan(model, Latency(ratio=0.8), example=IMAGE, table=_table(), methods={"body.*": "filter_basis"})
    assert {choice.method for choice in made.layers.values()} == {"filter_basis"}


def test_an_order_is_timed_by_the_table(model):
    made = plan(model, Ranks({"stem": 24, "body.conv1": 6}), example=IMAGE, table=_table())
    assert made.layers["stem"].note == "ordered past break-even: saves no time"
    assert made.layers["body.conv1"].ms_after == pytest.approx(4.0 * (0.2 + 0.04 * 6))  # between 4 and 8
    assert made.ms_after == pytest.approx(10 - (4 - 4 * 0.44) + (1.0 * (1.4 + 0.04 * 24) - 1))


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (Latency(ratio=0.5), r"Latency is kept in measured time and needs a table.*corank.latency_table"),
        (Accuracy(), "Accuracy is measured and needs evaluate="),
    ],
)
def test_a_rule_without_what_it_needs(model, rules, message):
    with pytest.raises(CorankError, match=message):
        plan(model, rules, example=IMAGE)


def _agreement(model):
    """The share of outputs that keep their sign: an accuracy that falls as the network is cut."""
    x = torch.randn(64, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        truth = model(x) > 0
        return lambda net: (truth == (net(x) > 0)).float().mean().item()


def test_accuracy_takes_the_cheapest_plan_that_is_accurate_enough(model):
    evaluate = _agreement(model)
    seen = []

    def noted(net):
        seen.append(evaluate(net))
        return seen[-1]

    made = plan(model, Accuracy(0.05), example=IMAGE, evaluate=noted)
    assert evaluate(decompose(model, made)) >= 0.95
    loose = plan(model, Accuracy(0.3), example=IMAGE, evaluate=evaluate)
    assert loose.after.macs <= made.after.macs < made.before.macs
    assert len(seen) <= 10
    assert plan(model, Accuracy(0.0), example=IMAGE, evaluate=lambda net: float(net is model)).layers == {}


def test_a_cut_network_is_refitted_before_it_is_judged(model):
    refitted = []
    plan(
        model,
        [Budget(macs=0.6), Accuracy(0.9)],
        example=IMAGE,
        evaluate=lambda net: 1.0 if net is model or any(net is one for one in refitted) else 0.0,
        refit=refitted.append,
    )
    assert len(refitted) == 1


def test_limits_that_leave_no_accurate_plan(model):
    with pytest.raises(InfeasibleError, match="still loses more accuracy than allowed") as caught:
        plan(
            model, [Budget(macs=0.4), Accuracy(0.0)], example=IMAGE, evaluate=lambda net: float(net is model)
        )
    assert caught.value.best_plan.after.macs <= 0.4 * caught.value.best_plan.before.macs


def test_sensitivity_is_the_measured_rise_and_steers_the_plan(model):
    def loss(net):  # the second body layer alone matters
        return 0.0 if isinstance(net.body.conv2, nn.Conv2d) else 1.0

    found = sensitivity(model, loss, example=IMAGE, progress=False)
    assert found["body.conv2", "filter_basis"] >= 1
    assert 0 < found["body.conv1", "filter_basis"] <= 0.02 * found["body.conv2", "filter_basis"]
    plain = plan(model, Budget(macs=0.7), example=IMAGE)
    steered = plan(model, Budget(macs=0.7), example=IMAGE, sensitivity=found)
    assert _energy(steered, "body.conv2") >= _energy(plain, "body.conv2")
    with pytest.raises(CorankError, match="loss: it is nan for the dense network"):
        sensitivity(model, lambda net: float("nan"), example=IMAGE)


def _energy(made, name):
    return made.layers[name].energy if name in made.layers else 1.0


@pytest.mark.parametrize("rule", [Budget(bytes=0.6), Budget(peak_memory=0.85)])
def test_a_budget_of_bytes_is_kept(model, rule):
    made = plan(model, rule, example=IMAGE)
    assert made.layers
    if rule.bytes is not None:
        small = decompose(model, made)
        held = sum(one.numel() * one.element_size() for one in (*small.parameters(), *small.buffers()))
        assert held == made.after.bytes <= 0.6 * made.before.bytes
    else:
        assert made.peak_after <= 0.85 * made.peak_before
        assert Plan.from_json(made.to_json()) == made
        assert "peak memory" in str(made)


def test_an_impossible_peak_says_how_close_it_comes(model):
    with pytest.raises(InfeasibleError, match=r"peak memory cannot be kept: .* it still holds [\d,]+ of"):
        plan(model, Budget(peak_memory=0.05), example=IMAGE)
