"""What is bet against: each guard is a bound on the mean of bounded values, with its share of the level."""

from __future__ import annotations

from dataclasses import dataclass
from math import log
from typing import Literal

from corank.rollout.policy import Policy

Action = Literal["roll back", "hold", "prove"]
FEATURES = 2  # of an input: mean and standard deviation


@dataclass(frozen=True, slots=True)
class Guard:
    """The hypothesis: the mean of `sign` times the values of `stream` is at most `bound`.

    When the evidence against it passes 1/level, `action` follows.
    """

    name: str
    stream: str
    sign: int
    low: float
    bound: float
    level: float
    action: Action
    means: str

    @property
    def threshold(self) -> float:
        """The logarithm of the evidence at which it acts."""
        return log(1 / self.level)


def guards_of(policy: Policy) -> tuple[Guard, ...]:
    """Return the guards of a policy; those that roll back share its level equally, and so do those that hold.

    >>> [guard.name for guard in guards_of(Policy(input_margin=None))][:4]
    ['quality', 'errors', 'latency', 'disagreement']
    """
    sides = 2  # a drift may go up or down
    wanted: list[tuple[str, str, int, float, float | None, float, Action, str]] = [
        ("quality", "quality", -1, -1, policy.harm, 1, "roll back", "scores are worse"),
        ("errors", "errors", 1, -1, policy.error_margin, 1, "roll back", "it fails more often"),
        ("latency", "slow", 1, -1, policy.slow_margin, 1, "roll back", "it is slow more often"),
        ("disagreement", "disagreement", 1, 0, policy.disagreement, 1, "roll back", "it answers otherwise"),
    ]
    for name, sign in (("confidence up", 1), ("confidence down", -1)):
        what = f"its {name.replace(' ', ' drifts ')}"
        wanted.append((name, "confidence", sign, -1, policy.confidence_margin, 1 / sides, "roll back", what))
    for number in range(FEATURES):
        for name, sign in (("up", 1), ("down", -1)):
            kind = ("mean", "spread")[number]
            what = f"the {kind} of the inputs drifts {name}"
            guard = (f"input {kind} {name}", f"input {number}", sign, -0.5, policy.input_margin, 1.0)
            wanted.append((*guard, "hold", what))
    wanted.append(("no worse", "quality", 1, -1, -policy.margin, 1, "prove", "scores are no worse"))
    weights = {"roll back": 0.0, "hold": 0.0, "prove": 0.0}
    for *_, bound, weight, action, _ in wanted:
        weights[action] += weight if bound is not None else 0.0
    total = {"roll back": policy.level, "hold": policy.level, "prove": policy.promotion_level}
    return tuple(
        Guard(name, stream, sign, low, bound, total[action] * weight / weights[action], action, what)
        for name, stream, sign, low, bound, weight, action, what in wanted
        if bound is not None
    )
