"""A classification task of the parts of a data set."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from corank.data.batches import Batches
from corank.data.splits import Parts
from corank.tasks import Pixels, Task, classification

PAD = 4  # pixels that a training image is shifted by, at most


@dataclass(frozen=True, slots=True)
class Normalise:
    """Turn bytes into (x / 255 − mean) / std by channel, in training also shifted and mirrored.

    Args:
        mean, std: (channels,), of pixels in [0, 1].
        augment: shift each image by up to 4 pixels, and mirror half of them.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]
    augment: bool = False

    def __call__(self, images: Tensor, generator: torch.Generator) -> Tensor:
        shape = (1, -1, 1, 1)
        x = (images.float() / 255 - torch.tensor(self.mean).view(shape)) / torch.tensor(self.std).view(shape)
        return _shift_and_mirror(x, generator) if self.augment else x


def _shift_and_mirror(x: Tensor, generator: torch.Generator) -> Tensor:
    n, _, height, width = x.shape
    padded = torch.nn.functional.pad(x, (PAD, PAD, PAD, PAD))
    down, right = torch.randint(0, 2 * PAD + 1, (2, n, 1), generator=generator)
    mirrored = torch.rand(n, 1, generator=generator) < 0.5
    columns = torch.arange(width)[None] + right
    columns = torch.where(mirrored, columns.flip(1), columns)
    rows = torch.arange(height)[None] + down
    samples = torch.arange(n)[:, None, None]
    # indices around a slice put the channels last
    return padded[samples, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()


def make_task(
    parts: Parts,
    seed: int,
    *,
    batch_size: int = 64,
    latency_batch: int = 16,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
) -> Task:
    """Make the task: the seed decides only the order of the training data and how they are augmented.

    Args:
        parts: bytes, normalised here, or numbers, taken as they are.
        seed: of the order.
        batch_size: of training.
        latency_batch: samples in the example, at which networks are timed.
        mean, std: of each channel; by default those of the training images.
    """
    train, check = _prepare(parts, mean, std)
    example = parts.final.pixels[:latency_batch]
    return classification(
        Batches(parts.train.pixels, parts.train.labels, batch_size, seed, train),
        Batches(parts.dev.pixels, parts.dev.labels, 256, None, check),
        Batches(parts.final.pixels, parts.final.labels, 256, None, check),
        example=example if check is None else check(example, torch.Generator()),
        pixels=parts.pixels if check is None else Pixels(check.mean, check.std),
    )


def _prepare(
    parts: Parts, mean: tuple[float, ...] | None, std: tuple[float, ...] | None
) -> tuple[Normalise | None, Normalise | None]:
    pixels = parts.train.pixels
    if pixels.is_floating_point():
        return None, None
    sums = [channel.double() for channel in pixels[:10_000].transpose(0, 1).flatten(1)]  # enough to know it
    mean = mean or tuple(float(one.mean() / 255) for one in sums)
    std = std or tuple(max(float(one.std() / 255), 1e-3) for one in sums)
    return Normalise(mean, std, parts.augment), Normalise(mean, std)
