from __future__ import annotations

from math import log

import pytest
import torch
from torch import nn

from corank.calibration import calibrate
from corank.cost import model_cost
from corank.decomposition import decompose
from corank.errors import CorankError, InfeasibleError, LayerError
from corank.planning import plan
from corank.rules import Budget, Energy, Error, Ranks
from corank.spectra import spectrum
from corank.testing import awkward
from tests.residuals import decaying_residual

IMAGE = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def model():
    return decaying_residual()


def test_every_layer_is_planned_or_has_a_reason(model):
    made = plan(model, Energy(0.95), example=IMAGE)
    assert "break-even" in made.skipped["stem"]
    assert set(made.layers) | set(made.skipped) == {"stem", "body.conv1", "body.conv2", "head"}


@pytest.mark.parametrize("level", [0.5, 0.9, 0.99])
def test_energy_gives_the_spectrums_rank(model, level):
    made = plan(model, Energy(level), example=IMAGE)
    ranks = spectrum(model).rank(level)
    assert {name: choice.rank for name, choice in made.layers.items()} == {n: ranks[n] for n in made.layers}
    assert all(choice.energy >= level - 1e-9 for choice in made.layers.values())


def test_error_is_the_same_as_its_energy(model):
    by_error = plan(model, Error(0.2), example=IMAGE)
    assert by_error.layers == plan(model, Energy(1 - 0.2**2), example=IMAGE).layers


def test_the_costs_are_those_of_the_network_that_comes_out(model):
    made = plan(model, Budget(macs=0.5), example=IMAGE)
    assert made.before == model_cost(model, IMAGE)
    assert made.after == model_cost(decompose(model, made), IMAGE)
    stats = calibrate(model, [IMAGE])
    aware = plan(model, Budget(macs=0.5), example=IMAGE, stats=stats)
    assert aware.after == model_cost(decompose(model, aware, stats), IMAGE)


@pytest.mark.parametrize("share", [0.9, 0.5, 0.25])
def test_a_budget_is_met_and_not_wasted(model, share):
    made = plan(model, Budget(macs=share), example=IMAGE)
    assert made.after.macs <= share * made.before.macs
    more = plan(model, Budget(macs=share + 0.05), example=IMAGE)
    assert more.after.macs >= made.after.macs


def _lost(made, names):
    return -sum(log(made.layers[name].energy) for name in names if name in made.layers)


@pytest.mark.parametrize("share", [0.7, 0.4])
def test_no_even_energy_of_the_same_cost_keeps_a_larger_product(model, share):
    made = plan(model, Budget(macs=share), example=IMAGE)
    names = spectrum(model).rank()
    cheaper = [plan(model, Energy(level / 50), example=IMAGE) for level in range(5, 50)]
    cheaper = [one for one in cheaper if one.after.macs <= made.after.macs]
    assert cheaper
    assert all(_lost(made, names) <= _lost(one, names) + 1e-9 for one in cheaper)


def test_a_budget_of_parameters(model):
    made = plan(model, Budget(params=0.5), example=IMAGE)
    assert made.after.params <= 0.5 * made.before.params


def test_a_whole_budget_keeps_everything(model):
    assert plan(model, Budget(macs=1.0), example=IMAGE).after.macs <= model_cost(model, IMAGE).macs


def test_an_energy_is_a_floor_under_a_budget(model):
    made = plan(model, [Energy(0.9), Budget(macs=0.9)], example=IMAGE)
    assert all(choice.energy >= 0.9 - 1e-9 for choice in made.layers.values())
    with pytest.raises(InfeasibleError, match=r"with an energy of at least 0\.99") as caught:
        plan(model, [Energy(0.99), Budget(macs=0.1)], example=IMAGE)
    assert caught.value.best_plan.after.macs > 0.1 * caught.value.best_plan.before.macs


def test_an_impossible_budget_carries_the_closest_plan(model):
    with pytest.raises(InfeasibleError, match="closest plan is in .best_plan") as caught:
        plan(model, Budget(macs=0.01), example=IMAGE)
    best = caught.value.best_plan
    assert all(choice.rank == 1 for choice in best.layers.values())
    decompose(model, best)


