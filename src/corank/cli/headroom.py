"""`corank headroom`: what low rank could gain on this machine, before any training."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from corank.cli.problems import Costs
from corank.cli.table import CACHE


def headroom(
    model: Annotated[
        str, typer.Argument(help="package.module:factory, timm:NAME, transformers:FOLDER, or an .onnx file.")
    ],
    shape: Annotated[list[str] | None, typer.Option(help="Of an input; repeat for several.")] = None,
    backend: Annotated[str, typer.Option(help="The engine that will serve the network.")] = "onnxruntime",
    precision: Annotated[
        str | None, typer.Option(help="f32; bf16 in OpenVINO; int8 in ONNX Runtime and OpenVINO.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of the engine.")] = None,
    seconds: Annotated[float, typer.Option(help="Time budget.")] = 120.0,
    target: Annotated[
        Path | None, typer.Option(help="A .toml or .json file: what the hardware takes.")
    ] = None,
    cache: Annotated[Path, typer.Option(help="Folder that keeps what was measured.")] = CACHE,
    economics: Costs = None,
    out: Annotated[Path | None, typer.Option(help="Write it as JSON too.")] = None,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Say in two minutes whether low rank is worth it here: speedup against rank, layer by layer.

    Example: corank headroom model.onnx --backend openvino
    """
    from corank.benchmarks.headroom import headroom as measure
    from corank.cli.models import load_model, make_example
    from corank.cli.outputs import require_writable
    from corank.decision.economics import Economics, Measured, estimate
    from corank.errors import CorankError
    from corank.files import write_text
    from corank.pilot.money_lines import money_lines, sensitivity_lines
    from corank.targets import Target

    if quiet:
        logging.getLogger().setLevel(logging.WARNING)
    require_writable(out)
    numbers = None if economics is None else Economics.read(economics)
    if numbers is not None and numbers.backend not in (None, backend):
        raise CorankError(
            f"{economics}: backend is {numbers.backend!r}, and headroom measures {backend!r}. "
            f"Add --backend {numbers.backend}."
        )
    example = make_example(shape) if shape else None
    found = measure(
        Path(model) if model.endswith(".onnx") else load_model(model),
        example,
        backend=backend,
        precision=precision,
        threads=threads,
        time_budget=seconds,
        target=None if target is None else Target.read(target),
        cache=cache,
        progress=not quiet,
    )
    if out is not None:
        write_text(out, found.to_json())
    typer.echo(str(found))
    if numbers is not None:
        best = Measured(found.backend, found.whole_ms, found.batch, found.best, peaks=found.weight_bytes)
        gained = estimate(numbers, best)
        lines = money_lines(numbers, gained, bound=True) + sensitivity_lines(numbers, gained, bound=True)
        typer.echo("\n".join(lines))
