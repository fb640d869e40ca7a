"""Membranes of nerve cells found by a U-Net, in electron-microscope images, and how low rank makes it faster.

python -m examples.segmentation trains (about five minutes on one core), times and writes
docs/results/task_segmentation.md.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from benchmarks.cifar import SHARED
from torch import Tensor, nn
from torch.nn import functional

import corank
from corank.data.batches import Batches
from corank.extras import import_extra
from examples.study import Study, run

TILE = 128
PARTS = {"train": slice(0, 8), "dev": slice(20, 22), "final": slice(24, 30)}  # whole images


@lru_cache
def read(part: str, tiles: int | None = None) -> tuple[Tensor, Tensor]:
    """Return tiles (n, 1, TILE, TILE) as bytes, and where they show membrane (n, TILE, TILE)."""
    import numpy as np

    image = import_extra("PIL.Image", "images")
    folder = SHARED / "membrane"
    if not folder.exists():
        raise corank.FileError(f"{folder}: is not here. Put the membrane set there; see data.md beside it.")
    names = sorted(path.name for path in (folder / "image").iterdir())[PARTS[part]]

    def load(kind: str) -> Tensor:
        whole = [torch.from_numpy(np.array(image.open(folder / kind / name))) for name in names]
        cut = torch.stack(whole).unfold(1, TILE, TILE).unfold(2, TILE, TILE)
        return cut.flatten(0, 2)[:tiles].contiguous()

    return load("image")[:, None], load("label") < 128


def scale(images: Tensor, _: torch.Generator) -> Tensor:
    return images.float() / 63.75 - 2


def task(seed: int, tiles: int | None = None) -> corank.Task:
    train, dev, final = (read(part, tiles) for part in PARTS)
    return corank.Task(
        train=Batches(*train, 8, shuffle_seed=seed, prepare=scale),
        dev=Batches(*dev, 16, prepare=scale),
        final=Batches(*final, 16, prepare=scale),
        loss=loss,
        evaluate=evaluate,
        example=scale(dev[0][:4], torch.Generator()),
    )


def block(channels_in: int, channels: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for first in (channels_in, channels):
        layers += [nn.Conv2d(first, channels, 3, padding=1, bias=False), nn.BatchNorm2d(channels), nn.ReLU()]
    return nn.Sequential(*layers)


class UNet(nn.Module):
    """Three scales, skips between them, transposed convolutions upwards; it works at half resolution."""

    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, width, 4, stride=2, padding=1)
        self.down = nn.ModuleList([block(width, width), block(width, 2 * width), block(2 * width, 4 * width)])
        self.up = nn.ModuleList(
            [nn.ConvTranspose2d(4 * width, 2 * width, 2, 2), nn.ConvTranspose2d(2 * width, width, 2, 2)]
        )
        self.joined = nn.ModuleList([block(4 * width, 2 * width), block(2 * width, width)])
        self.head = nn.ConvTranspose2d(width, 1, 4, stride=2, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        fine = self.down[0](self.stem(images))
        middle = self.down[1](functional.max_pool2d(fine, 2))
        coarse = self.down[2](functional.max_pool2d(middle, 2))
        middle = self.joined[0](torch.cat([self.up[0](coarse), middle], 1))
        fine = self.joined[1](torch.cat([self.up[1](middle), fine], 1))
        return self.head(fine)[:, 0]


def loss(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    images, membrane = batch
    return functional.binary_cross_entropy_with_logits(model(images), membrane.float())


def overlap(rows: Tensor) -> float:
    """Return the intersection over union, from one intersection and union a tile."""
    common, either = rows.double().sum(0).tolist()
    return common / max(either, 1.0)


@torch.no_grad()
def evaluate(model: nn.Module, loader: object) -> dict[str, corank.Metric]:
    model.eval()
    rows = []
    for images, membrane in loader:
        found = model(images) > 0
        both = [(found & membrane).flatten(1).sum(1), (found | membrane).flatten(1).sum(1)]
        rows.append(torch.stack(both, 1).float())
    per_tile = torch.cat(rows)
    return {"IoU": corank.Metric(overlap(per_tile), per_sample=per_tile, reduce=overlap)}


STUDY = Study(
    name="segmentation",
    title="Nerve membranes: a U-Net with transposed convolutions",
    about=(
        "Nerve tissue in the electron microscope, ISBI 2012: 8 images to train on, 2 to choose on, 6 "
        "final, in tiles of 128×128. A U-Net at half resolution with skips and transposed convolutions. "
        "IoU is of the membranes, the rarer class. Its interval draws tiles anew; tiles of one image are "
        "alike, so it is too narrow. What may fail: the network is trained for a few minutes and knows "
        "little, so what a cut costs a good one is not shown; with 32 channels at its finest scale most "
        "of the time is where low rank gains least. Further epochs lower the control here, so a cut "
        "that ends above it is no evidence."
    ),
    task=task,
    make=UNet,
    rules=corank.Budget(macs=0.45),
    epochs=(6, 1, 2),
)

if __name__ == "__main__":
    run(STUDY)
