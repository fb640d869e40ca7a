"""What the contract (tests/testing) does not ask of a method."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn

from corank.calibration import calibrate
from corank.layers import layer_type
from corank.methods import METHODS
from corank.testing import LAYERS, LayerCase
from corank.testing.layer_checks import LAYER_CHECKS
from corank.testing.moment_checks import MOMENT_CHECKS
from corank.testing.rows import found


def test_subnormal_values_become_zero():
    layer = nn.Linear(4, 4)
    with torch.no_grad():
        layer.weight.copy_(torch.eye(4) * torch.tensor([1.0, 1.0, 1e-39, 1e-39]))
    for part in METHODS["svd"].factors(layer, 4):
        small = part.weight.abs()
        assert not ((small > 0) & (small < torch.finfo(torch.float32).tiny)).any()


@pytest.mark.parametrize("kind", ["zeros", "equal", "one number", "two directions", "small"])
@pytest.mark.parametrize("method", METHODS)
def test_filters_that_span_little_or_nothing(method, kind):
    """Where force regularization leads: the split is exact from the rank that is left, and nothing is NaN."""

    def make():
        layer = nn.Linear(8, 6) if method == "svd" else nn.Conv2d(4, 6, 3)
        w = torch.zeros_like(layer.weight)
        if kind == "equal":
            w += torch.randn(1, *w.shape[1:])
        elif kind == "one number":
            w.view(-1)[0] = 1.0
        elif kind == "two directions":
            w += (torch.randn(6, 2) @ torch.randn(2, w[0].numel())).reshape(w.shape)
        elif kind == "small":
            w += torch.randn_like(w) * 1e-25
        layer.weight = nn.Parameter(w)
        return layer

    shape = (4, 8) if method == "svd" else (4, 4, 7, 7)
    checks = {**LAYER_CHECKS, **MOMENT_CHECKS}
    del checks["trains"]  # zeros have no gradient
    case = LayerCase(make, shape)
    for name, check in checks.items():
        row = found(kind, method, name, partial(check, METHODS[method], case))
        assert row.passed is not False or (name == "outputs' tail, data-aware" and row.figure > 1), str(row)
    left = {"zeros": 0, "equal": 1, "one number": 1, "two directions": 2}.get(kind)
    if method in ("filter_basis", "svd") and left is not None:
        assert (METHODS[method].energies(make()) > 1e-10).sum() == left


def test_a_refusal_names_the_other_method():
    assert "use SVD" in METHODS["filter_basis"].refusal(nn.Linear(2, 2))
    assert "use FilterBasis" in METHODS["svd"].refusal(nn.Conv2d(2, 2, 1))
    assert "use FilterBasis" in METHODS["tucker2"].refusal(nn.Conv2d(4, 4, 3, groups=4))


def test_every_method_takes_some_layer_and_every_layer_has_several_methods():
    taken = {
        name: [m for m in METHODS.values() if m.refusal(c.build()[0]) is None] for name, c in LAYERS.items()
    }
    assert {method.name for methods in taken.values() for method in methods} == set(METHODS)
    for name, methods in taken.items():
        assert len(methods) >= (2 if layer_type(LAYERS[name].build()[0]) == "conv" else 1)


@pytest.mark.parametrize("method", ["input_basis", "spatial", "tucker2"])
@pytest.mark.parametrize("stride", [1, 2])
def test_the_mean_output_survives_a_cut_of_a_transposed_convolution(method, stride):
    """A place of the output sees one phase of the kernel, not all of it: the mean would shift otherwise."""
    torch.manual_seed(0)
    layer = nn.ConvTranspose2d(8, 6, 2 * stride, stride=stride, padding=0).double()
    x = torch.randn(64, 8, 9, 9, dtype=torch.float64) + 1.0
    moments = calibrate(nn.Sequential(layer), [x], inputs=True)["0"]
    split = METHODS[method].factors(layer, 2, moments)
    inner = (..., slice(stride, -stride), slice(stride, -stride))  # without the border, which is neglected
    lost = (layer(x) - split(x))[inner].mean((0, 2, 3))
    plain = (layer(x) - METHODS[method].factors(layer, 2)(x))[inner].mean((0, 2, 3))
    assert lost.norm() < 0.05 * plain.norm()


def test_svd_with_moments_is_the_optimum_that_whitening_finds():
    """Independent oracle, SVD-LLM: S = Cholesky of the inputs' covariance, then the truncated SVD of W S."""
    torch.manual_seed(0)
    layer = nn.Linear(10, 8).double()
    x = torch.randn(400, 10, dtype=torch.float64) @ torch.randn(10, 10, dtype=torch.float64) + 1.5
    moments = calibrate(nn.Sequential(layer), [x])["0"]
    s = torch.linalg.cholesky(torch.cov(x.mT, correction=0))
    u, values, vh = torch.linalg.svd(layer.weight.detach() @ s)
    for rank in range(1, 9):
        split = METHODS["svd"].factors(layer, rank, moments)
        whitened = (u[:, :rank] * values[:rank]) @ torch.linalg.solve_triangular(
            s, vh[:rank], upper=False, left=False
        )
        assert torch.allclose(split[1].weight @ split[0].weight, whitened, atol=1e-9)
        lost = (split(x) - layer(x)).square().sum(1).mean()
        assert torch.allclose(lost, values[rank:].square().sum(), atol=1e-9)
        assert torch.allclose(split(x).mean(0), layer(x).mean(0), atol=1e-9)  # the bias makes up for the mean


def test_whitening_by_the_uncentred_second_moment_is_not_better():
    """SVD-LLM as published whitens by X Xᵀ and keeps the bias: with a mean in the inputs it loses more."""
    torch.manual_seed(0)
    layer = nn.Linear(10, 8).double()
    x = torch.randn(400, 10, dtype=torch.float64) + 1.5
    moments = calibrate(nn.Sequential(layer), [x])["0"]
    s = torch.linalg.cholesky(x.mT @ x / len(x))
    u, values, vh = torch.linalg.svd(layer.weight.detach() @ s)
    weight = (u[:, :3] * values[:3]) @ torch.linalg.solve_triangular(s, vh[:3], upper=False, left=False)
    published = (x @ weight.mT + layer.bias - layer(x)).square().sum(1).mean()
    lost = (METHODS["svd"].factors(layer, 3, moments)(x) - layer(x)).square().sum(1).mean()
    assert torch.allclose(published, values[3:].square().sum())
    assert lost < published
