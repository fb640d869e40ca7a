"""What makes a training this one and no other, in words: a checkpoint of another is refused by them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from corank.regularizer import ForceRegularizer

FIRST = {"epochs": "of {there} epochs, here are {here}", "start": "it began from other weights"}
PLAIN = (*FIRST, "precision", "frozen_norm")  # all that the checkpoints of older versions hold


def describe_terms(
    optimizer: Optimizer, scheduler: LRScheduler | None, force: ForceRegularizer | None
) -> dict[str, Any]:
    """Return the settings that a training begins with: each a name that a person knows, and a plain value."""
    found: dict[str, Any] = {"optimizer": type(optimizer).__name__}
    for number, group in enumerate(optimizer.param_groups):
        of = f" of group {number}" if len(optimizer.param_groups) > 1 else ""
        found |= {f"{name}{of}": _told(value) for name, value in group.items() if name != "params"}
    found["scheduler"] = None if scheduler is None else type(scheduler).__name__
    if force is None:
        return found | {"force": None}
    return found | {f"force's {name}": value for name, value in force.settings().items()}


def differences(there: Any, here: Mapping[str, Any]) -> str:
    """Say in which settings two trainings differ, the first three; empty where they are one.

    >>> differences({"epochs": 1, "start": "a"}, {"epochs": 2, "start": "a"})
    'of 1 epochs, here are 2'
    """
    if not isinstance(there, dict):
        return "it says nothing of what it began from"
    older = there.keys() <= set(PLAIN)
    names = PLAIN if older else list(dict.fromkeys([*here, *there]))
    found = [
        FIRST.get(name, f"{name} was {{there}}, here it is {{here}}").format(
            there=there.get(name), here=here.get(name)
        )
        for name in names
        if there.get(name) != here.get(name)
    ]
    return "; ".join(found[:3])


def _told(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.tolist()
    if isinstance(value, list | tuple):
        return [_told(one) for one in value]
    return value if value is None or isinstance(value, str | int | float) else type(value).__name__
