"""Layers of one shape in one batch, as long as the copy that a batch needs stays small."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator
from typing import TypeVar

from torch import Tensor

STACK_LIMIT = 2**18  # weights in a batch; larger layers gain nothing from a copy into one

T = TypeVar("T")


def largest(weights: Iterable[Tensor]) -> int:
    """Return the weights of the largest layer."""
    return max((weight.numel() for weight in weights), default=0)


def batches(
    items: Iterable[T], key: Callable[[T], Hashable], weight: Callable[[T], Tensor], limit: int
) -> Iterator[list[T]]:
    """Collect items of one key, in batches of at most `limit` weights; a larger item is a batch of its own.

    >>> import torch
    >>> items = [torch.zeros(size) for size in (2, 2, 3, 2)]
    >>> [len(batch) for batch in batches(items, key=len, weight=lambda one: one, limit=4)]
    [2, 1, 1]
    """
    open_batches: dict[Hashable, list[T]] = {}
    for item in items:
        batch = open_batches.setdefault(key(item), [])
        batch.append(item)
        if (len(batch) + 1) * weight(item).numel() > limit:
            yield open_batches.pop(key(item))
    yield from open_batches.values()
