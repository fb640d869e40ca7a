"""`corank table`: the latency table of a network, measured here or on a device far away."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer

CACHE = Path("~/.cache/corank")


def table(
    model: Annotated[
        str | None,
        typer.Argument(help="The network: package.module:factory, timm:NAME, transformers:FOLDER."),
    ] = None,
    shape: Annotated[list[str] | None, typer.Option(help="Of an input; repeat for several.")] = None,
    weights: Annotated[Path | None, typer.Option(help="A safetensors file.")] = None,
    backend: Annotated[str, typer.Option(help="The engine that will serve the network.")] = "onnxruntime",
    precision: Annotated[
        str | None, typer.Option(help="f32; bf16 in OpenVINO; int8 in ONNX Runtime and OpenVINO.")
    ] = None,
    method: Annotated[list[str] | None, typer.Option(help="Time this split; may be repeated.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of the engine.")] = None,
    rounds: Annotated[int, typer.Option(help="Samples of each candidate, an even number.")] = 10,
    seconds: Annotated[float | None, typer.Option(help="Time budget.")] = None,
    target: Annotated[
        Path | None, typer.Option(help="A .toml or .json file: what the hardware takes.")
    ] = None,
    cache: Annotated[Path, typer.Option(help="Folder that keeps what was measured.")] = CACHE,
    export: Annotated[
        Path | None, typer.Option(help="Measure nothing; write files for another device into this folder.")
    ] = None,
    import_: Annotated[
        Path | None, typer.Option("--import", help="Make the table from a folder that was run elsewhere.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Where the table goes.")] = Path("table.json"),
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Time every split of every layer on this machine, beside the dense layer.

    For a device far away: --export DIR writes the candidates with a run_table.py that needs no torch; run it
    there, bring the folder back, and --import DIR makes the table.

    Example: corank table mynet:make --shape 1,3,224,224 --backend onnxruntime --out table.json
    """
    from corank.benchmarks.table import latency_table
    from corank.cli.models import load_model, make_example
    from corank.cli.outputs import require_writable
    from corank.errors import CorankError
    from corank.files import write_text
    from corank.remote.exchange import export_table, import_table
    from corank.targets import Target

    if quiet:
        logging.getLogger().setLevel(logging.WARNING)
    if import_ is not None:
        typer.echo(str(write_text(out, import_table(import_).to_json())))
        return
    if model is None:
        raise CorankError("model: give package.module:factory, or --import DIR.")
    if export is not None:
        _refuse_beside_export(
            {
                "precision": precision is not None,
                "threads": threads is not None,
                "seconds": seconds is not None,
                "cache": cache != CACHE,
            }
        )
    else:
        require_writable(out)
    network, example = load_model(model, weights), make_example(shape or ())
    limits = None if target is None else Target.read(target)
    if export is not None:
        export_table(network, example, export, methods=method, target=limits, rounds=rounds)
        typer.echo(
            f"Copy {export} to the device, run `python run_table.py --backend {backend}` in it, copy it "
            f"back, then: corank table --import {export}"
        )
        return
    found = latency_table(
        network,
        example,
        methods=method,
        backend=backend,
        precision=precision,
        threads=threads,
        rounds=rounds,
        time_budget=seconds,
        cache=cache,
        target=limits,
        progress=not quiet,
    )
    for note in found.notes:
        typer.echo(f"note: {note}", err=True)
    typer.echo(str(write_text(out, found.to_json())))


def _refuse_beside_export(given: dict[str, bool]) -> None:
    from corank.errors import CorankError

    if told := [name for name, there in given.items() if there]:
        raise CorankError(
            f"{told[0]}: it has no effect beside --export, which measures nothing. Leave it out; "
            "run_table.py measures on the device, and its --help names what it takes."
        )
