"""Train, dev and final parts of a data set, which share no image by construction."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from corank.errors import CorankError

SEED = 0  # of every split: one list, the same for every trial


@dataclass(frozen=True, slots=True)
class Images:
    """Images (n, channels, height, width), uint8 or float, and labels (n,)."""

    pixels: Tensor
    labels: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, chosen: Tensor) -> Images:
        return Images(self.pixels[chosen], self.labels[chosen])


@dataclass(frozen=True, slots=True)
class Parts:
    """A data set in three parts that share no image.

    Args:
        name: how the report calls it.
        classes: their names, in label order.
        train, dev, final: to train on; to choose on; to be read once.
        augment: whether training images may be shifted and mirrored.
    """

    name: str
    classes: tuple[str, ...]
    train: Images
    dev: Images
    final: Images
    augment: bool = False


def split(images: Images, shares: Sequence[float], seed: int = SEED) -> list[Images]:
    """Split by a fixed, seeded list, class by class; equal images go together: no two parts share one.

    Args:
        images: the whole.
        shares: of each part, such as `(0.5, 0.5)`; what rounding leaves over goes to the last.
        seed: of the list.
    Raises: CorankError, when a part would be empty.

    >>> whole = Images(torch.arange(8.0).reshape(8, 1, 1, 1), torch.arange(8) % 2)
    >>> [len(part) for part in split(whole, (0.5, 0.5))]
    [4, 4]
    """
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed)).tolist()
    hashes = content_hashes(images.pixels)
    first: dict[bytes, int] = {}
    for index in order:
        first.setdefault(hashes[index], index)
    chosen: list[list[int]] = [[] for _ in shares]
    place: dict[bytes, int] = {}
    for label in sorted(set(images.labels.tolist())):
        alone = [i for i in order if first[hashes[i]] == i and int(images.labels[i]) == label]
        ends = [round(sum(shares[: k + 1]) * len(alone)) for k in range(len(shares))]
        begin = 0
        for part, end in enumerate([*ends[:-1], len(alone)]):
            chosen[part] += alone[begin:end]
            place |= {hashes[i]: part for i in alone[begin:end]}
            begin = end
    for index in order:
        if first[hashes[index]] != index:
            chosen[place[hashes[index]]].append(index)
    if not all(chosen):
        raise CorankError(
            f"data: {len(images)} samples are too few to split into parts of {', '.join(map(str, shares))}."
        )
    return [images[torch.tensor(sorted(part))] for part in chosen]


def content_hashes(tensor: Tensor) -> list[bytes]:
    """Return a hash of each sample's bytes."""
    rows = tensor.detach().cpu().contiguous().reshape(len(tensor), -1).view(torch.uint8).numpy()
    return [hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in rows]
