"""Read a pilot.json, and find in it what the decision is about."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from corank.errors import FileError

SCHEMA = 2
CANDIDATES = ("force", "force_plan", "lowrank")  # the arm that a page is about: the first one that was run


def read_result(path: Path) -> dict[str, Any]:
    """Read a pilot.json.

    Raises: FileError, when it is absent, not JSON, of another schema, or has no arms.
    """
    try:
        result = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FileError(
            f"{path}: cannot be read ({error.strerror}). Give the pilot.json of a trial."
        ) from error
    except ValueError as error:
        raise FileError(f"{path}: not JSON ({error}). Give the pilot.json of a trial.") from error
    return check_result(result, str(path))


def check_result(result: Any, where: str = "pilot result") -> dict[str, Any]:
    """Return a result that has this schema and arms with names of their own.

    Raises: FileError, for anything else.
    """
    schema = result.get("schema") if isinstance(result, dict) else None
    if schema != SCHEMA:
        raise FileError(
            f"{where}: allowed is a pilot.json of schema {SCHEMA}, got schema {schema!r}. "
            "Run `corank pilot` again with this version, or use the version that wrote it."
        )
    arms = result.get("arms")
    listed = arms if isinstance(arms, list) else ()
    names = [arm.get("name") if isinstance(arm, dict) else None for arm in listed]
    if not names or not all(isinstance(name, str) for name in names) or len(set(names)) != len(names):
        raise FileError(
            f"{where}: arms need names, each its own, got {names}. Use the pilot.json as it was written."
        )
    if not isinstance(result.get("protocol"), dict):
        raise FileError(f"{where}: has no protocol. Use the pilot.json as it was written.")
    return result  # type: ignore[no-any-return]


def candidate_arm(result: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the arm to decide on: the one with force, else plain low rank, else any that is not dense."""
    arms = {arm["name"]: arm for arm in result["arms"] if arm["name"] != "dense"}
    return next((arms[name] for name in CANDIDATES if name in arms), next(iter(arms.values()), None))


def subject_arm(result: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the arm that a page is about: the one that was decided on, else the one to decide on."""
    judged = (result.get("decision") or {}).get("arm")
    return next((arm for arm in result["arms"] if arm["name"] == judged), candidate_arm(result))


def reference_arm(result: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the dense arm, which the others are compared with."""
    return next((arm for arm in result["arms"] if arm["name"] == "dense"), None)
