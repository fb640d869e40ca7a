"""The options that name a problem, and the problem that they name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

if TYPE_CHECKING:
    from corank.pilot.problem import Problem

Data: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--data", "--task", help="digits, mnist:DIR, cifar10:DIR, folder:DIR, or package.module:task."
    ),
]
Model: TypeAlias = Annotated[str | None, typer.Option(help="Your network: package.module:factory.")]
Keep: TypeAlias = Annotated[list[str] | None, typer.Option(help="Layer never to cut; may be repeated.")]


def find_problem(settings: dict[str, Any]) -> Problem:
    """Make the problem that a command line or a recipe names."""
    from corank.cli.models import find_object, make_factory
    from corank.data import is_built_in
    from corank.pilot.problems import make_problem

    rest = dict(settings)
    data, model = rest.pop("data", "digits"), rest.pop("model", None)
    if "weights" in rest:
        rest["weights"] = Path(rest["weights"])
    own = not is_built_in(data)
    return make_problem(
        data,
        model or "",
        None if model is None else make_factory(model),
        task=find_object(data, "data") if own else None,
        **rest,
    )
