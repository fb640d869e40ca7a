from __future__ import annotations

import torch
from torch import nn

from corank.decomposition import decompose
from corank.planning import plan
from corank.rules import Ranks
from corank.testing import networks
from corank.undoing import find_unpaid, fold_back

IMAGE = torch.randn(2, 3, 8, 8)
LAYERS = ("stem", "body.conv1", "body.conv2")


def _cut():
    torch.manual_seed(0)
    model = networks.Residual(24).eval()
    made = plan(model, Ranks(dict.fromkeys(LAYERS, 4)), example=IMAGE)
    return decompose(model, made).eval()


def _split(model):
    return {name for name in LAYERS if isinstance(model.get_submodule(name), nn.Sequential)}


def test_folding_keeps_what_training_changed_and_the_network_given():
    small = _cut()
    with torch.no_grad():
        for parameter in small.parameters():
            parameter.add_(0.01 * torch.randn_like(parameter))
        back = fold_back(small, ["body.conv1"])
        assert torch.allclose(back(IMAGE), small(IMAGE), atol=1e-5)
    assert _split(back) == {"stem", "body.conv2"}
    assert type(back.body.conv1) is nn.Conv2d
    assert _split(small) == set(LAYERS)


def _race(costs, dense=1.0):
    """Time a network by what its splits cost; a layer that is not split costs `dense`."""
    raced = []

    def race(pair):
        first, second = (
            sum(costs[name] if name in _split(model) else dense for name in LAYERS) for model in pair.values()
        )
        raced.append(set(_split(tuple(pair.values())[1])))
        return first / second

    race.raced = raced
    return race


GAINS = dict.fromkeys(LAYERS, 1.0)


def test_only_the_splits_that_do_not_pay_are_given_up():
    race = _race({"stem": 1.5, "body.conv1": 0.2, "body.conv2": 0.2})
    assert set(find_unpaid(_cut(), {**GAINS, "stem": 0.1}, race)) == {"stem"}


def test_nothing_is_given_up_where_all_pay_and_all_where_none_does():
    assert find_unpaid(_cut(), GAINS, _race(dict.fromkeys(LAYERS, 0.5))) == {}
    race = _race(dict.fromkeys(LAYERS, 1.1))
    assert set(find_unpaid(_cut(), GAINS, race)) == set(LAYERS)
    assert len(race.raced) == 1


def test_a_race_is_run_no_more_often_than_allowed():
    race = _race(dict.fromkeys(LAYERS, 0.5))
    find_unpaid(_cut(), GAINS, race, most_races=2)
    assert len(race.raced) == 2
