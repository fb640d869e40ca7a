"""`corank compress`: a network made faster, or left dense where nothing pays."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

from corank.cli.table import CACHE


def compress(
    model: Annotated[
        str, typer.Argument(help="The network: package.module:factory, timm:NAME, transformers:FOLDER.")
    ],
    target: Annotated[str, typer.Option(help="Such as latency=0.7, macs=0.5 or energy=0.95.")],
    shape: Annotated[list[str] | None, typer.Option(help="Of an input; repeat for several.")] = None,
    weights: Annotated[Path | None, typer.Option(help="A safetensors file.")] = None,
    backend: Annotated[
        str | None, typer.Option(help="The engine that will serve it: the target's, or onnxruntime.")
    ] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of the engine.")] = None,
    cache: Annotated[Path, typer.Option(help="Folder that keeps what was measured.")] = CACHE,
    out: Annotated[Path, typer.Option(help="Where the network goes.")] = Path("small.safetensors"),
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Measure, plan, cut, time, undo what does not pay: faster, measured, or the dense network with a reason.

    It has no data, so the factors keep the weights and nothing is fine-tuned; for that, call corank.compress
    with a Task, or run `corank pilot`.

    Example: corank compress mynet:make --shape 1,3,32,32 --target latency=0.7 --backend onnxruntime
    """
    from corank import store
    from corank.benchmarks.table import latency_table
    from corank.cli.models import load_model, make_example
    from corank.cli.outputs import require_writable
    from corank.compression import compress as run
    from corank.cut_targets import parse_target

    if quiet:
        logging.getLogger().setLevel(logging.WARNING)
    require_writable(out)
    wanted = parse_target(target)
    engine = backend or (wanted.backend if "backend" in wanted.to_dict() else "onnxruntime")
    network, example = load_model(model, weights).eval(), make_example(shape or ())
    times = latency_table(
        network,
        example,
        backend=engine,
        threads=threads,
        time_budget=wanted.time_budget,
        cache=cache,
        progress=not quiet,
    )
    result = run(network, wanted.rules, example=example, table=times, progress=not quiet)
    store.save(result.model, out, reference=lambda: load_model(model), plan=result.plan)
    typer.echo(f"{result.plan}\n\n{result.verdict}\n{out}")
