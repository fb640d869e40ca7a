"""When a roll-out goes on, stops or goes back: frozen numbers, checked before any work."""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from itertools import pairwise
from math import isfinite
from pathlib import Path
from typing import Any

from corank.errors import CorankError, FileError
from corank.files import read_toml

_CEILING = 0.1


@dataclass(frozen=True, slots=True)
class Policy:
    """The terms of a roll-out; shares and scores are fractions, never percent.

    Args:
        stages: the challenger's share of the keys, rising to 1; 0 is shadow, where its answers are compared
            and never served.
        requests: that the challenger must have answered in a stage before the next.
        seconds: that a stage must have lasted: a day sees what an hour does not.
        margin: outcomes must show that the challenger's mean score is worse by no more than this.
        harm: the loss of mean score that is borne, below `margin`; a loss shown to be larger rolls back.
        level: the probability that a challenger within all limits is rolled back, all guards together.
        promotion_level: the probability that one worse than `margin` passes as shown to be no worse.
        unlabelled_ceiling: the largest share before outcomes have shown "no worse than margin"; None is 0.1,
            or the first stage's share where that is larger.
        error_margin: by which the challenger's share of failures may be higher.
        slow_ms: what counts as a slow answer, ms; None is 1.2 times the champion's 95th percentile over its
            first `reference` answers.
        slow_margin: by which its share of slow answers may be higher.
        disagreement: the share of answers that may differ from the champion's; None switches the guard off.
        confidence_margin: by which mean confidence may drift from the champion's; None switches it off.
        input_margin: by which the mean quantile of inputs among the first `reference` ones may leave 1/2
            before the roll-out is held; None switches it off.
        reference: how many first requests latency and inputs are held against.
        shadow_share: the share of requests that the challenger also answers in shadow.
        paired_share: the share of live requests that both answer, for a sharper comparison.

    >>> Policy().share(1)
    0.01
    """

    stages: tuple[float, ...] = (0.0, 0.01, 0.1, 0.5, 1.0)
    requests: int = 500
    seconds: float = 3600.0
    margin: float = 0.005
    harm: float = 0.0
    level: float = 0.05
    promotion_level: float = 0.05
    unlabelled_ceiling: float | None = None
    error_margin: float = 0.005
    slow_ms: float | None = None
    slow_margin: float = 0.05
    disagreement: float | None = 0.1
    confidence_margin: float | None = 0.05
    input_margin: float | None = 0.1
    reference: int = 500
    shadow_share: float = 1.0
    paired_share: float = 0.0

    def __post_init__(self) -> None:
        stages = self.stages
        if not isinstance(stages, list | tuple) or not stages:
            raise CorankError(f"policy: stages is a list of shares, as [0, 0.01, 0.5, 1], got {stages!r}.")
        rising = all(_number(one) for one in stages) and all(a < b for a, b in pairwise(stages))
        if not rising or stages[0] < 0 or stages[-1] != 1:
            raise CorankError(
                f"policy: stages rise from 0 or more to 1, as [0, 0.01, 0.5, 1] does, got {list(stages)}."
            )
        object.__setattr__(self, "stages", tuple(float(one) for one in stages))
        for name, least in (("requests", 1), ("reference", 20)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < least:
                raise CorankError(f"policy: {name} is a whole number from {least}, got {value!r}.")
        if not _number(self.seconds) or self.seconds < 0:
            raise CorankError(f"policy: seconds is a number from 0, got {self.seconds!r}.")
        for name in ("margin", "level", "promotion_level", "error_margin", "slow_margin"):
            self._require(name, 0 < self._checked(name) < 1, "(0, 1)")
        if not 0 <= self._checked("harm") < self.margin:
            raise CorankError(
                f"policy: harm: allowed is [0, margin) = [0, {self.margin}), got {self.harm!r}."
            )
        for name in ("disagreement", "confidence_margin", "input_margin"):
            if getattr(self, name) is not None:
                top = 0.5 if name == "input_margin" else 1
                self._require(name, 0 < self._checked(name) < top, f"(0, {top}), or none of it")
        if self.unlabelled_ceiling is None:
            object.__setattr__(self, "unlabelled_ceiling", max(_CEILING, stages[0]))
        for name in ("unlabelled_ceiling", "shadow_share", "paired_share"):
            self._require(name, 0 <= self._checked(name) <= 1, "[0, 1]")
        if self.slow_ms is not None and (not _number(self.slow_ms) or self.slow_ms <= 0):
            raise CorankError(f"policy: slow_ms is a number of milliseconds above 0, got {self.slow_ms!r}.")
        if stages[0] == 0 and self.shadow_share == 0:
            raise CorankError(
                "policy: shadow_share is 0, so the shadow stage would never end. Raise it, or drop stage 0."
            )
        self._require_comparable()

    def _require_comparable(self) -> None:
        """Refuse stages in which a guard would have nothing to hold the challenger against."""
        first, ceiling = self.stages[0], self.unlabelled_ceiling
        if first == 1:
            raise CorankError(
                "policy: stages [1] leave no champion to compare with. Begin with 0 or a smaller share."
            )
        if ceiling is not None and first > ceiling:
            raise CorankError(
                f"policy: the first stage, {first:g}, is above unlabelled_ceiling, {ceiling:g}, which no "
                "outcome can have lifted by then. Begin lower, or raise the ceiling."
            )
        if self.stages == (0.0, 1.0) and self.slow_ms is None and self.requests <= self.reference:
            raise CorankError(
                f"policy: stages [0, 1] give {self.requests} requests to learn what is slow, of which the "
                f"first {self.reference} set the limit, so none is left to compare with. Give slow_ms, or "
                "more requests than reference."
            )

    def share(self, stage: int) -> float:
        """Return the challenger's share of the keys in a stage."""
        return self.stages[stage]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], where: str = "policy") -> Policy:
        """Make a policy from plain values.

        Raises: CorankError, for a key that is unknown or a value that is not allowed.
        """
        known = [one.name for one in fields(cls)]
        for key in values:
            if key not in known:
                near = difflib.get_close_matches(str(key), known, n=1)
                hint = f"the nearest is {near[0]!r}" if near else f"allowed are {', '.join(known)}"
                raise CorankError(f"{where}: unknown key {key!r}; {hint}.")
        try:
            return cls(**values)
        except CorankError as error:
            raise CorankError(str(error).replace("policy", where, 1)) from error

    @classmethod
    def read(cls, path: Path | str) -> Policy:
        """Read a policy from a .toml or .json file.

        Raises: FileError, for a file that cannot be read; CorankError, for what it holds.
        """
        path = Path(path)
        if path.suffix != ".json":
            return cls.from_dict(read_toml(path, "policy of a roll-out"), str(path))
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
        except OSError as error:
            raise FileError(f"{path}: cannot be read ({error.strerror}). Give a policy in JSON.") from error
        except ValueError as error:
            raise FileError(f"{path}: is no JSON ({error}).") from error
        if not isinstance(values, dict):
            raise FileError(f"{path}: a policy is an object of names, got {type(values).__name__}.")
        return cls.from_dict(values, str(path))

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self) | {"stages": list(self.stages)}

    def _checked(self, name: str) -> float:
        value = getattr(self, name)
        if not _number(value):
            raise CorankError(f"policy: {name} is a fraction, got {value!r}.")
        return float(value)

    def _require(self, name: str, fine: bool, allowed: str) -> None:
        if not fine:
            raise CorankError(
                f"policy: {name}: allowed is a fraction in {allowed}, got {getattr(self, name)!r}."
            )


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)
