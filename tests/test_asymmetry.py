"""Asymmetric factors, against least squares and reduced-rank regression done the long way."""

from __future__ import annotations

import threading

import pytest
import torch
from torch import Tensor, nn

from corank.calibration import calibrate, channel_columns
from corank.decomposition import decompose
from corank.errors import CorankError, LayerError
from corank.inputs import call
from corank.layers import named_weighted
from corank.methods import METHODS
from corank.planning import plan
from corank.refitting import RIDGE, refit
from corank.rules import Ranks
from corank.spectra import spectrum
from corank.testing import NETWORKS, awkward, networks

LAYERS = {
    "linear": (lambda: nn.Linear(6, 8), lambda: nn.Linear(8, 6), (2048, 6)),
    "conv": (lambda: nn.Conv2d(4, 8, 3, padding=1), lambda: nn.Conv2d(8, 6, 3, bias=False), (32, 4, 9, 9)),
    "grouped": (
        lambda: nn.Conv2d(4, 8, 3, groups=2),
        lambda: nn.Conv2d(8, 8, 3, groups=2, padding=1),
        (32, 4, 9, 9),
    ),
    "transposed": (lambda: nn.Conv1d(4, 8, 3), lambda: nn.ConvTranspose1d(8, 6, 3, stride=2), (128, 4, 11)),
}


def _pair(name: str) -> tuple[nn.Sequential, list[Tensor]]:
    """Make two layers with a ReLU between them, and three batches with a mean."""
    torch.manual_seed(0)
    first, second, shape = LAYERS[name]
    model = nn.Sequential(first(), nn.ReLU(), second()).double().eval()
    return model, [torch.randn(shape, dtype=torch.float64) + 0.3 for _ in range(3)]


def _plan(model: nn.Module, batches: list[Tensor], ranks: dict[str, int], method: str | None = None):
    stats = calibrate(model, batches, inputs=True)
    return stats, plan(model, Ranks(ranks, method), example=batches[0][:1], stats=stats)


def _columns(layer, run, batches) -> Tensor:
    with torch.no_grad():
        return torch.cat([channel_columns(layer, run(x)) for x in batches], -1)


@pytest.mark.parametrize("name", LAYERS)
def test_a_refit_is_the_least_squares_map_of_the_outputs(name):
    model, batches = _pair(name)
    layer = model[2]
    noise = [torch.relu(model[0](x) + 0.5 * torch.randn_like(model[0](x))).detach() for x in batches]
    wanted = [layer(torch.relu(model[0](x))).detach() for x in batches]
    with torch.no_grad():
        fitted, moments = refit(layer, layer, zip(noise, wanted, strict=True))
    y, given, now = (
        torch.cat([channel_columns(layer, one) for one in many], -1)
        for many in (wanted, [layer(x).detach() for x in noise], [fitted(x).detach() for x in noise])
    )
    for group in range(len(y)):  # the ridge, as further equations: N of them say T = I
        variance = torch.cov(given[group], correction=0).diagonal().mean()
        many = len(y[group])
        weight = (variance * (many + RIDGE * given.shape[-1])).sqrt()
        ones = weight * torch.eye(many, dtype=torch.float64)
        design = torch.cat([given[group].mT, ones])
        design = torch.cat([design, torch.ones(len(design), 1, dtype=torch.float64)], 1)
        design[-many:, -1] = 0
        best = design @ torch.linalg.lstsq(design, torch.cat([y[group].mT, ones])).solution
        assert torch.allclose(now[group].mT, best[:-many], atol=1e-9)
        wanted_moments = torch.cov(now[group], correction=0)
        assert torch.allclose(moments.covariance_GNN[group], wanted_moments, atol=1e-10)


@pytest.mark.parametrize("name", LAYERS)
def test_without_a_split_before_it_a_layer_gets_its_symmetric_factors(name):
    model, batches = _pair(name)
    stats, made = _plan(model, batches, {"0": 2})
    one = decompose(model, made, stats)
    other = decompose(model, made, asymmetric=batches)
    for x in batches:
        assert torch.allclose(one(x), other(x), atol=1e-6)


