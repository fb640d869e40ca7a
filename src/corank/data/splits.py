"""Train, dev and final parts of a data set, which share no image by construction."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from corank.errors import CorankError
from corank.tasks import Pixels

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
        pixels: how images that are not bytes came from [0, 1].
    """

    name: str
    classes: tuple[str, ...]
    train: Images
    dev: Images
    final: Images
    augment: bool = False
    pixels: Pixels | None = None


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


def fold_parts(parts: Parts, fold: int, folds: int) -> Parts:
    """Return one fold of cross-validation: train and dev are shared out, and final is left unread.

    Train and dev are split together, class by class, equal images together. Part `fold` takes the place of
    final, the next one that of dev, and the others are trained on.

    Args:
        parts: the whole.
        fold: from 0 to `folds` − 1.
        folds: at least 3.

    >>> images = Images(torch.arange(24.0).reshape(24, 1, 1, 1), torch.arange(24) % 2)
    >>> rows = torch.arange(24)
    >>> parts = Parts("x", ("a", "b"), images[rows[:12]], images[rows[12:18]], images[rows[18:]])
    >>> one = fold_parts(parts, 0, 3)
    >>> len(one.train), len(one.dev), len(one.final)
    (6, 6, 6)
    """
    pool = Images(
        torch.cat([parts.train.pixels, parts.dev.pixels]), torch.cat([parts.train.labels, parts.dev.labels])
    )
    pieces = split(pool, (1 / folds,) * folds)
    held, chosen = pieces[fold], pieces[(fold + 1) % folds]
    rest = [one for number, one in enumerate(pieces) if number not in (fold, (fold + 1) % folds)]
    train = Images(torch.cat([one.pixels for one in rest]), torch.cat([one.labels for one in rest]))
    return replace(parts, train=train, dev=chosen, final=held)


def content_hashes(tensor: Tensor) -> list[bytes]:
    """Return a hash of each sample's bytes."""
    rows = tensor.detach().cpu().contiguous().reshape(len(tensor), -1).view(torch.uint8).numpy()
    return [hashlib.blake2b(row.tobytes(), digest_size=16).digest() for row in rows]
