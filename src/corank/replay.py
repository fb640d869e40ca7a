"""What decides the order of the data and every random number, taken down and put back.

A loader repeats itself if it draws from torch's, numpy's or Python's global generators, from a generator of
its own or of its sampler, or if it has `state_dict` and `load_state_dict`.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def random_state() -> dict[str, Any]:
    """Return the states of the global generators, as plain values and tensors."""
    version, words, gauss = random.getstate()
    kind, keys, *rest = np.random.get_state()
    cuda: bool = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state_all() if cuda else [],
        "python": [version, torch.tensor(words), gauss],
        "numpy": [str(kind), torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest],
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Put the global generators back to what `random_state` gave."""
    torch.set_rng_state(state["torch"])
    if state["cuda"] and torch.cuda.is_available():
        torch.cuda.set_rng_state_all(state["cuda"])
    version, words, gauss = state["python"]
    random.setstate((version, tuple(words.tolist()), gauss))
    kind, keys, *rest = state["numpy"]
    np.random.set_state((kind, keys.numpy().astype(np.uint32), *rest))


def set_seed(seed: int) -> None:
    """Seed the global generators of torch, numpy and Python."""
    torch.manual_seed(seed)
    np.random.seed(seed % 2**32)
    random.seed(seed)


def loader_state(loader: Any) -> dict[str, Any]:
    """Return what a loader's next pass depends on, besides the global generators.

    >>> loader_state([1, 2])
    {'own': None, 'generators': []}
    """
    own = loader.state_dict() if _keeps_state(loader) else None
    return {"own": own, "generators": [one.get_state() for one in _generators(loader)]}


def set_loader_state(loader: Any, state: dict[str, Any]) -> None:
    """Put a loader back to what `loader_state` gave."""
    if state["own"] is not None and _keeps_state(loader):
        loader.load_state_dict(state["own"])
    for generator, one in zip(_generators(loader), state["generators"], strict=False):
        generator.set_state(one)


def _keeps_state(loader: Any) -> bool:
    return hasattr(loader, "state_dict") and hasattr(loader, "load_state_dict")


def _generators(loader: Any) -> list[torch.Generator]:
    sampler = getattr(loader, "sampler", None)
    inner = getattr(getattr(loader, "batch_sampler", None), "sampler", None)
    found = (getattr(one, "generator", None) for one in (loader, sampler, inner))
    unique = {id(one): one for one in found if isinstance(one, torch.Generator)}
    return list(unique.values())


@contextmanager
def undisturbed(*loaders: Any) -> Iterator[None]:
    """Put the global generators and the loaders back after a block that draws from them."""
    before, states = random_state(), [loader_state(one) for one in loaders]
    try:
        yield
    finally:
        for loader, state in zip(loaders, states, strict=True):
            set_loader_state(loader, state)
        set_random_state(before)
