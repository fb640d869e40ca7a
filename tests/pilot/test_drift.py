"""Corruptions and what is judged by them."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn

import corank
from corank.errors import CorankError
from corank.pilot.corruptions import (
    CORRUPTIONS,
    STRENGTHS,
    Changed,
    corrupt,
    corrupted,
    require_images,
    unknown,
)
from corank.pilot.drift import auroc, measure_drift

pytest.importorskip("kornia", reason="corruptions come with the extra `drift`")


@pytest.fixture(scope="module")
def images():
    """Return smooth images: what blur and JPEG hardly change, and noise does."""
    generator = torch.Generator().manual_seed(0)
    small = torch.rand(6, 3, 4, 4, generator=generator)
    return nn.functional.interpolate(small, size=20, mode="bilinear")


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_a_stronger_corruption_changes_more(images, kind):
    changes = [(corrupt(images, kind, strength) - images).abs().mean().item() for strength in STRENGTHS]
    assert changes == sorted(changes)
    assert 0 < changes[0] < changes[-1] < 0.6
    assert torch.equal(corrupt(images, kind, 3, seed=5), corrupt(images, kind, 3, seed=5))


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_grey_images_stay_grey_and_the_global_generator_stays_where_it_was(images, kind):
    grey = images[:, :1, :9, :9]
    before = torch.get_rng_state()
    assert corrupt(grey, kind, 5).shape == grey.shape
    assert torch.equal(torch.get_rng_state(), before)


def test_batches_are_corrupted_before_they_are_normalised(images):
    pixels = corank.Pixels((0.4, 0.5, 0.6), (0.2, 0.3, 0.1))
    labels = torch.arange(6)
    loader = [(pixels.from_unit(images[:4]), labels[:4]), (pixels.from_unit(images[4:]), labels[4:])]
    same = Changed(loader, pixels, lambda one, seed: one)
    for (x, y), (wanted, label) in zip(same, loader, strict=True):
        assert torch.allclose(x, wanted, atol=1e-5)
        assert torch.equal(y, label)
    found = torch.cat([pixels.to_unit(x) for x, _ in corrupted(loader, pixels, "brightness", 5)])
    assert torch.allclose(found, (images + 0.5).clamp(0, 1), atol=1e-5)
    noisy = corrupted(loader, pixels, "noise", 2)
    assert all(torch.equal(a, b) for (a, _), (b, _) in zip(noisy, noisy, strict=True))
    shuffled = torch.cat([pixels.to_unit(x) for x, _ in unknown(loader, pixels, "shuffled pixels")])
    assert torch.allclose(shuffled.flatten(2).sort(-1)[0], images.flatten(2).sort(-1)[0], atol=1e-5)
    assert not torch.allclose(shuffled, images, atol=1e-2)


class Bright(nn.Module):
    """Tell bright images from dark ones; a brittle one by a threshold that noise of its own passes."""

    def __init__(self, threshold):
        super().__init__()
        self.threshold = threshold

    def forward(self, x):
        gap = 8 * (x.mean((1, 2, 3)) - self.threshold)
        return torch.stack([-gap, gap], 1)


def test_a_network_that_breaks_under_shift_is_found_out():
    level = torch.linspace(0, 1, 200)
    x = level[:, None, None, None].expand(-1, 1, 8, 8).contiguous()
    y = (level > 0.5).long()
    task = corank.classification(
        [(x, y)], [(x, y)], [(x, y)], example=x[:1], pixels=corank.Pixels((0.0,), (1.0,))
    )
    models = {"dense": Bright(0.5), "same": Bright(0.5), "brittle": Bright(0.5)}
    models["brittle"].forward = lambda z: torch.stack(
        [z.mean((1, 2, 3)) < 0.5, (z.std((1, 2, 3)) < 0.01) & (z.mean((1, 2, 3)) >= 0.5)], 1
    ).float()
    clean = {name: task.evaluate(one, task.final)["accuracy"] for name, one in models.items()}
    assert all(one.value == 1 for one in clean.values())
    second = ("mine", [(x * 0.8, y), (x, y)])
    found = measure_drift(models, clean, task, corruptions=True, shifted=second)
    assert set(found) == {"same", "brittle"}
    assert all(row["extra"] == 0 == row["ci"][0] for row in found["same"]["corruptions"])
    rows = {row["name"]: row for row in found["brittle"]["judged"]}
    assert list(rows) == [*CORRUPTIONS, "mine"]
    low, high = rows["noise"]["ci"]
    assert low < rows["noise"]["extra"] < high < -0.3
    assert rows["contrast"]["extra"] == 0
    assert len(found["brittle"]["corruptions"]) == len(CORRUPTIONS) * len(STRENGTHS)
    shifted = found["same"]["shifted"]
    assert shifted["samples"] == 400
    assert shifted["value"] == shifted["reference"] < 1
    for one in found["brittle"]["unknown"]:
        assert 0 <= one["auroc"] <= 1
    assert json.loads(json.dumps(found)) == found


def test_a_metric_that_follows_from_all_rows_has_its_interval_too():
    generator = torch.Generator().manual_seed(0)
    truth = torch.rand(60, generator=generator)

    def rmse(rows):
        return rows.double().square().mean().sqrt().item()

    def evaluate(model, loader):
        error = torch.cat([model(x) - y for x, y in loader])
        return {"rmse": corank.Metric(rmse(error), False, error, rmse)}

    x = truth[:, None, None, None].expand(-1, 1, 8, 8).contiguous()
    loader = [(x, truth)]
    pixels = corank.Pixels((0.0,), (1.0,))
    task = corank.Task(
        loader, loader, loader, lambda model, batch: batch[0].sum(), evaluate, x[:1], pixels=pixels
    )
    models = {"dense": lambda z: z.mean((1, 2, 3)), "small": lambda z: z.amax((1, 2, 3))}
    clean = {name: evaluate(model, loader)["rmse"] for name, model in models.items()}
    rows = {
        row["name"]: row for row in measure_drift(models, clean, task, corruptions=True)["small"]["judged"]
    }
    low, high = rows["noise"]["ci"]
    assert 0 < low < rows["noise"]["extra"] < high
    assert all(row["ci"] is not None and row["samples"] == 60 for row in rows.values())


def test_the_area_under_the_curve_by_hand():
    generator = torch.Generator().manual_seed(1)
    known, other = (
        torch.rand(40, generator=generator).round(decimals=1),
        torch.rand(30, generator=generator).round(decimals=1),
    )
    wins = (known[:, None] > other).double() + 0.5 * (known[:, None] == other).double()
    assert auroc(known, other) == pytest.approx(wins.mean().item())


@pytest.mark.parametrize(
    ("batch", "pixels", "said"),
    [
        ((torch.ones(1, 1, 4, 4), 0), None, "pixels=corank.Pixels"),
        ({"x": torch.ones(1, 1, 4, 4)}, corank.Pixels(), "allowed are batches"),
        ((torch.ones(1, 4), 0), corank.Pixels(), "allowed are batches"),
        (
            (torch.ones(1, 3, 4, 4), 0),
            corank.Pixels((0.0,) * 2, (1.0,) * 2),
            "2 means and the images have 3",
        ),
    ],
)
def test_what_holds_no_images_is_refused(batch, pixels, said):
    with pytest.raises(CorankError, match=said):
        require_images(batch, pixels)


def test_scales_that_cannot_be():
    with pytest.raises(CorankError, match="each std above 0"):
        corank.Pixels((0.5,), (0.0,))
