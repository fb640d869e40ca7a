"""Batches of images in memory, in an order that depends only on the seed and the number of the pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

Prepare = Callable[[Tensor, torch.Generator], Tensor]


class Batches:
    """Batches `(images, labels)`; another pass has another order, and one that was stopped can be repeated.

    Args:
        images, labels: (n, ...) and (n,).
        batch_size: samples in a batch; the last may have fewer.
        shuffle_seed: shuffle, and draw what `prepare` draws, from this seed; None keeps the order.
        prepare: makes the input of the network of the images of a batch, such as to normalise them.
    """

    def __init__(
        self,
        images: Tensor,
        labels: Tensor,
        batch_size: int,
        shuffle_seed: int | None = None,
        prepare: Prepare | None = None,
    ) -> None:
        self.images, self.labels, self.batch_size = images, labels, batch_size
        self.shuffle_seed, self.prepare = shuffle_seed, prepare
        self.passes = 0

    def __len__(self) -> int:
        return -(-len(self.labels) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        order = torch.arange(len(self.labels))
        generator = torch.Generator().manual_seed((self.shuffle_seed or 0) * 100_003 + self.passes)
        if self.shuffle_seed is not None:
            order = torch.randperm(len(self.labels), generator=generator)
            self.passes += 1
        for chosen in torch.split(order, self.batch_size):
            images = self.images[chosen]
            yield images if self.prepare is None else self.prepare(images, generator), self.labels[chosen]

    def state_dict(self) -> dict[str, Any]:
        """Return which pass is next."""
        return {"passes": self.passes}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Make the next pass the one that the state was taken before."""
        self.passes = int(state["passes"])
