"""Searching force, strength, schedule, layers and depth of the cut, for accuracy and cost at once."""

from __future__ import annotations

from corank.tuning.search import tune
from corank.tuning.space import Space

__all__ = ["Space", "tune"]
