"""The precision that a training runs in."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import nn

from corank.errors import CorankError
from corank.tasks import device_of

Precision = Literal["float32", "bfloat16"]


def require_precision(value: str, what: str) -> None:
    """Raise CorankError unless a training can run in a precision.

    >>> require_precision("bfloat16", "finetune: precision")
    """
    if value not in get_args(Precision):
        raise CorankError(
            f"{what}: allowed are {' and '.join(get_args(Precision))}, got {value!r}. float16 needs its "
            "losses scaled: train with it in your own loop, where the force attaches to the optimizer."
        )


def autocast(model: nn.Module, precision: Precision) -> torch.autocast:
    """Return the context in which a loss is taken: in bfloat16 the products are, and weights stay float32.

    Nothing is cached: inside another autocast of the caller, even a disabled one, torch would keep the
    weights in bfloat16 of the first step for all steps.
    """
    return torch.autocast(
        device_of(model).type, torch.bfloat16, enabled=precision == "bfloat16", cache_enabled=False
    )
