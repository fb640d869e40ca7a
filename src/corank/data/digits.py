"""scikit-learn's digits: 1,797 images of 8×8, enlarged to 32×32."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from corank.data.splits import SEED, Images, Parts
from corank.extras import import_extra
from corank.tasks import Pixels

SAMPLES = {"train": 1150, "dev": 287, "final": 360}


def read_digits() -> Parts:
    """Read the digits: 1,150 to train on, 287 to choose on, 360 read once at the end; float, normalised.

    Raises: ExtraError, when scikit-learn is missing.
    """
    images, labels = _images()
    mean, std = images.mean(), images.std()
    images = (images - mean) / std
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(SEED))
    train, dev, final = (Images(images, labels)[part] for part in torch.split(order, list(SAMPLES.values())))
    name = "scikit-learn digits, 1,797 images of 8×8, enlarged to 32×32"
    pixels = Pixels((mean.item(),), (std.item(),))
    return Parts(name, tuple(str(digit) for digit in range(10)), train, dev, final, pixels=pixels)


def _images() -> tuple[Tensor, Tensor]:
    data = import_extra("sklearn.datasets", "digits").load_digits()
    images = torch.from_numpy(data.images).float()[:, None] / 16  # 8×8, 0 to 16
    images = functional.interpolate(images, size=32, mode="bilinear", align_corners=False)
    return images, torch.from_numpy(data.target).long()
