"""`corank plan`: a method and a rank for every layer, from a target and measured times."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def plan(
    model: Annotated[
        str, typer.Argument(help="The network: package.module:factory, timm:NAME, transformers:FOLDER.")
    ],
    target: Annotated[str, typer.Option(help="Such as macs=0.5, energy=0.95 or latency=0.5.")],
    shape: Annotated[list[str] | None, typer.Option(help="Of an input; repeat for several.")] = None,
    weights: Annotated[Path | None, typer.Option(help="A safetensors file.")] = None,
    table: Annotated[Path | None, typer.Option(help="A latency table, from `corank table`.")] = None,
    out: Annotated[Path, typer.Option(help="Where the plan goes.")] = Path("plan.json"),
) -> None:
    """Choose a method and a rank for every layer, or say why it is left alone.

    It has no data: `corank apply` carries the plan out on files, with factors that keep the weights.

    Example: corank plan mynet:make --shape 1,3,32,32 --table table.json --target latency=0.7
    """
    from corank.cli.models import load_model, make_example
    from corank.cut_targets import parse_target
    from corank.errors import FileError
    from corank.files import write_text
    from corank.latency import LatencyTable
    from corank.planning import plan as make_plan

    wanted, times = parse_target(target), None
    if table is not None:
        try:
            times = LatencyTable.from_json(table.read_text(encoding="utf-8"))
        except OSError as error:
            raise FileError(
                f"{table}: cannot be read ({error.strerror}). Measure it: corank table {model} --out {table}."
            ) from error
    made = make_plan(load_model(model, weights), wanted.rules, example=make_example(shape or ()), table=times)
    typer.echo(str(made))
    typer.echo(str(write_text(out, made.to_json())))
