"""How losses of the deciding metric are counted and told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from corank.wording import named, say


@dataclass(frozen=True, slots=True)
class Scale:
    """How losses of the deciding metric are counted and told: in points of a share, or as they are."""

    name: str
    higher: bool
    share: bool
    whole: float  # what a limit is a fraction of

    def loss(self, change: float) -> float:
        """Turn a change into a loss, above 0 where it got worse."""
        return 0.0 - change if self.higher else change  # never -0.0

    def losses(self, interval: Sequence[float]) -> tuple[float, float]:
        """Turn an interval of a change into one of a loss."""
        low, high = sorted(self.loss(end) for end in interval)
        return low, high

    def told(self, loss: float) -> str:
        """Write a loss."""
        return say("{number} points", number=f"{100 * loss:.2f}") if self.share else f"{loss:.3g}"

    def reach(self, low: float, high: float) -> str:
        """Write an interval of losses, its unit once."""
        least = f"{100 * low:.2f}" if self.share else self.told(low)
        return say("{low} to {high}", low=least, high=self.told(high))


def scale_of(result: Mapping[str, Any], dense: Mapping[str, Any]) -> Scale:
    """Return how the deciding metric of a result counts losses."""
    metric = result["protocol"].get("metric") or {}
    share = bool(metric.get("share", True))
    value = abs(float(dense.get("accuracy") or 0.0))
    name, higher = named(str(metric.get("name", "accuracy"))), bool(metric.get("higher_is_better", True))
    return Scale(name, higher, share, 1.0 if share else value)