@pytest.mark.parametrize("name", LAYERS)
def test_a_later_layer_gets_the_optimum_of_reduced_rank_regression(name):
    """Independent oracle: regress, then cut the singular values of the fitted values."""
    model, batches = _pair(name)
    _, made = _plan(model, batches, {"0": 2, "2": 2})
    small = decompose(model, made, asymmetric=batches)
    layer = model[2]
    y = _columns(layer, model, batches)
    given = _columns(layer, lambda x: layer(torch.relu(small[0](x))), batches)
    lost = (y - _columns(layer, small, batches)).square().sum()
    best = torch.tensor(0.0, dtype=torch.float64)
    for y_NT, x_NT in zip(y, given, strict=True):
        y_NT, x_NT = y_NT - y_NT.mean(1, keepdim=True), x_NT - x_NT.mean(1, keepdim=True)
        fitted = y_NT @ torch.linalg.pinv(x_NT) @ x_NT
        best += (y_NT - fitted).square().sum() + torch.linalg.svdvals(fitted)[2:].square().sum()
    assert best * (1 - 1e-9) <= lost <= best * (1 + 1e-3)  # the ridge


@pytest.mark.parametrize("method", [name for name in METHODS if name != "svd"])
def test_the_outputs_are_closer_than_with_symmetric_factors(method):
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Conv2d(4, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, bias=False)
    ).double()
    batches = [torch.randn(8, 4, 10, 10, dtype=torch.float64) + 0.3 for _ in range(2)]
    stats, made = _plan(model, batches, dict.fromkeys(("0", "2", "4"), 3), method)
    symmetric, asymmetric = decompose(model, made, stats), decompose(model, made, asymmetric=batches)
    with torch.no_grad():
        lost = [sum((s(x) - model(x)).square().sum() for x in batches) for s in (symmetric, asymmetric)]
    assert lost[1] < 0.98 * lost[0]


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("name", NETWORKS)
def test_full_rank_is_exact_on_every_network_of_the_zoo(name):
    case = NETWORKS[name]
    dtype, limit = (torch.float32, 1e-5) if name == "a quantized layer" else (torch.float64, 1e-8)
    model, batches = case.build(dtype).eval(), [case.input(4, dtype)]
    stats = calibrate(model, batches, inputs=True, forward=call)
    full = {row.layer: row.full_rank for row in spectrum(model)}
    usable = plan(model, Ranks({}), example=batches[0], stats=stats).skipped
    ranks = {layer: full[layer] for layer in full if usable.get(layer) == "not named"}
    made = plan(model, Ranks(ranks), example=batches[0], stats=stats)
    small = decompose(model, made, asymmetric=batches, forward=call)
    with torch.no_grad():
        torch.manual_seed(3)
        wanted = call(model, batches[0])
        torch.manual_seed(3)
        torch.testing.assert_close(call(small, batches[0]), wanted, rtol=limit, atol=limit)
    assert set(named_weighted(model)) == {*made.layers, *made.skipped}


def test_the_dense_network_is_left_alone_and_the_copy_is_in_its_mode():
    model = networks.Residual().train()
    model.stem.weight.requires_grad_(False)
    batches = [torch.randn(4, 3, 8, 8) for _ in range(2)]
    before = {name: value.clone() for name, value in model.state_dict().items()}
    _, made = _plan(model, batches, {"stem": 3, "body.*": 4})
    threads = threading.active_count()
    small = decompose(model, made, asymmetric=iter(batches), max_batches=1)
    assert threading.active_count() == threads
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks for module in [*model.modules(), *small.modules()])
    assert all(module.training for module in [*model.modules(), *small.modules()])
    assert [one.weight.requires_grad for one in small.stem] == [False, False]
    assert [one.weight.requires_grad for one in small.body.conv2] == [True, True]
    assert {type(one) for one in small.modules()} <= {type(one) for one in model.modules()}


