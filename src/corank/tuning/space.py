"""What is searched, and the settings of a trial that a point of it stands for."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Protocol

from corank.benchmarks import find_backend
from corank.cut_targets import make_target, require_key
from corank.errors import CorankError
from corank.files import read_toml, require_like
from corank.force_field import KINDS, require_choice
from corank.pilot.options import TrialOptions

NO_FORCE = "none"
COSTS = ("macs", "params", "bytes", "latency")
RATES = ("learning_rate_before", "learning_rate_after")
Range = tuple[float, float]


class Draws(Protocol):
    """What draws a value of each name: an Optuna trial."""

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        """Draw a number."""
        ...

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        """Draw one of the choices."""
        ...


@dataclass(frozen=True, slots=True)
class Space:
    """Ranges and choices; a range whose ends are equal, and a single choice, are fixed.

    Args:
        kinds: forces, and "none" for a cut without one.
        strength: of the force, mean scale; searched by its logarithm.
        cooldowns: shares of the epochs before the cut over which the force fades away at the end.
        toward: whether the force stops at the ranks that the plan wants.
        layers: patterns of the layers that are forced, joined by commas; "*" for all.
        learning_rate_before, learning_rate_after: where the cosines before and after the cut start; searched
            by their logarithms.
        cut: the share of the cost that is left.
        cost: what is cut: macs, params, bytes or latency; the second aim of the search.
        backend: of the latency table.
        time_budget: seconds for the latency table.
    """

    kinds: tuple[str, ...] = (NO_FORCE, "l2", "subspace", "output")
    strength: Range = (0.003, 1.0)
    cooldowns: tuple[float, ...] = (0.0, 0.5)
    toward: tuple[bool, ...] = (False, True)
    layers: tuple[str, ...] = ("*",)
    learning_rate_before: Range = (0.002, 0.05)
    learning_rate_after: Range = (0.002, 0.05)
    cut: Range = (0.3, 0.9)
    cost: str = "macs"
    backend: str = "onnxruntime"
    time_budget: float = 120.0

    def __post_init__(self) -> None:
        for one in fields(self):
            require_like("space", one.name, getattr(self, one.name), one.default)
        for name in ("kinds", "cooldowns", "toward", "layers"):
            choices = getattr(self, name)
            if not choices:
                raise CorankError(f"space: {name} needs at least one choice.")
            if twice := [one for place, one in enumerate(choices) if one in choices[:place]]:
                raise CorankError(f"space: {name} has {twice[0]!r} twice. Give each choice once.")
        for kind in self.kinds:
            require_choice("space: kinds", kind, (NO_FORCE, *KINDS))
        require_choice("space: cost", self.cost, COSTS)
        find_backend(self.backend)
        for name, most in (
            ("strength", 1e3),
            ("learning_rate_before", 10.0),
            ("learning_rate_after", 10.0),
            ("cut", 1.0),
        ):
            ends = getattr(self, name)
            if len(ends) != 2:
                raise CorankError(f"space: {name} is a range of two numbers, got {ends}.")
            low, high = ends
            if not 0 < low <= high < most:
                raise CorankError(f"space: {name} is a range within (0, {most:g}), got {low} to {high}.")
        if not self.time_budget > 0:
            raise CorankError(f"space: time_budget is seconds above 0, got {self.time_budget}.")
        if not all(0 <= one <= 1 for one in self.cooldowns):
            raise CorankError(f"space: cooldowns are shares in [0, 1], got {self.cooldowns}.")

    @classmethod
    def read(cls, path: Path) -> Space:
        """Read a space from a TOML file.

        Raises: FileError, when it is absent or no TOML; CorankError, for an unknown key, naming the nearest,
            or a value that is out of range.
        """
        values, plain = read_toml(path, "space"), cls()
        for key, value in values.items():
            require_key(str(path), key, [one.name for one in fields(cls)])
            require_like(path, key, value, getattr(plain, key))
        settings: dict[str, Any] = {
            key: tuple(one) if isinstance(one, list) else one for key, one in values.items()
        }
        return cls(**settings)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return {key: list(one) if isinstance(one, tuple) else one for key, one in asdict(self).items()}

    @property
    def timed(self) -> bool:
        """Whether the cost is measured time."""
        return self.cost == "latency"


def draw(space: Space, trial: Draws) -> dict[str, Any]:
    """Draw a point: what belongs to a force is drawn only where there is one."""
    found: dict[str, Any] = {"kind": trial.suggest_categorical("kind", space.kinds)}
    if found["kind"] != NO_FORCE:
        found["strength"] = _number(trial, "strength", space.strength)
        for name, choices in (
            ("cooldown", space.cooldowns),
            ("toward", space.toward),
            ("layers", space.layers),
        ):
            found[name] = trial.suggest_categorical(name, choices)
    for name in RATES:
        found[name] = _number(trial, name, getattr(space, name))
    found["cut"] = trial.suggest_float("cut", *space.cut)
    return found


def _number(trial: Draws, name: str, ends: Range) -> float:
    return trial.suggest_float(name, *ends, log=True)


def options_at(point: Mapping[str, Any], space: Space, options: TrialOptions) -> TrialOptions:
    """Return the settings of a trial at a point; everything that is not searched is as in `options`.

    >>> point = {"kind": "none", "learning_rate_before": 0.02, "learning_rate_after": 0.01, "cut": 0.5}
    >>> options_at(point, Space(), TrialOptions()).arms
    ('dense', 'lowrank')
    """
    forced = point["kind"] != NO_FORCE
    target: dict[str, Any] = {space.cost: point["cut"]}
    if space.timed:
        target |= {"backend": space.backend, "time_budget": space.time_budget}
    changes: dict[str, Any] = {
        "arms": ("dense", "lowrank" if not forced else "force_plan" if point["toward"] else "force"),
        "learning_rate_before": point["learning_rate_before"],
        "learning_rate_after": point["learning_rate_after"],
        "target": make_target(target),
    }
    if forced:
        changes |= {
            "kind": point["kind"],
            "strength": point["strength"],
            "cooldown": point["cooldown"],
            "force_layers": _patterns(point["layers"]),
        }
    return replace(options, **changes)


def defaults(space: Space, options: TrialOptions) -> list[dict[str, Any]]:
    """Return the points that are tried first: the fixed settings without and with the force, mid-way deep.

    A setting that lies outside the space is moved to its nearer end, or to its first choice.
    """
    layers = {_patterns(one): one for one in space.layers}
    middle = sum(space.cut) / 2
    rates = {name: _within(getattr(options, name), getattr(space, name)) for name in RATES}
    points: list[dict[str, Any]] = []
    if NO_FORCE in space.kinds:
        points.append({"kind": NO_FORCE, **rates, "cut": middle})
    if forces := [one for one in space.kinds if one != NO_FORCE]:
        points.append(
            {
                "kind": _among(options.kind, forces),
                "strength": _within(options.strength, space.strength),
                "cooldown": _among(options.cooldown, space.cooldowns),
                "toward": _among("force_plan" in options.arms, space.toward),
                "layers": layers.get(options.force_layers, space.layers[0]),
                **rates,
                "cut": middle,
            }
        )
    return points


def _patterns(layers: str) -> tuple[str, ...]:
    return tuple(one.strip() for one in layers.split(","))


def _within(value: float, ends: Range) -> float:
    return min(max(value, ends[0]), ends[1])


def _among(value: Any, choices: Sequence[Any]) -> Any:
    return value if value in choices else choices[0]


def require_searched(space: Space, settings: Mapping[str, Any]) -> None:
    """Raise CorankError for settings that somebody gave and the search would not use.

    Args:
        space: what is searched.
        settings: fields of `TrialOptions` that were given.
    """
    if "target" in settings:
        raise CorankError(
            "target: how deep is searched. Leave it out; the space has cut, a range, and cost, such as "
            'cut = [0.3, 0.9] and cost = "macs".'
        )
    if len(settings.get("seeds", (0,))) > 1:
        raise CorankError(
            f"seeds: a trial trains one, got {len(settings['seeds'])}. Give one; a pilot by a recipe of the "
            "front takes several."
        )
    for name, key, choices in (
        ("kind", "kinds", space.kinds),
        ("cooldown", "cooldowns", space.cooldowns),
        ("force_layers", "layers", [_patterns(one) for one in space.layers]),
    ):
        if name in settings and settings[name] not in choices:
            raise CorankError(
                f"{name}: it is searched, among {key} of the space, and {settings[name]!r} is not there. Put "
                "it into the file of --space, or leave it out."
            )


def describe(point: Mapping[str, Any]) -> str:
    """Write a point in a line.

    >>> describe({"kind": "l2", "strength": 0.12345})
    'kind l2, strength 0.123'
    """
    return ", ".join(
        f"{key} {value:.3g}" if isinstance(value, float) else f"{key} {value}" for key, value in point.items()
    )


def recipe(options: TrialOptions, problem: Mapping[str, Any]) -> str:
    """Write settings as a recipe that `corank pilot --recipe` takes: what differs from the defaults.

    Args:
        options: the settings.
        problem: how a recipe names the task and the network, by key.

    >>> recipe(TrialOptions(strength=0.1), {"data": "digits"})
    'data = "digits"\\nstrength = 0.1\\n'
    """
    plain = TrialOptions()
    lines = [f"{key} = {json.dumps(value)}" for key, value in problem.items()]
    for one in fields(TrialOptions):
        value = getattr(options, one.name)
        if one.name == "target" or value == getattr(plain, one.name):
            continue
        lines.append(f"{one.name} = {json.dumps(value)}")
    if options.target != plain.target:
        lines.append("[target]")
        lines += [f"{key} = {json.dumps(value)}" for key, value in options.target.to_dict().items()]
    return "\n".join(lines) + "\n"
