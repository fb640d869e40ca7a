"""A trial in a TOML file: the same settings as on the command line, which overrides them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corank.errors import CorankError
from corank.files import read_toml

if TYPE_CHECKING:
    from corank.pilot.options import TrialOptions

PROBLEM: dict[str, type[Any]] = {
    "data": str,
    "model": str,
    "weights": str,
    "keep": list,
    "shifted": str,
    "batch_size": int,
    "latency_batch": int,
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
            problem[key] = _typed(path, key, value, PROBLEM[key])
        elif key == "target":
            options[key] = (
                parse_target(value) if isinstance(value, str) else make_target(_table(path, key, value))
            )
        elif key == "seeds" and isinstance(value, int) and not isinstance(value, bool):
            options[key] = tuple(range(value))
        else:
            options[key] = tuple(value) if isinstance(value, list) else value
    _check_types(path, options)
    return Recipe(problem, options)


def _typed(path: Path, key: str, value: Any, kind: type[Any]) -> Any:
    if not isinstance(value, kind) or isinstance(value, bool):
        raise CorankError(f"{path}: {key} is a {kind.__name__}, got {value!r}.")
    if kind is not list:
        return value
    _check_elements(path, key, value, "")
    return tuple(value)


def _check_elements(path: Path, key: str, values: Iterable[Any], like: object) -> None:
    """Raise CorankError for an element that is not of the kind of another, which is a text or a number."""
    name, kind = ("texts", str) if isinstance(like, str) else ("whole numbers", int)
    for one in values:
        if not isinstance(one, kind) or isinstance(one, bool):
            raise CorankError(f"{path}: {key} is a list of {name}, got {one!r}.")


def _table(path: Path, key: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise CorankError(f"{path}: {key} is a text such as 'macs=0.5' or a table, got {value!r}.")
    return value


def _check_types(path: Path, options: dict[str, Any]) -> None:
    from corank.pilot.options import TrialOptions

    defaults = TrialOptions()
    for key, value in options.items():
        wanted = getattr(defaults, key, 1) if key != "threads" else 1
        allowed: Any = (int, float) if isinstance(wanted, float) else type(wanted)
        if isinstance(value, bool) != isinstance(wanted, bool) or not isinstance(value, allowed):
            name = {"tuple": "list"}.get(type(wanted).__name__, type(wanted).__name__)
            raise CorankError(f"{path}: {key} is a {name}, got {value!r}.")
        if isinstance(wanted, tuple) and wanted:
            _check_elements(path, key, value, wanted[0])


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
