"""What went wrong in a step of training, in words that lead on."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from corank.inputs import tensors
from corank.layers import clean_name
from corank.regularizer import ForceRegularizer
from corank.schedules import Constant
from corank.strength import Adaptive, AutoStrength

_SIGNS = ("out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory")


def is_out_of_memory(error: BaseException) -> bool:
    """Say whether an error means that memory ran out; torch has no one class for that on the CPU."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error).lower() for sign in _SIGNS)


def batch_size(batch: Any) -> int | None:
    """Return the number of samples in a batch: the length of its first tensor.

    >>> batch_size({"x": torch.ones(4, 2)})
    4
    """
    found = [one for one in tensors(batch) if one.dim()]
    return len(found[0]) if found else None


def memory_advice(batch: Any) -> str:
    """Say how large the batch was that did not fit, and what to try."""
    size = batch_size(batch)
    smaller = f", such as {size // 2}" if size and size > 1 else ""
    return (
        f"memory ran out on a batch of {size or 'unknown'} samples. Use smaller batches{smaller}, or inputs "
        "of a lower resolution."
    )


def name_culprit(model: nn.Module, loss: Callable[[nn.Module, Any], Tensor], batch: Any) -> str:
    """Say in which layer numbers stop being finite: in its weights, else in what it puts out."""
    for name, parameter in model.named_parameters():
        if not torch.isfinite(parameter).all():
            return f"layer {clean_name(name).rpartition('.')[0]!r} has weights that are not finite"
    found: list[str] = []

    def watch(name: str) -> Callable[..., None]:
        def look(_: nn.Module, __: Any, output: Any) -> None:
            if not all(torch.isfinite(one).all() for one in tensors(output) if one.is_floating_point()):
                found.append(name)

        return look

    leaves = [(name, module) for name, module in model.named_modules() if not [*module.children()]]
    handles = [module.register_forward_hook(watch(clean_name(name))) for name, module in leaves]
    try:
        with torch.no_grad():
            loss(model, batch)
    except (RuntimeError, ValueError):
        pass  # the search must not hide what it looks for
    finally:
        for handle in handles:
            handle.remove()
    if found:
        return f"layer {found[0]!r} is the first whose output is not finite"
    return "the outputs of all layers are finite, so look at the loss itself"


def strength_advice(force: ForceRegularizer | None, learning_rate: float) -> str:
    """Say what to lower, and to what."""
    lower = f"Lower the learning rate, {learning_rate:g} now, to {learning_rate / 10:g}"
    if force is None:
        return lower
    strongest = max((_strongest(one.strength) for one in force.layers), default=0.0)
    if not strongest or not math.isfinite(strongest):
        return lower
    force_first = f"Lower the force's strength, {strongest:g} now, to {strongest / 10:g}"
    return f"{force_first}; if that is not it, the learning rate, {learning_rate:g} now"


def _strongest(strength: object) -> float:
    if isinstance(strength, Constant):
        return strength.strength
    if isinstance(strength, Adaptive | AutoStrength):
        return strength.ceiling
    for name in ("strength", "start"):  # of the other schedules
        if isinstance(value := getattr(strength, name, None), int | float):
            return float(value)
    return float(strength) if isinstance(strength, int | float) else 0.0
