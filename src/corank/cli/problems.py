"""The options that name a problem, and the problem that they name."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
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
Model: TypeAlias = Annotated[
    str | None, typer.Option(help="Your network: package.module:factory, timm:NAME, transformers:FOLDER.")
]
Shifted: TypeAlias = Annotated[
    str | None, typer.Option(help="A second data set, to judge under shift: package.module:loader.")
]
Costs: TypeAlias = Annotated[
    Path | None, typer.Option(help="Your numbers in TOML, to count what it saves; see docs/gate.md.")
]
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
    shifted = rest.pop("shifted", None)
    problem = make_problem(
        data,
        model or "",
        None if model is None else make_factory(model),
        task=find_object(data, "data") if own else None,
        **rest,
    )
    return problem if shifted is None else replace(problem, shifted=(shifted, find_loader(shifted)))


def find_loader(name: str) -> Iterable[Any]:
    """Return the batches that a name stands for: an iterable, or a function that makes one.

    Raises: CorankError, for anything else.
    """
    from corank.cli.models import find_object
    from corank.errors import CorankError, one_line

    found = find_object(name, "shifted")
    if callable(found) and not isinstance(found, Iterable):
        try:
            found = found()
        except Exception as error:  # whatever the user's function raises
            raise CorankError(f"shifted: {name} fails ({one_line(error)}).") from error
    if not isinstance(found, Iterable) or isinstance(found, str | Iterator):
        raise CorankError(
            f"shifted: {name} is a {type(found).__name__}. Name batches that can be iterated "
            "again and again, such as a DataLoader, or a function that makes them."
        )
    return found
