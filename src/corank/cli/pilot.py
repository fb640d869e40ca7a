"""`corank pilot`: the whole road as one trial, with its report."""

from __future__ import annotations

import json
import logging
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from corank.cli.problems import Costs, Data, Keep, Model, Shifted, find_problem

_TARGET = (
    "Such as macs=0.35 or latency=0.5,backend=onnxruntime; also params, bytes, peak_memory, latency_ms, "
    "energy, error, accuracy."
)


def pilot(
    out: Annotated[Path, typer.Option(help="Folder for pilot.json, report.html, models and plans.")],
    data: Data = None,
    model: Model = None,
    weights: Annotated[
        Path | None, typer.Option(help="Trained weights, safetensors: all arms start there.")
    ] = None,
    recipe: Annotated[
        Path | None, typer.Option(help="These settings in a TOML file; options override.")
    ] = None,
    arms: Annotated[str | None, typer.Option(help="Of dense,lowrank,force,force_plan, by commas.")] = None,
    epochs: Annotated[int | None, typer.Option(help="Epochs of each arm, before and after the cut.")] = None,
    seeds: Annotated[int | None, typer.Option(help="Repeat with this many seeds.")] = None,
    folds: Annotated[int | None, typer.Option(help="Cross-validate on so many folds, too.")] = None,
    target: Annotated[str | None, typer.Option(help=_TARGET)] = None,
    front: Annotated[
        str | None, typer.Option(help="Cut to these shares, too, such as 0.7,0.2, for the page's slider.")
    ] = None,
    macs: Annotated[float | None, typer.Option(help="Short for --target macs=…")] = None,
    kind: Annotated[str | None, typer.Option(help="The force: l2, l1, subspace, output and others.")] = None,
    strength: Annotated[float | None, typer.Option(help="Its strength (mean scale).")] = None,
    precision: Annotated[str | None, typer.Option(help="Of training: float32 or bfloat16.")] = None,
    keep: Keep = None,
    backend: Annotated[list[str] | None, typer.Option(help="Engine to time; may be repeated.")] = None,
    drift: Annotated[bool, typer.Option("--drift", help="Measure on images made worse, too.")] = False,
    shifted: Shifted = None,
    energy: Annotated[bool, typer.Option("--energy", help="Estimate the energy of an inference.")] = False,
    economics: Costs = None,
    threads: Annotated[int | None, typer.Option(help="Threads for every engine.")] = None,
    policy: Annotated[
        Path | None, typer.Option(help="Terms of the decision, in YAML; see docs/gate.md.")
    ] = None,
    lang: Annotated[str | None, typer.Option(help="Of the report: en or ja.")] = None,
    again: Annotated[bool, typer.Option("--again", help="Replace a finished trial in the folder.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Train dense, low-rank and force arms side by side, measure them, and write the report.

    Without --data the data are scikit-learn's digits and the network is a VGG of 1.2M parameters: minutes on
    two cores. The same command goes on with a trial that was interrupted.

    Example: corank pilot --out demo --epochs 3
    """
    from corank.cli.recipes import Recipe, make_options, merge, read_recipe
    from corank.cut_targets import parse_shares, parse_target
    from corank.decision.economics import Economics
    from corank.decision.policy import Policy
    from corank.errors import CorankError
    from corank.pilot.decision_tables import decision_to_markdown
    from corank.pilot.tables import metrics_to_markdown, to_markdown
    from corank.pilot.trial import run_trial

    if quiet:
        logging.getLogger().setLevel(logging.WARNING)
    if target is not None and macs is not None:
        raise CorankError("macs: it is short for --target macs=…; give one of them.")
    if seeds is not None and seeds < 1:
        raise CorankError(f"seeds: give at least one, got {seeds}.")
    wanted = target if macs is None else f"macs={macs}"
    both = merge(
        Recipe({}, {}) if recipe is None else read_recipe(recipe),
        {
            "data": data,
            "model": model,
            "weights": None if weights is None else str(weights),
            "keep": tuple(keep) if keep else None,
            "shifted": shifted,
        },
        {
            "arms": None if arms is None else tuple(one.strip() for one in arms.split(",")),
            "epochs": epochs,
            "seeds": None if seeds is None else tuple(range(seeds)),
            "target": None if wanted is None else parse_target(wanted),
            "front": None if front is None else parse_shares(front),
            "folds": folds,
            "kind": kind,
            "strength": strength,
            "precision": precision,
            "backends": tuple(backend) if backend else None,
            "threads": threads,
            "drift": drift or None,
            "energy": energy or None,
        },
    )
    options = make_options(both.options, trained="weights" in both.problem)
    command = shlex.join(["corank", *sys.argv[1:]])
    numbers = None if economics is None else Economics.read(economics)
    terms = None if policy is None else Policy.read(policy)
    result = run_trial(
        find_problem(both.problem),
        out,
        options,
        command=command,
        progress=not quiet,
        again=again,
        policy=terms,
        economics=numbers,
        lang=lang,
    )
    if as_json:
        typer.echo(json.dumps(result, indent=1))
    else:
        typer.echo(to_markdown(result))
        if metrics := metrics_to_markdown(result):
            typer.echo(f"\n{metrics}")
        typer.echo(f"\n{decision_to_markdown(result)}")
        typer.echo(f"\n{result['decision']['sentence']}")
        typer.echo(f"\nThe report: {out / 'report.html'}")
