"""A target of the cut as people write it, such as `latency=0.5,backend=onnxruntime`, or in TOML."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from corank.errors import CorankError
from corank.rules import Accuracy, Budget, Energy, Error, Latency, Ranks, Rule

_SHARES = ("macs", "params", "bytes", "peak_memory")
_NUMBERS = (*_SHARES, "latency", "latency_ms", "energy", "error", "accuracy")
KEYS = (*_NUMBERS, "ranks", "method", "backend", "time_budget")


@dataclass(frozen=True, slots=True)
class CutTarget:
    """What the cut must reach: rules that all hold, and on what engine times are measured.

    Args:
        rules: one or several.
        backend: the engine of the latency table, where a rule is about time.
        time_budget: seconds for the latency table.
    """

    rules: tuple[Rule, ...] = (Budget(macs=0.35),)
    backend: str = "torch"
    time_budget: float = 120.0

    @property
    def timed(self) -> bool:
        """Whether it needs a latency table."""
        return any(isinstance(rule, Latency) for rule in self.rules)

    @property
    def share(self) -> str | None:
        """The one share of the whole network that it names, such as macs; None for none or several."""
        shares = [key for key in self.to_dict() if key in (*_SHARES, "latency")]
        return shares[0] if len(shares) == 1 else None

    def at(self, depth: float) -> CutTarget:
        """Return the same target with another share.

        Raises: CorankError, where it names none or several, or the share is out of range.

        >>> parse_target("macs=0.5,energy=0.9").at(0.7).rules
        (Budget(macs=0.7, params=None, bytes=None, peak_memory=None), Energy(energy=0.9))
        """
        if self.share is None:
            raise CorankError(
                "target: to cut at another depth it must name one share, such as macs=0.5 or latency=0.5; "
                f"got {', '.join(self.to_dict())}."
            )
        return make_target(self.to_dict() | {self.share: depth})

    def to_dict(self) -> dict[str, Any]:
        """Return it as `make_target` takes it.

        >>> CutTarget().to_dict()
        {'macs': 0.35}
        """
        found: dict[str, Any] = {}
        for rule in self.rules:
            if isinstance(rule, Ranks):
                found["ranks"] = dict(rule.ranks)
                if rule.method is not None:
                    found["method"] = rule.method
            elif isinstance(rule, Budget):
                found |= {key: value for key, value in asdict(rule).items() if value is not None}
            elif isinstance(rule, Latency):
                found |= {"latency": rule.ratio} if rule.ms is None else {"latency_ms": rule.ms}
            else:
                found[type(rule).__name__.lower()] = next(iter(asdict(rule).values()))
        return found | ({"backend": self.backend, "time_budget": self.time_budget} if self.timed else {})


def parse_target(text: str) -> CutTarget:
    """Read a target from text: `key=value`, separated by commas.

    Shares of the whole network: macs, params, bytes, peak_memory, latency (or latency_ms). Floors of each
    layer: energy, error. accuracy is the drop that is allowed. backend and time_budget are those of the
    latency table.

    Raises: CorankError, for an unknown key, naming the nearest, or a value that is out of range.

    >>> parse_target("latency=0.5,backend=onnxruntime").rules
    (Latency(ms=None, ratio=0.5),)
    """
    values: dict[str, Any] = {}
    for part in text.split(","):
        key, sign, value = (piece.strip() for piece in part.partition("="))
        if not sign or not value:
            raise CorankError(f"target: each part is key=value, got {part!r}. Write macs=0.5 or latency=0.5.")
        if key in values:
            raise CorankError(f"target: {key} comes twice. Keep one.")
        values[key] = value
    return make_target(values)


def parse_shares(text: str) -> tuple[float, ...]:
    """Read shares from text, separated by commas.

    Raises: CorankError, for what is no fraction in (0, 1].

    >>> parse_shares("0.7, 0.35")
    (0.7, 0.35)
    """
    return tuple(_share("front", part.strip()) for part in text.split(","))


def make_target(values: Mapping[str, Any]) -> CutTarget:
    """Make a target of `{key: value}`, such as the `[target]` table of a recipe; `ranks` is `{layer: rank}`.

    Raises: CorankError, for an unknown key, naming the nearest, or a value that is out of range.
    """
    for key in values:
        require_key("target", key, KEYS)
    shares = {key: _share(key, values[key]) for key in _SHARES if key in values}
    rules: list[Rule] = [Budget(**shares)] if shares else []
    if "latency" in values or "latency_ms" in values:
        ratio = _share("latency", values["latency"]) if "latency" in values else None
        ms = _number("latency_ms", values["latency_ms"]) if "latency_ms" in values else None
        rules.append(Latency(ms=ms, ratio=ratio))
    for key, make in (("energy", Energy), ("error", Error), ("accuracy", Accuracy)):
        if key in values:
            rules.append(make(_number(key, values[key])))
    if "ranks" in values:
        if not isinstance(values["ranks"], Mapping):
            raise CorankError(
                "target: ranks is a table of layers, such as ranks = { conv1 = 8 } in a recipe."
            )
        rules.append(Ranks(values["ranks"], values.get("method")))
    elif "method" in values:
        raise CorankError("target: method goes with ranks. Give ranks, or leave the method to the plan.")
    if not rules:
        raise CorankError("target: names no rule. Write macs=0.5, params=0.5, latency=0.5 or energy=0.95.")
    if any(isinstance(rule, Ranks) for rule in rules) and len(rules) > 1:
        raise CorankError("target: ranks is an order and stands alone. Drop the other rules or the ranks.")
    if not any(isinstance(rule, Latency) for rule in rules):
        for key in ("backend", "time_budget"):
            if key in values:
                raise CorankError(
                    f"target: {key} is of the latency table, and no rule is about time. Drop it."
                )
    budget = _number("time_budget", values.get("time_budget", 120.0))
    if not budget > 0:
        raise CorankError(f"target: time_budget is in seconds above 0, got {budget:g}.")
    return CutTarget(tuple(rules), str(values.get("backend", "torch")), budget)


def require_key(where: str, key: str, allowed: Collection[str]) -> None:
    """Raise CorankError unless a key is allowed; the nearest allowed one is named."""
    if key not in allowed:
        near = difflib.get_close_matches(key, allowed, n=1, cutoff=0.0)
        raise CorankError(
            f"{where}: unknown key {key!r}; the nearest is {near[0]!r}. Allowed: {', '.join(allowed)}."
        )


def _share(key: str, value: Any) -> float:
    number = _number(key, value)
    if not 0 < number <= 1:
        raise CorankError(f"{key}: allowed is a fraction in (0, 1], got {number:g}. Use 0.5 for half.")
    return number


def _number(key: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise CorankError(f"{key}: allowed is a number, got {value!r}.")
    try:
        return float(value)
    except ValueError as error:
        raise CorankError(f"{key}: allowed is a number, got {value!r}.") from error
