"""The database that replicas share."""

from __future__ import annotations

from tests.rollout.postgres import postgres

__all__ = ["postgres"]
