"""The databases that roll-outs are tested on."""

from __future__ import annotations

from tests.rollout.postgres import postgres, url

__all__ = ["postgres", "url"]
