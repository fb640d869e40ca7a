"""Images made worse in seven ways at five strengths, and images that are none, for batches of a task.

Shapes: n images, c channels, height h, width w, values in [0, 1].
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from corank.errors import CorankError
from corank.extras import import_extra
from corank.tasks import Loader, Pixels

STRENGTHS = (1, 2, 3, 4, 5)
Change = Callable[[Tensor], Tensor]


def noise(images: Tensor, sigma: float) -> Tensor:
    """Add Gaussian noise of a standard deviation."""
    change = import_extra("kornia.augmentation", "drift").RandomGaussianNoise(mean=0.0, std=sigma, p=1.0)
    return change(images)  # type: ignore[no-any-return]


def blur(images: Tensor, share: float) -> Tensor:
    """Blur with a Gaussian as wide as a share of the shorter side."""
    sigma = share * min(images.shape[-2:])
    size = 2 * max(1, round(2 * sigma)) + 1
    most = min(images.shape[-2:]) // 2 * 2 - 1  # a mirrored border is narrower than the image
    size = max(1, min(size, most))
    filters = import_extra("kornia.filters", "drift")
    return filters.gaussian_blur2d(images, (size, size), (sigma, sigma))  # type: ignore[no-any-return]


def contrast(images: Tensor, factor: float) -> Tensor:
    """Draw all pixels towards the mean of their image."""
    enhance = import_extra("kornia.enhance", "drift")
    return enhance.adjust_contrast_with_mean_subtraction(images, factor)  # type: ignore[no-any-return]


def brightness(images: Tensor, amount: float) -> Tensor:
    """Make all pixels brighter."""
    return import_extra("kornia.enhance", "drift").adjust_brightness(images, amount)  # type: ignore[no-any-return]


def occlusion(images: Tensor, share: float) -> Tensor:
    """Cover a grey square of a share of the image, at random."""
    augmentation = import_extra("kornia.augmentation", "drift")
    change = augmentation.RandomErasing(scale=(share, share), ratio=(1.0, 1.0), value=0.5, p=1.0)
    return change(images)  # type: ignore[no-any-return]


def jpeg(images: Tensor, quality: float) -> Tensor:
    """Compress and decompress as JPEG does; grey images as three equal channels."""
    codec = import_extra("kornia.enhance", "drift").jpeg_codec_differentiable
    channels = images.shape[1]
    if channels == 3:
        return codec(images, images.new_tensor([quality]))  # type: ignore[no-any-return]
    grey = images.reshape(-1, 1, *images.shape[2:]).expand(-1, 3, -1, -1)
    return codec(grey, images.new_tensor([quality])).mean(1).reshape(images.shape)  # type: ignore[no-any-return]


def shift(images: Tensor, share: float) -> Tensor:
    """Shift by a share of the shorter side, in a random direction."""
    angle = 2 * torch.pi * torch.rand(len(images))
    step = share * min(images.shape[-2:]) * torch.stack([angle.cos(), angle.sin()], 1)
    geometry = import_extra("kornia.geometry.transform", "drift")
    return geometry.translate(images, step.to(images))  # type: ignore[no-any-return]


CORRUPTIONS: dict[str, tuple[Callable[[Tensor, float], Tensor], tuple[float, ...]]] = {
    "noise": (noise, (0.04, 0.08, 0.12, 0.18, 0.26)),
    "blur": (blur, (0.012, 0.02, 0.03, 0.045, 0.06)),
    "contrast": (contrast, (0.75, 0.5, 0.4, 0.3, 0.15)),
    "brightness": (brightness, (0.1, 0.2, 0.3, 0.4, 0.5)),
    "occlusion": (occlusion, (0.02, 0.05, 0.1, 0.15, 0.25)),
    "jpeg": (jpeg, (80, 50, 30, 18, 10)),
    "shift": (shift, (0.03, 0.06, 0.09, 0.125, 0.16)),
}


def corrupt(images: Tensor, kind: str, strength: int, seed: int = 0) -> Tensor:
    """Return images in [0, 1] made worse; the same seed draws the same.

    Args:
        images: (n, c, h, w) in [0, 1].
        kind: of `CORRUPTIONS`.
        strength: 1 to 5.
        seed: of whatever is drawn.
    Raises: ExtraError, when kornia is missing.

    Source: kornia; the kinds and most strengths follow Hendrycks and Dietterich 2019.
    """
    change, amounts = CORRUPTIONS[kind]
    return _drawn(images, lambda one: change(one, amounts[strength - 1]), seed)


def random_images(images: Tensor) -> Tensor:
    """Return images of nothing: each pixel drawn evenly from [0, 1]."""
    return torch.rand_like(images)


def shuffled_images(images: Tensor) -> Tensor:
    """Return images whose pixels are shuffled, each image in an order of its own."""
    flat = images.flatten(2)
    order = torch.rand(len(flat), 1, flat.shape[2]).argsort(-1).to(flat.device)
    return flat.gather(2, order.expand_as(flat)).view_as(images)


UNKNOWN: dict[str, Change] = {"noise": random_images, "shuffled pixels": shuffled_images}


@dataclass(frozen=True, slots=True)
class Changed:
    """The batches of a loader with their images changed, the same in every pass.

    Args:
        loader: batches `(input, ...)`.
        pixels: how inputs came from images in [0, 1].
        change: `(images, seed) -> images`, both in [0, 1].
    """

    loader: Loader
    pixels: Pixels
    change: Callable[[Tensor, int], Tensor]

    def __iter__(self) -> Iterator[Any]:
        for number, (inputs, *rest) in enumerate(self.loader):
            images = self.change(self.pixels.to_unit(inputs), number).clamp(0, 1)
            yield (self.pixels.from_unit(images), *rest)


def corrupted(loader: Loader, pixels: Pixels, kind: str, strength: int) -> Changed:
    """Return the batches of a loader, corrupted."""
    return Changed(loader, pixels, lambda images, seed: corrupt(images, kind, strength, seed))


def unknown(loader: Loader, pixels: Pixels, kind: str) -> Changed:
    """Return as many images that a network cannot know."""
    return Changed(loader, pixels, lambda images, seed: _drawn(images, UNKNOWN[kind], seed))


def require_images(batch: Any, pixels: Pixels | None) -> None:
    """Raise CorankError unless a batch holds images whose scale is known, and kornia is installed."""
    import_extra("kornia", "drift")
    if pixels is None:
        raise CorankError(
            "drift: the task does not say how its inputs came from images in [0, 1]. Give it "
            "pixels=corank.Pixels(mean, std), or leave out --drift."
        )
    first = batch[0] if isinstance(batch, list | tuple) and len(batch) > 1 else None
    if not isinstance(first, Tensor) or first.dim() != 4 or not first.is_floating_point():
        raise CorankError(
            "drift: allowed are batches (images, labels) with images (n, channels, height, width) in "
            f"floating point, got a {type(batch).__name__}. Leave out --drift."
        )
    if len(pixels.mean) not in (1, first.shape[1]):
        raise CorankError(
            f"drift: pixels has {len(pixels.mean)} means and the images have {first.shape[1]} channels. "
            "Give one for each channel, or one for all."
        )


def _drawn(images: Tensor, change: Change, seed: int) -> Tensor:
    with torch.random.fork_rng(devices=[]), torch.no_grad():  # kornia draws from the global generator
        torch.manual_seed(seed)
        return change(images)
