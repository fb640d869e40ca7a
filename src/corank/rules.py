"""What a plan must meet: frozen numbers that survive JSON. Fractions, never percent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import isfinite
from types import MappingProxyType
from typing import Any, TypeAlias

from corank.errors import CorankError


@dataclass(frozen=True, slots=True)
class Energy:
    """Keep a share of each layer's energy: Σ_{m≤M} s_m² ≥ energy · Σ s_m².

    The paper's "5% error" is `Energy(0.95)`, the default. With statistics of the outputs it is their energy.
    """

    energy: float = 0.95

    def __post_init__(self) -> None:
        _require_fraction("Energy", self.energy)


@dataclass(frozen=True, slots=True)
class Error:
    """Allow a relative Frobenius error e in each layer: the same as `Energy(1 - e²)`."""

    error: float

    def __post_init__(self) -> None:
        if not 0 <= self.error < 1:
            raise CorankError(f"Error: allowed is a fraction in [0, 1), got {self.error}. Use 0.1 for 10%.")

    @property
    def energy(self) -> float:
        """The share of energy that this error keeps."""
        return 1 - self.error**2


@dataclass(frozen=True, slots=True)
class Ranks:
    """Order these ranks, each per group: they are done even past break-even; other layers are left alone.

    `method` None means filter basis for convolutions and SVD for linear layers.
    """

    ranks: Mapping[str, int]
    method: str | None = None

    def __post_init__(self) -> None:
        for name, rank in self.ranks.items():
            if not isinstance(rank, int) or isinstance(rank, bool) or rank < 1:
                raise CorankError(f"{name}: a rank is a whole number from 1, got {rank!r}.")
        object.__setattr__(self, "ranks", MappingProxyType(dict(self.ranks)))


@dataclass(frozen=True, slots=True)
class Budget:
    """Cut the whole network to a share of what it costs, as far as that can be counted without a clock.

    `macs`: multiply-accumulates. `params`: parameters. `bytes`: of weights and buffers, as in a file.
    `peak_memory`: the bytes of weights and live activations at the worst moment of one forward pass.
    """

    macs: float | None = None
    params: float | None = None
    bytes: float | None = None
    peak_memory: float | None = None

    def __post_init__(self) -> None:
        shares = [value for value in asdict(self).values() if value is not None]
        if not shares:
            raise CorankError("Budget: name what to cut, such as Budget(macs=0.5) or Budget(params=0.5).")
        for value in shares:
            _require_fraction("Budget", value)


@dataclass(frozen=True, slots=True)
class Latency:
    """Cut the time of the whole network to so many milliseconds, or to a ratio of what it takes now.

    It needs a latency table, and holds for the engine, threads and batch that the table was measured with.
    """

    ms: float | None = None
    ratio: float | None = None

    def __post_init__(self) -> None:
        if (self.ms is None) == (self.ratio is None):
            raise CorankError("Latency: give one of ms and ratio, such as Latency(ratio=0.5).")
        if self.ratio is not None:
            _require_fraction("Latency", self.ratio)
        if self.ms is not None and not (isfinite(self.ms) and self.ms > 0):
            raise CorankError(f"Latency: allowed are milliseconds above 0, got {self.ms}.")

    def limit(self, whole_ms: float) -> float:
        """Return the milliseconds that are allowed, of a network that takes `whole_ms`."""
        return self.ms if self.ms is not None else float(self.ratio or 1) * whole_ms

    def times(self, factor: float) -> Latency:
        """Return the rule with its target multiplied: below 1 it is tighter."""
        if self.ms is not None:
            return Latency(ms=self.ms * factor)
        return Latency(ratio=min(float(self.ratio or 1) * factor, 1.0))


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Lose no more than this, as a fraction: 0.005 is half a point of accuracy.

    It is measured on dev by the `evaluate` of the caller: in `plan` right after the cut, with batch norm
    re-estimated where asked for; in `compress` after fine-tuning.
    """

    max_drop: float = 0.005

    def __post_init__(self) -> None:
        if not 0 <= self.max_drop < 1:
            raise CorankError(
                f"Accuracy: max_drop is a fraction in [0, 1), got {self.max_drop}. Half a point is 0.005."
            )


Rule: TypeAlias = Energy | Error | Ranks | Budget | Latency | Accuracy
RULES: dict[str, type[Rule]] = {
    "energy": Energy,
    "error": Error,
    "ranks": Ranks,
    "budget": Budget,
    "latency": Latency,
    "accuracy": Accuracy,
}


def _require_fraction(rule: str, value: float) -> None:
    if not (isfinite(value) and 0 < value <= 1):
        raise CorankError(f"{rule}: allowed is a fraction in (0, 1], got {value}. Use 0.5 for 50%.")


def rule_to_dict(rule: Rule) -> dict[str, Any]:
    """Turn a rule into plain values for JSON.

    >>> rule_to_dict(Accuracy(0.01))
    {'rule': 'accuracy', 'max_drop': 0.01}
    """
    name = next(name for name, kind in RULES.items() if type(rule) is kind)
    if isinstance(rule, Ranks):
        return {"rule": name, "ranks": dict(rule.ranks), "method": rule.method}
    return {"rule": name, **asdict(rule)}


def rule_from_dict(values: Mapping[str, Any]) -> Rule:
    """Make a rule of plain values.

    Raises: CorankError, for an unknown rule or setting.

    >>> rule_from_dict({"rule": "energy", "energy": 0.9})
    Energy(energy=0.9)
    """
    settings = dict(values)
    name = settings.pop("rule", None)
    if name not in RULES:
        raise CorankError(f"rule: allowed are {', '.join(RULES)}; got {name!r}.")
    try:
        return RULES[name](**settings)
    except TypeError as error:
        raise CorankError(f"rule {name!r}: {error}. Got {settings}.") from error
