"""The logic that depends on times, with made-up ones: order, budget, resuming, drift, the cache's terms."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import corank
from corank.benchmarks.table_cache import Times, open_times
from corank.benchmarks.table_fill import fill, note_missed, note_unsteady
from corank.benchmarks.table_measure import AGAIN, measure_step, measure_whole
from corank.benchmarks.table_order import GROUP, Step, halved, plan_steps
from corank.benchmarks.table_ranks import ranks_to_time
from corank.benchmarks.table_rows import make_rows
from corank.benchmarks.table_runners import Prepared
from corank.benchmarks.table_survey import Wanted, survey_model
from corank.benchmarks.table_units import read_unit
from corank.methods import METHODS
from corank.targets import Target

TERMS = {"cpu": "x", "threads": 1}


def make_survey(**options):
    net = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 64, 3, padding=1), nn.ReLU())
    return survey_model(net, torch.ones(1, 3, 8, 8), Wanted(**options))


class Machine:
    """Takes a millisecond for a dense layer, its clock moving on, and keeps what took turns."""

    def __init__(self, drifting=0, fails_at=None):
        self.now, self.groups, self.drifting, self.fails_at = 0.0, [], drifting, fails_at

    def prepare(self, chain, x, folder):
        return Prepared(lambda: chain)

    def measure(self, runners):
        if self.fails_at == len(self.groups):
            raise KeyboardInterrupt
        self.groups.append(list(runners))
        self.now += 0.1 * len(runners)
        dense = np.full(4, 1e-3)
        if self.drifting:
            self.drifting -= 1
            dense[2:] *= 2
        return {name: dense if name in ("dense", "whole") else 0.5 * dense for name in runners}

    def fill(self, survey, times, stop=None):
        units = survey.units
        measure_whole("net", units, times, lambda folder: lambda: None, self.prepare, self.measure)
        clock = lambda: self.now  # noqa: E731
        return fill(survey, times, times.dense["net"], self.prepare, self.measure, 4, stop, clock=clock)

    def rows(self, survey, times):
        return make_rows(survey.layers, survey.calls, survey.units, times.dense["net"], times)


@given(st.lists(st.integers(1, 99), unique=True, max_size=20).map(sorted))
def test_halving_gives_each_rank_once_and_the_middle_first(ranks):
    waves = halved(ranks)
    assert sorted(rank for wave in waves for rank in wave) == ranks
    if len(ranks) > 2:
        assert waves[0] == [ranks[(len(ranks) - 1) // 2]]
        assert set(waves[1]) == {ranks[0], ranks[-1]}


def test_the_heaviest_unit_and_the_default_method_come_first():
    ranks = [8, 16, 24]
    candidates = {"light": {"filter_basis": ranks}, "heavy": {"filter_basis": ranks, "spatial": ranks}}
    steps = plan_steps(candidates, {"light": 1.0, "heavy": 2.0})
    assert [(step.unit, step.splits) for step in steps[:3]] == [
        ("heavy", (("filter_basis", 16),)),
        ("light", (("filter_basis", 16),)),
        ("heavy", (("spatial", 16),)),
    ]
    many = plan_steps({"a": {"svd": list(range(1, 100))}}, {"a": 1.0})
    assert max(len(step.splits) for step in many) == GROUP


def test_an_interrupted_run_goes_on_where_it_stopped(tmp_path):
    survey = make_survey(methods=["filter_basis", "spatial"])
    whole = Machine()
    whole.fill(survey, Times(TERMS))
    cut = Machine(fails_at=4)
    with pytest.raises(KeyboardInterrupt):
        cut.fill(survey, open_times(tmp_path, TERMS))
    rest = Machine()
    times = open_times(tmp_path, TERMS)
    rest.fill(survey, times)
    assert cut.groups + rest.groups == whole.groups
    again = Machine()
    again.fill(survey, open_times(tmp_path, TERMS))
    assert again.groups == []
    assert again.rows(survey, open_times(tmp_path, TERMS)) == rest.rows(survey, times)


def test_other_terms_share_nothing(tmp_path):
    survey = make_survey(ranks=[0.5])
    Machine().fill(survey, open_times(tmp_path, TERMS))
    assert not open_times(tmp_path, {**TERMS, "threads": 2}).dense
    assert open_times(tmp_path, TERMS).dense
    (file,) = tmp_path.iterdir()
    file.write_text("{}")
    with pytest.raises(corank.FileError, match="is not a cache of this corank"):
        open_times(tmp_path, TERMS)


def test_a_budget_measures_every_dense_layer_and_names_what_it_leaves_out():
    survey = make_survey()
    machine = Machine()
    times = Times(TERMS)
    missed = machine.fill(survey, times, stop=0.5)
    assert [len(group) for group in machine.groups] == [3, 2]  # the whole with both dense layers, one split
    assert set(times.dense["net"]) == set(survey.units)
    done = sum(map(len, times.ratios.values()))
    left = sum(len(step.splits) for step in missed)
    assert left > 0
    assert done + left == sum(len(r) for some in survey.splits.values() for r in some.values())
    (note,) = note_missed(missed, survey, 0.5)
    assert note.startswith("the time budget of 0.5 s left unmeasured: ")
    assert "of spatial" in note
    rows = machine.rows(survey, times)
    assert len(rows) == len(survey.layers) + done


@pytest.mark.parametrize(("drifting", "noted"), [(0, 0), (1, 0), (2, 0), (3, 1)])
def test_a_group_that_drifted_is_measured_again_then_noted(drifting, noted):
    survey = make_survey(methods=["filter_basis"])
    unit = survey.units[first := next(iter(survey.units))]
    machine, times = Machine(drifting=drifting), Times(TERMS)
    step = Step(first, (("filter_basis", 8),))
    measure_step(unit, step, times, machine.prepare, machine.measure)
    assert len(machine.groups) == 1 + min(drifting, AGAIN)
    assert times.unsteady == [first] * noted
    measure_step(unit, step, times, machine.prepare, machine.measure)
    assert len(machine.groups) == 1 + min(drifting, AGAIN)  # it is known


def test_a_whole_network_that_drifts_is_noted():
    survey, machine, times = make_survey(ranks=[0.5]), Machine(drifting=9), Times(TERMS)
    machine.fill(survey, times)
    assert machine.groups[:3] == [["whole", *survey.units]] * 3
    assert note_unsteady(survey, times, "net")[0].endswith("0, 2, the whole network")


def test_a_layer_s_row_counts_all_its_calls_on_all_shapes():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(16, 16, 3, padding=1)

        def forward(self, x):
            return self.conv(x).mean() + self.conv(x).mean() + self.conv(x[..., ::2]).mean()

    survey = survey_model(Twice(), torch.ones(1, 16, 8, 8), Wanted(ranks=[0.5], methods=["filter_basis"]))
    large, small = survey.units
    times = Times(TERMS)
    Machine().fill(survey, times)
    times.dense["net"] = {large: 3e-3, small: 2e-3}
    key = next(iter(times.ratios[large]))
    times.ratios = {large: {key: (0.5, 0.4, 0.6)}, small: {key: (1.0, 0.9, 1.1)}}
    dense, split = Machine().rows(survey, times)
    assert dense.ms == pytest.approx(8)
    assert split.ms == pytest.approx(2 * 1.5 + 2)
    assert split.ratio == pytest.approx(5 / 8)
    assert split.ratio_ci == pytest.approx(((6 * 0.4 + 2 * 0.9) / 8, (6 * 0.6 + 2 * 1.1) / 8))


def test_a_unit_is_made_again_from_its_key():
    for key, unit in make_survey().units.items():
        again = read_unit(key)
        assert again.key == key
        assert repr(again.layer) == repr(unit.layer)
        assert json.loads(key)[1] == list(unit.shape)


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        (None, (8, 16, 24, 32, 40, 48, 56, 64)),
        ((0.125, 0.25, 0.5), (8, 16, 32)),
        ((0.01, 1.0), (1, 64)),
        ((3, 5, 99), (3, 5)),
    ],
)
def test_ranks(asked, expected):
    layer = nn.Conv2d(64, 64, 3, padding=1)
    assert ranks_to_time(layer, METHODS["filter_basis"], (1, 64, 8, 8), asked) == expected


def test_narrow_layers_get_finer_ranks_and_useless_ones_none():
    narrow = nn.Conv2d(16, 16, 3, padding=1)
    assert ranks_to_time(narrow, METHODS["filter_basis"], (1, 16, 8, 8)) == (4, 8, 12, 16)
    depthwise = nn.Conv2d(16, 16, 3, groups=16)
    assert ranks_to_time(depthwise, METHODS["filter_basis"], (1, 16, 8, 8)) == ()


def test_a_target_narrows_what_is_timed():
    target = Target(methods=("spatial", "tucker2"), memory=40_000)
    survey = make_survey(multiple=4, target=target)
    assert set(survey.layers["2"]) == {"spatial", "tucker2"}
    assert 0 < len(survey.layers["2"]["tucker2"]) < len(make_survey(multiple=4).layers["2"]["tucker2"])
    assert all(rank % 4 == 0 for rank in survey.layers["2"]["spatial"])
