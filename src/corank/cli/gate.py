"""`corank gate`: advance, hold or roll back, from a trial's pilot.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def gate(
    pilot: Annotated[Path, typer.Argument(help="The pilot.json of a trial.")],
    policy: Annotated[Path | None, typer.Option(help="The terms, in YAML; see docs/gate.md.")] = None,
    stage: Annotated[str | None, typer.Option(help="The stage of the policy that it is in now.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the decision as JSON.")] = False,
) -> None:
    """Hold a trial against a policy: exit code 0 to advance, 10 to hold, 20 to roll back; 2 is an error.

    Example: corank gate demo/pilot.json
    """
    from corank.decision.gate import gate as decide

    decision = decide(pilot, policy, stage=stage)
    typer.echo(json.dumps(decision.to_dict(), indent=1) if as_json else str(decision))
    raise typer.Exit(decision.exit_code)
