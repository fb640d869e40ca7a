"""`corank bundle`: a model's file with its checksum, to roll out and to roll back to."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def bundle(
    weights: Annotated[Path, typer.Argument(help="A .safetensors or .onnx file.")],
    out: Annotated[Path, typer.Option(help="The folder to make.")],
    model: Annotated[str | None, typer.Option(help="For safetensors: package.module:factory.")] = None,
    shape: Annotated[
        str | None, typer.Option(help="Of an input, batch first; other shapes are refused.")
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="Of an input; float32 for safetensors, or what the ONNX file says.")
    ] = None,
) -> None:
    """Make the folder that `corank serve` takes.

    The model is loaded once, to be sure that it can be.

    Example: corank bundle small.safetensors --model mine:make_model --shape 1,3,32,32 --out small
    """
    from corank.cli.models import make_factory, parse_shapes
    from corank.serving.bundles import check_file, load_bundle, write_bundle

    sizes = parse_shapes([shape])[0] if shape else None
    made = check_file(out, weights, factory=model, shape=sizes, dtype=dtype)
    load_bundle(made, make_factory(model) if model else None)
    written = write_bundle(out, weights, factory=model, shape=sizes, dtype=dtype)
    typer.echo(f"{out}: {written.digest}")
