"""A trial in a TOML file: the same settings as on the command line, which overrides them."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corank.errors import CorankError
from corank.files import read_toml, require_like

if TYPE_CHECKING:
    from corank.pilot.options import TrialOptions

PROBLEM: dict[str, Any] = {  # each with a value of its kind
    "data": "",
    "model": "",
    "weights": "",
    "keep": ("",),
    "shifted": "",
    "batch_size": 1,
    "latency_batch": 1,
}


@dataclass(frozen=True, slots=True)
class Recipe:
    """What a recipe or a command line says; None and absent keys are left to the defaults."""

    problem: dict[str, Any]
    options: dict[str, Any]


def read_recipe(path: Path) -> Recipe:
    """Read a recipe: keys of the problem (data, model, weights, keep, …), of `TrialOptions`, and `epochs`.

    Raises: FileError, when it is absent or no TOML; CorankError, for an unknown key, naming the nearest, or
        a value of the wrong type.
    """
    from corank.cut_targets import make_target, parse_target, require_key
    from corank.pilot.options import TrialOptions

    values = read_toml(path, "recipe")
    known = [one.name for one in fields(TrialOptions)]
    problem: dict[str, Any] = {}
    options: dict[str, Any] = {}
    for key, value in values.items():
        require_key(str(path), key, [*PROBLEM, "epochs", *known])
        if key in PROBLEM:
            require_like(path, key, value, PROBLEM[key])
            problem[key] = _frozen(value)
        elif key == "target":
            options[key] = (
                parse_target(value) if isinstance(value, str) else make_target(_table(path, key, value))
            )
        elif key == "seeds" and isinstance(value, int) and not isinstance(value, bool):
            options[key] = tuple(range(value))
        else:
            options[key] = _frozen(value)
    _check_types(path, options)
    return Recipe(problem, options)


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _table(path: Path, key: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise CorankError(f"{path}: {key} is a text such as 'macs=0.5' or a table, got {value!r}.")
    return value


def _check_types(path: Path, options: dict[str, Any]) -> None:
    from corank.pilot.options import TrialOptions

    defaults = TrialOptions()
    for key, value in options.items():
        require_like(path, key, value, getattr(defaults, key, 1) if key != "threads" else 1)


def merge(recipe: Recipe, problem: dict[str, Any], options: dict[str, Any]) -> Recipe:
    """Let what the command line says stand over a recipe; what it leaves out is None."""
    given = {key: value for key, value in problem.items() if value is not None}
    chosen = {key: value for key, value in options.items() if value is not None}
    return Recipe({**recipe.problem, **given}, {**recipe.options, **chosen})


def make_options(options: dict[str, Any], trained: bool) -> TrialOptions:
    """Make the options of a trial, the epochs shared out over its parts.

    Raises: CorankError, for settings that are out of range.
    """
    from corank.pilot.options import TrialOptions, split_epochs

    settings = dict(options)
    epochs = settings.pop("epochs", None)
    if epochs is not None:
        if clash := [key for key in ("shared", "before_cut", "after_cut") if key in settings]:
            raise CorankError(
                f"epochs: it is shared out over the parts; {clash[0]} sets one of them. Give one."
            )
        settings |= split_epochs(epochs, trained)
    return replace(TrialOptions(), **settings)
