"""`corank report`: the page of a trial, made again from its pilot.json."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def report(
    pilot: Annotated[Path, typer.Argument(help="The pilot.json of a trial.")],
    out: Annotated[Path | None, typer.Option(help="The file; beside pilot.json by default.")] = None,
    form: Annotated[str, typer.Option("--format", help="html, md or json.")] = "html",
    lang: Annotated[str, typer.Option(help="en or ja.")] = "en",
) -> None:
    """Write the report of a trial again: as one self-contained HTML page, as Markdown, or as JSON.

    Example: corank report demo/pilot.json --lang ja
    """
    from corank.decision.results import read_result
    from corank.pilot.document import write_document

    path = out or pilot.with_name(f"report.{form}")
    typer.echo(str(write_document(read_result(pilot), path, form, lang)))
