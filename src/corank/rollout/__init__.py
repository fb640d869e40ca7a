"""Staged roll-out: a live A/B test that stops itself. Names load on first use."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from corank.rollout.policy import Policy
    from corank.rollout.readings import Reading
    from corank.rollout.router import Answer, Bundles, Router
    from corank.rollout.store import Store

_HOME_OF = {
    "Answer": "corank.rollout.router",
    "Bundles": "corank.rollout.router",
    "Policy": "corank.rollout.policy",
    "Reading": "corank.rollout.readings",
    "Router": "corank.rollout.router",
    "Store": "corank.rollout.store",
}
__all__ = ["Answer", "Bundles", "Policy", "Reading", "Router", "Store"]


def __getattr__(name: str) -> Any:
    if name not in _HOME_OF:
        raise AttributeError(f"module 'corank.rollout' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOME_OF[name]), name)
