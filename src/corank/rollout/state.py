"""All that a roll-out knows between two folds, as plain values for a database."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Status = Literal["running", "held", "promoted", "rolled back"]
OVER = ("promoted", "rolled back")


@dataclass(slots=True)
class Evidence:
    """One guard's values so far: how many, their sum, and the logarithms of what is staked on each bet."""

    count: int = 0
    total: float = 0.0
    log_staked: list[float] = field(default_factory=list)
    log_value: float = 0.0


@dataclass(slots=True)
class Tally:
    """Sums of one arm in one stream."""

    count: int = 0
    total: float = 0.0

    def add(self, value: float) -> None:
        """Count one more value."""
        self.count, self.total = self.count + 1, self.total + value

    @property
    def mean(self) -> float | None:
        """The mean; None of nothing."""
        return self.total / self.count if self.count else None


@dataclass(slots=True)
class Block:
    """Values that wait for the other arm: the champion's summed up, the challenger's one by one."""

    champion: Tally = field(default_factory=Tally)
    challengers: list[Tally] = field(default_factory=list)


@dataclass(slots=True)
class State:
    """Where a roll-out is.

    `seen` counts the challenger's requests in this stage; `blocks` hold, for each stream, what waits for the
    other arm; `totals` are both arms' sums over the whole roll-out; `first` gathers the first
    answers' times and the first inputs until there are enough, `limit_ms` and `quantiles` are what comes of
    them.
    """

    stage: int = 0
    status: Status = "running"
    reason: str = "begun"
    entered: float = 0.0
    seen: int = 0
    proven: bool = False
    outcomes: int = 0
    evidence: dict[str, Evidence] = field(default_factory=dict)
    blocks: dict[str, Block] = field(default_factory=dict)
    totals: dict[str, tuple[Tally, Tally]] = field(default_factory=dict)
    first: dict[str, list[float]] = field(default_factory=dict)
    limit_ms: float | None = None
    quantiles: dict[str, list[float]] = field(default_factory=dict)

    @property
    def over(self) -> bool:
        """Whether nothing more will be decided."""
        return self.status in OVER

    def to_json(self) -> str:
        """Write everything."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> State:
        """Read what `to_json` wrote.

        >>> State.from_json(State(stage=2, reason="as planned").to_json()).stage
        2
        """
        values: dict[str, Any] = json.loads(text)
        values["evidence"] = {name: Evidence(**one) for name, one in values["evidence"].items()}
        values["totals"] = {name: (Tally(**a), Tally(**b)) for name, (a, b) in values["totals"].items()}
        values["blocks"] = {
            name: Block(Tally(**one["champion"]), [Tally(**each) for each in one["challengers"]])
            for name, one in values["blocks"].items()
        }
        return cls(**values)
