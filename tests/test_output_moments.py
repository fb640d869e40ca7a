"""The running covariance of a layer's outputs, against the covariance of all outputs at once."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from corank import output_moments
from corank.forced_layers import ForcedLayer
from corank.layers import filter_matrix, groups
from corank.output_moments import OutputMoments, output_columns

LAYERS = {
    "conv": (nn.Conv2d(3, 6, 3, bias=True), (4, 3, 8, 8)),
    "grouped": (nn.Conv2d(4, 6, 3, groups=2), (4, 4, 8, 8)),
    "transposed": (nn.ConvTranspose2d(4, 6, 3, groups=2), (4, 4, 8, 8)),
    "1d": (nn.Conv1d(3, 6, 3), (4, 3, 20)),
    "linear": (nn.Linear(3, 6), (4, 5, 3)),
    "unbatched": (nn.Conv2d(3, 6, 3), (3, 8, 8)),
}


def columns(layer: nn.Module, output: torch.Tensor) -> torch.Tensor:
    """(G, N, T) the plain way: channels first, then everything else."""
    channel = -1 if isinstance(layer, nn.Linear) else output.dim() - (layer.weight.dim() - 2) - 1
    return output.movedim(channel, 0).flatten(1).unflatten(0, (groups(layer), -1))


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("rank", [1, 2])
def test_the_basis_keeps_most_of_the_variance(name: str, rank: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(output_moments, "DECAY", 1.0)
    monkeypatch.setattr(output_moments, "OBSERVE_EVERY", 1)
    layer, shape = LAYERS[name]
    moments = OutputMoments([ForcedLayer("it", layer, 0.1)])
    moments.watch()
    generator = torch.Generator().manual_seed(0)
    outputs = [columns(layer, layer(torch.randn(shape, generator=generator))) for _ in range(3)]
    moments.stop()
    assert not layer._forward_hooks
    y = torch.cat(outputs, -1).detach().double()
    basis = moments.basis("it", filter_matrix(layer).detach(), energy=0.5, rank=rank).double()
    assert basis.shape == (y.shape[0], y.shape[1], rank)
    torch.testing.assert_close(basis.mT @ basis, torch.eye(rank).double().expand(len(y), -1, -1))
    centred = y - y.mean(-1, keepdim=True)
    kept = (basis.mT @ centred).pow(2).sum((-1, -2))
    best = torch.linalg.eigvalsh(centred @ centred.mT)[..., -rank:].sum(-1)
    torch.testing.assert_close(kept, best, rtol=1e-5, atol=1e-8)


def test_the_rank_follows_the_energy() -> None:
    layer = nn.Linear(4, 6, bias=False)
    moments = OutputMoments([ForcedLayer("it", layer, 0.1)])
    moments.watch()
    layer(torch.randn(64, 4, generator=torch.Generator().manual_seed(0)))
    w_GND = filter_matrix(layer).detach()
    ranks = [moments.basis("it", w_GND, energy=energy, rank=None).shape[-1] for energy in (0.1, 0.9, 1.0)]
    assert ranks[0] == 1
    assert ranks == sorted(ranks)
    assert ranks[-1] == 4  # what the inputs allow, though there are 6 filters


def test_the_past_fades() -> None:
    layer = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.eye(2))
    moments = OutputMoments([ForcedLayer("it", layer, 0.1)])
    moments.watch()
    for i in range(60 * output_moments.OBSERVE_EVERY):
        spread = (
            torch.tensor([3.0, 1.0]) if i < 30 * output_moments.OBSERVE_EVERY else torch.tensor([1.0, 3.0])
        )
        layer(torch.tensor([[1.0, 1.0], [-1.0, 1.0], [1.0, -1.0], [-1.0, -1.0]]) * spread)
    basis = moments.basis("it", torch.eye(2)[None], energy=0.5, rank=1)
    torch.testing.assert_close(basis.abs()[0], torch.tensor([[0.0], [1.0]]), atol=1e-3, rtol=0)


def test_large_maps_are_thinned_evenly() -> None:
    layer = nn.Conv2d(1, 2, 1)
    output = torch.randn(8, 2, 32, 32)
    y = output_columns(layer, output, 512)
    assert y.shape == (1, 2, 512)
    values = set(output[:, 0].flatten().tolist())
    assert set(y[0, 0].tolist()) <= values
    assert output_columns(layer, torch.randn(4096, 2, 1, 1), 512).shape[-1] == 512


def test_moments_gathered_under_autocast_are_those_of_the_same_outputs_in_float32() -> None:
    layer = nn.Linear(4, 6)
    inputs = torch.randn(64, 4, generator=torch.Generator().manual_seed(0))
    moments = OutputMoments([ForcedLayer("it", layer, 0.1)])
    moments.watch()
    with torch.autocast("cpu", torch.bfloat16):
        y_TN = layer(inputs)
    moments.stop()
    assert y_TN.dtype == torch.bfloat16
    y_NT = y_TN.detach().float().T
    _, first, second = moments._sums["it"]
    torch.testing.assert_close(first[0], y_NT.sum(-1))
    torch.testing.assert_close(second[0], y_NT @ y_NT.T)
