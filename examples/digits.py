"""MNIST from ../shared/data, read once, for the examples that are about digits."""

from __future__ import annotations

from functools import lru_cache

import torch
from benchmarks.cifar import SHARED
from torch import Tensor

from corank.data.mnist import read_mnist
from corank.data.splits import Parts


@lru_cache
def digits() -> Parts:
    """Return train, dev and final; dev and final are halves of the test images."""
    return read_mnist(SHARED / "mnist")


def scale(images: Tensor, _: torch.Generator) -> Tensor:
    """Turn bytes to numbers from −1 to 1."""
    return images.float() / 127.5 - 1
