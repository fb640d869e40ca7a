"""`corank report`: the page of a trial, made again from its pilot.json."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    pilot: Annotated[Path, typer.Argument(help="The pilot.json of a trial.")],
    out: Annotated[Path | None, typer.Option(help="The page; beside pilot.json by default.")] = None,
) -> None:
    """Write the report of a trial again, as one self-contained HTML page.

    Example: corank report demo/pilot.json
    """
    from corank.decision.results import read_result
    from corank.pilot.page import write_report

    typer.echo(str(write_report(read_result(pilot), out or pilot.with_name("report.html"))))
