"""The command line: one verb a file, each one library call, an artefact in and an artefact out."""

from __future__ import annotations

import logging
import sys

import typer

from corank.cli.apply import apply
from corank.cli.bundle import bundle
from corank.cli.compress import compress
from corank.cli.gate import gate
from corank.cli.headroom import headroom
from corank.cli.pilot import pilot
from corank.cli.plan import plan
from corank.cli.report import report
from corank.cli.rollout import rollout
from corank.cli.serve import serve
from corank.cli.sparsify import sparsify
from corank.cli.table import table
from corank.cli.tune import tune
from corank.errors import CorankError

app = typer.Typer(
    name="corank",
    help=(
        "Coordinate a network's filters while it trains, then make it low-rank, measured, and faster.\n\n"
        "Example: corank pilot --out demo --epochs 3"
    ),
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
app.command()(headroom)
app.command()(table)
app.command()(plan)
app.command()(compress)
app.command()(apply)
app.command()(sparsify)
app.command()(pilot)
app.command()(tune)
app.command()(report)
app.command()(gate)
app.command()(bundle)
app.command()(serve)
app.command()(rollout)


def main() -> None:
    """Run the command line; an error that corank raises on purpose is one line and exit code 2."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for noisy in ("onnxscript", "onnx_ir", "torch.onnx", "matplotlib"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    try:
        app()
    except CorankError as error:
        sys.stderr.write(f"corank: {error}\n")
        raise SystemExit(2) from None


__all__ = ["app", "main"]
