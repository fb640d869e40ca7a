"""Values that a trial draws alike whether it was stopped on the way or not."""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class SeededDraws:
    """Draw each value of a trial by a sampler whose seed follows from the trial's number and the name.

    What was drawn before a stop stays, and does not shift what is left to draw.

    Args:
        trial: Optuna's.
        sampler: makes a sampler of Optuna with a seed.
        seed: of the search.
    """

    trial: Any
    sampler: Callable[[int], Any]
    seed: int

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """Draw a number."""
        self._seed(name)
        return float(self.trial.suggest_float(name, low, high, log=log))

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        """Draw one of the choices."""
        self._seed(name)
        return self.trial.suggest_categorical(name, choices)

    def _seed(self, name: str) -> None:
        seed = zlib.crc32(f"{self.seed} {self.trial.number} {name}".encode())
        self.trial.study.sampler = self.sampler(seed)
