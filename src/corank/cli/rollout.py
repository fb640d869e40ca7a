"""`corank rollout`: how a roll-out goes, and what a person may order."""

from __future__ import annotations

import json
import time
from typing import Annotated

import typer


def rollout(
    command: Annotated[str, typer.Argument(help="status, hold, resume, advance or roll-back.")] = "status",
    store: Annotated[str, typer.Option(help="The SQLite file, or the database's URL.")] = "rollout.db",
    name: Annotated[str, typer.Option(help="Of the roll-out.")] = "rollout",
) -> None:
    """Show a roll-out as JSON, after doing what was ordered; every server sees it within a second.

    Example: corank rollout status --store rollout.db
    """
    from corank.errors import CorankError
    from corank.rollout import Store
    from corank.rollout.moves import COMMANDS
    from corank.rollout.reporting import report

    if command not in ("status", *COMMANDS):
        raise CorankError(f"rollout: allowed are status, {', '.join(COMMANDS)}, got {command!r}.")
    found = Store(store, name, must_exist=True)
    policy = found.terms().policy
    if command != "status":
        found.order(policy, command, time.time())
    typer.echo(json.dumps(report(found, policy), indent=1))