def test_dtype_and_memory_format_are_kept():
    model = nn.Sequential(nn.Conv2d(4, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3))
    model = model.to(dtype=torch.bfloat16, memory_format=torch.channels_last)
    batches = [torch.randn(4, 4, 8, 8, dtype=torch.bfloat16)]
    _, made = _plan(model, batches, {"0": 4, "2": 4})
    small = decompose(model, made, asymmetric=batches)
    assert all(one.dtype == torch.bfloat16 for one in small.parameters())
    assert small[2][0].weight.is_contiguous(memory_format=torch.channels_last)


def test_a_layer_that_is_called_twice_gets_its_symmetric_factors():
    torch.manual_seed(0)
    model, batches = awkward.Twice().eval(), [torch.randn(32, 8)]
    stats, made = _plan(model, batches, {"first": 3})
    small, wanted = decompose(model, made, asymmetric=batches), decompose(model, made, stats)
    assert small.first is small.second
    assert torch.allclose(small(batches[0]), wanted(batches[0]), atol=1e-6)


def test_control_flow_on_values():
    """A branch is fitted on the batches that take it; the loop's layer is called twice."""
    torch.manual_seed(0)
    model = awkward.Deciding().eval()
    batches = [torch.randn(32, 8) + shift for shift in (1.0, -1.0, 1.0)]
    _, made = _plan(model, batches, dict.fromkeys(("high", "again"), 4))
    small = decompose(model, made, asymmetric=batches)
    assert [type(one) for one in (small.high, small.low, small.again)] == [
        nn.Sequential,
        nn.Linear,
        nn.Sequential,
    ]
    with pytest.raises(LayerError, match="high: the network never calls it on the batches"):
        decompose(model, made, asymmetric=batches[1:2])


class Turning(nn.Module):
    """Takes a second layer or not, as a small part of the first one's output says."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.left = nn.Linear(2, 2), nn.Linear(2, 2)
        with torch.no_grad():
            self.first.weight.copy_(torch.diag(torch.tensor([1.0, 0.1])))
            self.first.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        return self.left(y) if bool(y[0, 1] > 0) else y


def test_another_path_in_the_split_network_is_an_error_that_names_the_layer():
    """Rank 1 makes the small part its mean, which is above 0, so that the second batch turns, too."""
    model = Turning().eval()
    batches = [torch.tensor([[5.0, 4.0], [-5.0, 4.0]]), torch.tensor([[5.0, -1.0], [-5.0, -1.0]])]
    _, made = _plan(model, batches, {"first": 1, "left": 1})
    threads = threading.active_count()
    with pytest.raises(LayerError, match="left: the split network takes another path"):
        decompose(model, made, asymmetric=batches)
    assert threading.active_count() == threads
    assert not model.left._forward_hooks


def test_requests_that_cannot_be_met():
    model, batches = networks.Residual(), [torch.randn(2, 3, 8, 8)]
    _, made = _plan(model, batches, {"stem": 2})
    with pytest.raises(CorankError, match="asymmetric has no batch"):
        decompose(model, made, asymmetric=[])
    weights = plan(model, Ranks({"stem": 2}), example=batches[0])
    with pytest.raises(CorankError, match="this plan was made to keep the weights"):
        decompose(model, weights, asymmetric=batches)
    threads = threading.active_count()
    with pytest.raises(RuntimeError, match=r"to have 3 channels"):
        decompose(model, made, asymmetric=[batches[0], torch.randn(2, 4, 8, 8)])
    assert threading.active_count() == threads


def test_few_samples_are_not_followed_blindly():
    """Sixteen samples for 32 outputs: on others the asymmetric factors are no worse than the symmetric."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 32)).double()
    few, many = torch.randn(16, 32).double(), torch.randn(2000, 32).double()
    stats, made = _plan(model, [few], {"0": 12, "2": 12})
    lost = [
        (small(many) - model(many)).square().mean().item()
        for small in (decompose(model, made, stats), decompose(model, made, asymmetric=[few]))
    ]
    assert lost[1] < lost[0], lost
