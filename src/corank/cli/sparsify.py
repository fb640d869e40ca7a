"""`corank sparsify`: a file of weights in, a sparse network's file out."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from corank.plans import Plan

Share = Annotated[float | None, typer.Option(help="Share of zeros or channels, such as 0.8.")]


def sparsify(
    weights: Annotated[Path, typer.Argument(help="A safetensors file, plain or of `corank apply`.")],
    model: Annotated[
        str, typer.Option(help="The dense network: package.module:factory, timm:NAME, transformers:FOLDER.")
    ],
    channels: Share = None,
    multiple: Annotated[int, typer.Option(min=1, help="Kept channels are rounded up to it.")] = 8,
    semi_structured: Annotated[bool, typer.Option("--semi-structured", help="2:4.")] = False,
    unstructured: Share = None,
    scope: Annotated[str, typer.Option(help="global or layer.")] = "global",
    shape: Annotated[list[str] | None, typer.Option(help="Of an input, for channels.")] = None,
    include: Annotated[list[str] | None, typer.Option(help="Only this layer; may be repeated.")] = None,
    exclude: Annotated[list[str] | None, typer.Option(help="Layer to leave alone; may be repeated.")] = None,
    out: Annotated[Path, typer.Option(help="The file to write.")] = Path("sparse.safetensors"),
) -> None:
    """Make a network sparse: channels first, then 2:4, then single weights; print zeros and zipped size.

    It has no data, so nothing is trained: corank.finetune(..., sparsity=corank.Sparsifier(model)) does that.

    Example: corank sparsify model.safetensors --model mine:make_model --unstructured 0.8
    """
    from corank import store
    from corank.cli.models import load_model, make_example, make_factory
    from corank.errors import CorankError
    from corank.sparsity import Channels, SemiStructured, Unstructured, count_zeros
    from corank.sparsity import sparsify as run
    from corank.sparsity.specs import CutSpec

    specs: list[CutSpec] = []
    if channels is not None:
        specs.append(Channels(channels, scope, multiple=multiple, include=include, exclude=exclude or ()))  # type: ignore[arg-type]
    if semi_structured:
        specs.append(SemiStructured(include=include, exclude=exclude or ()))
    if unstructured is not None:
        specs.append(Unstructured(unstructured, scope, include=include, exclude=exclude or ()))  # type: ignore[arg-type]
    if not specs:
        raise CorankError("sparsify: give --unstructured 0.8, --semi-structured or --channels 0.3.")
    example = make_example(shape or ()) if channels is not None else None
    result = run(load_model(model, weights), *specs, example=example)
    store.save(result.model, out, reference=make_factory(model), plan=_kept_plan(weights))
    typer.echo(f"{result}\n\n{count_zeros(result.model)}\n{out}")


def _kept_plan(weights: Path) -> Plan | None:
    """Read the plan that a decomposed network's file carries."""
    from corank import store
    from corank.errors import FileError
    from corank.plans import Plan

    try:
        text = store.read_plan(weights)
    except FileError:  # plain weights
        return None
    return None if text is None else Plan.from_json(text)
