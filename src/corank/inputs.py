"""Example inputs: a tensor, a tuple of positional arguments, or a dict of keyword arguments."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from corank.errors import CorankError

Example: TypeAlias = Tensor | Sequence[Any] | Mapping[str, Any]
Forward: TypeAlias = Callable[[nn.Module, Any], Any]

CHANNELS_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}  # by a tensor's dimensions


def call(model: nn.Module, example: Example) -> Any:
    """Run a model on an example: a tensor, positional arguments, or keyword arguments.

    Raises: CorankError, for an example of another kind.

    >>> call(nn.Identity(), torch.ones(2)).tolist()
    [1.0, 1.0]
    """
    if isinstance(example, Tensor):
        return model(example)
    if isinstance(example, Mapping):
        return model(**example)
    if isinstance(example, Sequence) and not isinstance(example, str):
        return model(*example)
    raise CorankError(
        f"example: allowed are a tensor, a tuple of arguments or a dict of keyword arguments; "
        f"got {type(example).__name__}."
    )


def run_batch(model: nn.Module, batch: Any) -> Any:
    """Run a model on one batch of a loader: a dict or tensor is the input, of a tuple the first item is.

    >>> run_batch(nn.Identity(), (torch.ones(2), "labels")).tolist()
    [1.0, 1.0]
    """
    return call(model, batch[0] if isinstance(batch, list | tuple) else batch)


def tensors(value: Any) -> list[Tensor]:
    """Collect the tensors in an input or output, nested tuples, lists and dicts included, in order.

    >>> [t.shape[0] for t in tensors((torch.ones(1), {"a": [torch.ones(2)]}))]
    [1, 2]
    """
    if isinstance(value, Tensor):
        return [value]
    if isinstance(value, Mapping):
        return [tensor for item in value.values() for tensor in tensors(item)]
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [tensor for item in value for tensor in tensors(item)]
    return []


def first_tensor(example: Example) -> Tensor:
    """Return the first tensor of an example.

    Raises: CorankError, when it holds none.
    """
    found = tensors(example)
    if not found:
        raise CorankError("example: holds no tensor. Give one input that the model accepts.")
    return found[0]


def to_device(value: Any, device: torch.device | str) -> Any:
    """Move every tensor of an input to a device, keeping its structure."""
    if isinstance(value, Tensor):
        return value.to(device)
    if isinstance(value, Mapping):
        return {key: to_device(item, device) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(to_device(item, device) for item in value))
    if isinstance(value, list | tuple):
        return type(value)(to_device(item, device) for item in value)
    return value
