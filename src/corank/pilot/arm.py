"""A trained arm of a trial, and what was seen on the way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn

from corank.plans import Plan
from corank.spectra import Spectrum


@dataclass
class Arm:
    """A trained arm, and what was seen on the way."""

    name: str
    model: nn.Module
    spectrum: Spectrum  # before the cut
    plan: Plan | None = None
    errors: dict[str, float] = field(default_factory=dict)  # relative error of each cut layer's weights
    subnormal: int = 0  # weights below float32's normal range at the time of the cut, before it
    accuracy_after_cut: float | None = None  # on dev, batch norm re-estimated, before fine-tuning
    history: list[dict[str, Any]] = field(default_factory=list)
    seconds: float = 0.0

    def state_dict(self) -> dict[str, Any]:
        """Return what a resumed training must go on with."""
        return {"history": list(self.history), "seconds": self.seconds}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take it over."""
        self.history, self.seconds = list(state["history"]), float(state["seconds"])
