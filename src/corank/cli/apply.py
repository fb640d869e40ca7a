"""`corank apply`: a plan carried out on files, layer by layer."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def apply(
    plan: Annotated[Path, typer.Argument(help="The plan, as Plan.to_json wrote it.")],
    weights: Annotated[Path, typer.Argument(help="A safetensors file, or the index.json of its shards.")],
    model: Annotated[
        str, typer.Option(help="The dense network: package.module:factory, timm:NAME, transformers:FOLDER.")
    ],
    out: Annotated[Path, typer.Option(help="The file to write.")],
) -> None:
    """Split the layers in a file of weights as planned; no more than one layer is in memory.

    Example: corank apply plan.json model.safetensors --model mine:make_model --out small.safetensors
    """
    from corank.applying import apply_plan
    from corank.cli.models import make_factory
    from corank.errors import FileError
    from corank.plans import Plan

    try:
        made = Plan.from_json(plan.read_text(encoding="utf-8"))
    except OSError as error:
        raise FileError(f"{plan}: cannot be read ({error.strerror}). Give a plan's JSON.") from error
    except (FileError, UnicodeDecodeError) as error:
        raise FileError(f"{plan}: {error}") from error
    apply_plan(made, weights, out, make_factory(model))
    typer.echo(str(out))
