"""`corank tune`: a search for the settings of a trial, for accuracy and cost at once."""

from __future__ import annotations

import json
import logging
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from corank.cli.problems import Data, Keep, Model, find_problem


def tune(
    out: Annotated[Path, typer.Option(help="Folder for tune.json, pictures, recipes and checkpoints.")],
    data: Data = None,
    model: Model = None,
    weights: Annotated[
        Path | None, typer.Option(help="Trained weights, safetensors: all trials start there.")
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(help="Settings that are not searched, in TOML; and where the search begins."),
    ] = None,
    space: Annotated[Path | None, typer.Option(help="What is searched, in TOML; see corank.Space.")] = None,
    trials: Annotated[int, typer.Option(help="Of the whole study, by all workers.")] = 30,
    epochs: Annotated[int | None, typer.Option(help="Epochs of each trial.")] = None,
    cost: Annotated[str | None, typer.Option(help="The second aim: macs, params, bytes or latency.")] = None,
    backend: Annotated[str | None, typer.Option(help="The engine of the latency.")] = None,
    keep: Keep = None,
    storage: Annotated[
        str | None, typer.Option(help="An Optuna storage URL, for workers on many machines.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")] = False,
) -> None:
    """Search force, strength, schedule, layers, learning rates and depth, for accuracy and cost at once.

    The same command goes on with a search that was interrupted, and is one more worker where one is running.
    Each trial of the front gets a recipe for `corank pilot --recipe`.

    Example: corank tune --out tuned --trials 4 --epochs 3
    """
    from corank.cli.recipes import Recipe, make_options, merge, read_recipe
    from corank.errors import CorankError
    from corank.tuning import Space
    from corank.tuning import tune as search
    from corank.tuning.record import front_of
    from corank.tuning.space import describe, require_searched

    if quiet:
        logging.getLogger().setLevel(logging.WARNING)
    both = merge(
        Recipe({}, {}) if recipe is None else read_recipe(recipe),
        {
            "data": data,
            "model": model,
            "weights": None if weights is None else str(weights),
            "keep": tuple(keep) if keep else None,
        },
        {"epochs": epochs},
    )
    wanted = Space() if space is None else Space.read(space)
    changes: dict[str, Any] = {"cost": cost, "backend": backend}
    wanted = replace(wanted, **{key: value for key, value in changes.items() if value is not None})
    if backend is not None and not wanted.timed:
        raise CorankError(
            f"backend: {backend} is the engine of the latency, and the cost is {wanted.cost}. Give "
            "--cost latency, or leave it out."
        )
    require_searched(wanted, both.options)
    result = search(
        find_problem(both.problem),
        out,
        make_options(both.options, trained="weights" in both.problem),
        wanted,
        trials=trials,
        storage=storage,
        named=both.problem,
        progress=not quiet,
    )
    if as_json:
        typer.echo(json.dumps(result, indent=1))
        return
    typer.echo(f"dense after the same epochs: {result['metric']} {result['dense']:.4f} on dev")
    for row in front_of(result):
        typer.echo(
            f"trial {row['number']}: {row['score']:.4f} at {row['cost']:.2f} of the {result['cost']}: "
            f"{describe(row['settings'])}"
        )
    typer.echo(count_trials(result))
    if not result["front"]:
        raise CorankError(
            f"{out}: no trial was finished, so there is no front. The reasons are in tune.json."
        )
    typer.echo(
        f"{out / 'tune.json'}, front.svg, mattered.svg; recipes of the front, by the numbers of trials, in "
        f"{out / 'recipes'}"
    )


def count_trials(result: dict[str, Any]) -> str:
    """Say how the trials ended."""
    states = {"complete": "finished", "pruned": "given up", "fail": "failed", "running": "run elsewhere"}
    counts = Counter(states[one["state"]] for one in result["trials"])
    told = ", ".join(f"{counts[said]} {said}" for said in states.values() if counts[said])
    reason = next(
        (f"; trial {one['number']}: {one['failed']}" for one in result["trials"] if one["failed"]), ""
    )
    return f"{len(result['trials'])} trials: {told}{reason}"