def test_ranks_are_an_order_even_past_break_even(model):
    made = plan(model, Ranks({"stem": 24, "body.conv*": 2}), example=IMAGE)
    assert "past break-even" in made.layers["stem"].note
    assert made.layers["body.conv1"].rank == 2
    assert made.skipped == {"head": "not named"}
    assert made.after.macs == model_cost(decompose(model, made), IMAGE).macs


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (Ranks({"stem": 25}), "stem: allowed ranks are 1 to 24 per group, got 25"),
        (Ranks({"stom": 2}), "'stom' matches no weighted layer; the nearest is 'stem'"),
        (Ranks({"stem": 2}, method="svd"), "stem: SVD splits linear layers"),
        (Ranks({"stem": 2}, method="magic"), "stem: unknown method 'magic'; allowed are filter_basis,"),
        ([Ranks({"stem": 2}), Energy(0.9)], "Ranks is an order and stands alone"),
        ([], "give at least one rule"),
    ],
)
def test_what_cannot_be_ordered(model, rules, message):
    with pytest.raises(CorankError, match=message.replace("(", r"\(")):
        plan(model, rules, example=IMAGE)


def test_methods_can_be_chosen_by_pattern_and_ask_for_what_they_need(model):
    made = plan(model, Energy(0.5), example=IMAGE, methods={"body.*": "tucker2"})
    assert {choice.method for name, choice in made.layers.items() if "body" in name} == {"tucker2"}
    assert made.after == model_cost(decompose(model, made), IMAGE)
    with pytest.raises(
        CorankError, match=r"body\.conv1: tucker2 chooses .* Use calibrate\(..., inputs=True\)"
    ):
        plan(
            model, Energy(0.5), example=IMAGE, methods={"body.*": "tucker2"}, stats=calibrate(model, [IMAGE])
        )
    stats = calibrate(model, [IMAGE], inputs=True)
    decompose(model, plan(model, Ranks({"stem": 5}, "spatial"), example=IMAGE, stats=stats), stats)


def test_ranks_refuse_a_layer_that_cannot_be_split():
    with pytest.raises(LayerError, match=r"self_attn\.out_proj: cannot be split: the network reads"):
        plan(awkward.encoder(), Ranks({"self_attn.out_proj": 2}), example=torch.randn(1, 5, 16))


def test_a_multiple_rounds_up_and_never_past_the_full_rank(model):
    odd = plan(model, Energy(0.9), example=IMAGE)
    even = plan(model, Energy(0.9), example=IMAGE, multiple=8)
    for name, choice in even.layers.items():
        assert choice.rank % 8 == 0
        assert odd.layers[name].rank <= choice.rank <= choice.full_rank
    with pytest.raises(CorankError, match="multiple is a whole number from 1"):
        plan(model, Energy(0.9), example=IMAGE, multiple=0)


def test_tied_and_shared_weights():
    tied = plan(awkward.Tied(), Energy(0.1), example=torch.zeros(1, 3, dtype=torch.long))
    assert "tied" in tied.skipped["decoder"]
    assert "not a convolution" in tied.skipped["embedding"]
    assert list(tied.layers) == ["middle"]
    twice = plan(awkward.Twice(), Energy(0.1), example=torch.ones(1, 8))
    assert list(twice.layers) == ["first"]


def test_nothing_raises_on_a_network_that_merely_contains_something_unsupported():
    model = nn.ModuleDict({"conv": nn.Conv1d(4, 16, 3), "lstm": nn.LSTM(16, 8)})

    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.parts = model

        def forward(self, x):
            return self.parts["lstm"](self.parts["conv"](x).permute(2, 0, 1))[0]

    made = plan(Recurrent(), Energy(0.3), example=torch.randn(1, 4, 9))
    assert list(made.layers) == ["parts.conv"]
    assert made.skipped == {"parts.lstm": "LSTM is not a convolution or a linear layer"}


def test_a_lazy_layer_stays_lazy():
    model = nn.Sequential(nn.Linear(8, 8), nn.LazyBatchNorm1d(), nn.LazyLinear(4))
    made = plan(model, Energy(0.1), example=torch.randn(4, 8))
    assert list(made.layers) == ["0"]
    assert "run one forward pass first" in made.skipped["2"]
    assert type(model[2]) is nn.LazyLinear
    assert type(decompose(model, made)[0]) is nn.Sequential


def test_a_weight_of_another_class_is_left_alone():
    class Packed(torch.Tensor):
        """As torchao holds its quantized weights."""

    model = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    model[1].weight = nn.Parameter(model[1].weight.detach().as_subclass(Packed))
    made = plan(model, Energy(0.1), example=torch.randn(4, 8))
    assert list(made.layers) == ["0"]
    assert "a Packed: make it a plain nn.Parameter" in made.skipped["1"]


def test_planning_leaves_the_network_alone(model):
    before = {name: value.clone() for name, value in model.state_dict().items()}
    plan(model, Budget(macs=0.5), example=IMAGE, stats=calibrate(model, [IMAGE]))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_a_layer_that_calibration_missed_is_left_alone(model):
    stats = calibrate(model, [IMAGE], exclude=["stem"])
    made = plan(model, Energy(0.5), example=IMAGE, stats=stats)
    assert "do not cover" in made.skipped["stem"]
