"""What goes into the store: outcomes as they were acknowledged, observations as JSON, views that come out."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Any

from corank.rollout.policy import Policy
from corank.rollout.rows import CHALLENGER, Labels, Observation, Outcome, Run, score
from corank.rollout.state import State


@dataclass(frozen=True, slots=True)
class Recorded:
    """An outcome before it is scored: the labels that were served and the true ones, or a score."""

    request: str
    stage: int
    arm: str
    paired: bool
    predicted: Labels | None
    truth: Labels | None
    score: float | None
    created: float

    def scored(self, other: Labels | None) -> Outcome:
        """Score it; `other` are the labels of the model that ran beside.

        >>> Recorded("a", 0, "champion", True, (1,), (1,), None, 0.0).scored((2,))
        Outcome(request='a', stage=0, arm='champion', champion=1.0, challenger=0.0)
        """
        truth = self.truth or ()
        own = score(self.predicted, truth) if self.score is None else self.score
        beside = score(other, truth)
        a, b = (beside, own) if self.arm == CHALLENGER else (own, beside)
        return Outcome(self.request, self.stage, self.arm, a, b)


@dataclass(frozen=True, slots=True)
class View:
    """Where a roll-out is, as a router needs it."""

    stage: int
    share: float
    status: str
    reason: str
    watching: bool

    @classmethod
    def of(cls, state: State, policy: Policy) -> View:
        """Take it from the state.

        >>> View.of(State(status="rolled back", stage=2), Policy()).share
        0.0
        """
        share = {"rolled back": 0.0, "promoted": 1.0}.get(state.status, policy.share(state.stage))
        return cls(state.stage, share, state.status, state.reason, not state.over)


def observation_to_json(row: Observation) -> str:
    """Write an observation.

    >>> row = Observation("a", 1, "champion", Run(2.5))
    >>> observation_from_json(observation_to_json(row)) == row
    True
    """
    return json.dumps(asdict(row), separators=(",", ":"))


def observation_from_json(text: str) -> Observation:
    """Read what `observation_to_json` wrote."""
    values: dict[str, Any] = json.loads(text)
    for arm in ("champion", "challenger"):
        values[arm] = None if values[arm] is None else Run(**values[arm])
    if values["features"] is not None:
        values["features"] = tuple(values["features"])
    return Observation(**values)


def labels_to_json(labels: Labels | None) -> str | None:
    """Write labels."""
    return None if labels is None else json.dumps(list(labels), separators=(",", ":"))


def labels_from_json(text: str | None) -> Labels | None:
    """Read labels."""
    return None if text is None else tuple(json.loads(text))
