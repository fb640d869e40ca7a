"""AlexNet's ranks give the paper's figures; the search keeps its bound; the page tells the truth."""

from __future__ import annotations

import itertools

import pytest
import torch
from benchmarks.alexnet import ROWS
from benchmarks.alexnet_page import page
from benchmarks.alexnet_ranks import (
    LAYERS,
    METHOD,
    counted_speedup,
    cut,
    example,
    group_of,
    paper_ranks,
    per_group,
)
from benchmarks.alexnet_search import Option, Structure, candidates, errors, fastest, spread
from benchmarks.decaying import decay_layer_
from benchmarks.networks import alexnet_features
from torch import nn

from corank.cost import structure_cost
from corank.methods import METHODS, fold
from corank.methods.projection import reconstruction_error
from corank.probing import Call

NETWORK = alexnet_features()


@pytest.mark.parametrize(
    ("row", "published"), [("none", ("1.79", "1.72", "1.63")), ("a", ("2.65", "3.26", "1.85"))]
)
def test_counted_speedups_are_those_of_table_4(row, published):
    ranks = paper_ranks()[row]
    counted = [counted_speedup(group_of(NETWORK.get_submodule(name)), ranks[name]) for name in LAYERS[2:]]
    assert tuple(f"{one:.2f}" for one in counted) == published


def test_derived_ranks_have_the_published_speedups_of_table_6():
    ranks = paper_ranks()["b"]
    for name, gain in {"conv3": 4.81, "conv4": 4.00, "conv5": 2.92}.items():
        assert counted_speedup(group_of(NETWORK.get_submodule(name)), ranks[name]) == pytest.approx(
            gain, rel=0.01
        )


def test_the_ranks_of_a_make_3_6_times_fewer_macs():
    with torch.device("meta"):
        meta = alexnet_features()
    ranks = paper_ranks()["a"]
    before = after = 0
    for name in LAYERS:
        layer, shape = meta.get_submodule(name), tuple(example(1, name).shape)
        calls = (Call(shape, shape),)
        before += structure_cost(nn.Sequential(layer), calls).macs
        structure = METHODS[METHOD[name]].structure(layer, per_group(layer, ranks[name]))
        after += structure_cost(structure, calls).macs
    assert before / after == pytest.approx(3.6, abs=0.05)


def test_the_fastest_combination_is_that_of_trying_all():
    torch.manual_seed(0)
    options = {
        layer: [
            Option(Structure("dense", 0, 0.0, 1.0), 3.0),
            *(
                Option(Structure("spatial", rank, *torch.rand(2).tolist()), float(torch.rand(())))
                for rank in range(1, 6)
            ),
        ]
        for layer in "abc"
    }
    for allowed in (0.0, 0.5, 1.1, 3.0):
        found = fastest(options, allowed)
        times = {
            sum(one.seconds for one in some)
            for some in itertools.product(*options.values())
            if sum(one.structure.error for one in some) <= allowed
        }
        spent = sum(
            next(one.seconds for one in options[layer] if one.structure == picked)
            for layer, picked in found.items()
        )
        assert spent == pytest.approx(min(times))
    with pytest.raises(ValueError, match="offer the dense"):
        fastest({"a": options["a"][1:]}, -1.0)


@pytest.mark.parametrize("method", ["spatial", "filter_basis", "input_basis", "tucker2"])
def test_errors_by_the_spectrum_are_those_of_the_folded_split(method):
    layer = nn.Conv2d(8, 12, 3, groups=2)
    decay_layer_(layer)
    lost = errors(layer, method)
    split = METHODS[method].factors(layer, 2)
    assert float(lost[1]) == pytest.approx(reconstruction_error(layer, fold(split)), rel=1e-4)


def test_candidates_save_macs_at_multiples_of_eight():
    layer = nn.Conv2d(32, 64, 3, padding=1)
    found = candidates(layer, torch.zeros(1, 32, 8, 8), 3)
    assert {one.method for one in found} == {"spatial", "filter_basis", "input_basis", "tucker2"}
    assert all(one.share < 0.9 and one.rank % 8 == 0 for one in found)
    assert spread(found[:2], 1) == found[:2]


def test_cut_splits_what_it_is_told():
    network = nn.Sequential()
    network.add_module("one", nn.Conv2d(4, 8, 3, groups=2))
    small, plan = cut(network, {"one": ("spatial", 2)}, torch.zeros(1, 4, 6, 6))
    assert [type(one).__name__ for one in small.one] == ["Conv2d", "Conv2d"]
    assert plan.layers["one"].method == "spatial"


def canned(speedup):
    figures = {"ms": 1.0, "speedup": speedup, "ci": [speedup - 0.1, speedup + 0.1], "share": 0.25}
    row = figures | {
        "error": 0.2,
        "roofline": 4.0,
        "method": "filter_basis",
        "rank": 8,
        "peak_memory": 2_000_000,
    }
    names = [*ROWS, "ours for b", "ours for b, Figure 6"]
    whole = {"dense": figures | {"share": 1.0, "roofline": 1.0}} | {name: dict(row) for name in names}
    for name in names[-2:]:
        whole[name]["structures"] = dict.fromkeys(LAYERS, "dense")
    part = {"ms": 1.0, "of_peak": 0.5, "speedup": speedup, "ci": [speedup, speedup]}
    labels = (
        "dense",
        "dense, no ReLU",
        "both",
        "both, no ReLU",
        "first part",
        "second part",
        "both at rank 128",
    )
    layer = {
        "rows": dict.fromkeys(ROWS, row),
        "candidates": {
            "columns": "method,rank,share,error,speedup,low,high",
            "rows": [f"filter_basis,8,0.25,0.2,{speedup},1.0,2.0"],
        },
        "dense_of_roofline": 0.9,
    }
    found = {
        "peaks": {"flops": 3e11, "bytes": 2e10},
        "layers": dict.fromkeys(LAYERS, layer),
        "convolutions": whole,
        "notes": ["the machine is busy"],
        "with_classifier": {"dense": figures},
        "held_back": {"conv3, 2 threads": dict.fromkeys(labels, part)},
    }
    return {"torch": {"batches": {"1": found}}}


@pytest.mark.parametrize(("speedup", "passed", "missed"), [(4.1, 6, 0), (1.0, 0, 6)])
def test_the_page_says_of_every_goal_whether_it_was_met(speedup, passed, missed):
    text = page(canned(speedup))
    goals = text.split("## Goals")[1].split("## The convolutions")[0]
    table = goals.split("\n- ")[0]
    assert table.count("passed") == passed
    assert table.count("**missed**") == missed
    assert "matrix product 300 to 300" in text
    assert f"{speedup * 0.25:.2f} (5)" in text
    assert "- torch, batch 1: the machine is busy" in text
    assert "| torch | 1 | conv3, 2 threads |" in text


def test_the_page_compares_layouts_and_groups():
    data = canned(2.0) | {"torch_channels_last": canned(3.0)["torch"]}
    text = page(data)
    assert "row a is 2.00 times as fast as dense with contiguous maps, 3.00 times with channels last" in text
    assert "row a gives 0.50 of its roofline speedup in conv3" in text


def test_the_page_says_when_something_was_not_measured():
    data = canned(2.0)
    found = data["torch"]["batches"]["1"]
    found["held_back"] = {}
    del found["with_classifier"]
    assert page(data).count("Not measured.") == 2
