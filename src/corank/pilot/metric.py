"""How the deciding metric of a trial is called and written."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from corank.pilot.formats import known, percent, points, significant
from corank.wording import named, say

Form = Callable[[float | None], str]


@dataclass(frozen=True, slots=True)
class Score:
    """A metric in words: its name, a value, a difference, and what a unit is called.

    `unit` ends a value, such as %; `steps` are what a difference counts, such as points.
    """

    name: str
    form: Form
    change: Form
    unit: str
    steps: str
    higher: bool = True

    @property
    def title(self) -> str:
        """The name at the start of a sentence."""
        return self.name[:1].upper() + self.name[1:]


def score_of(result: Mapping[str, Any]) -> Score:
    """Return how the deciding metric of a result is written; accuracy in percent where nothing is said."""
    metric = result["protocol"].get("metric") or {}
    name, higher = named(str(metric.get("name", "accuracy"))), bool(metric.get("higher_is_better", True))
    if metric.get("share", True):
        digits = accuracy_digits(result)
        return Score(
            name, partial(percent, digits=digits), partial(points, digits=digits), "%", say("points"), higher
        )
    return Score(name, significant, _signed, "", "", higher)


def accuracy_digits(result: Mapping[str, Any]) -> int:
    """Decide how many decimals of a percentage the final samples can carry."""
    final = (result["protocol"].get("samples") or {}).get("final") or 0
    return 2 if final >= 2000 else 1


def _signed(x: float | None) -> str:
    return f"+{significant(x)}" if known(x) and x > 0 else significant(x)
