"""What follows from the state: the next stage, a hold, a roll-back or the end; and what a person orders."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from math import exp

from corank.errors import CorankError
from corank.rollout.guards import Guard, guards_of
from corank.rollout.policy import Policy
from corank.rollout.state import State

COMMANDS = ("hold", "resume", "advance", "roll-back")


@dataclass(frozen=True, slots=True)
class Move:
    """One decision: what was done, to which stage, and why."""

    action: str
    stage: int
    reason: str


def decide(state: State, policy: Policy, now: float) -> tuple[State, Move | None]:
    """Return the state after what the evidence demands, and the move, if there is one.

    A guard that rolls back comes first, then one that holds; a held roll-out is still watched. The next stage
    needs its number of requests, its time, and above `unlabelled_ceiling` the proof from outcomes.

    Args:
        now: seconds since the epoch.

    >>> state, move = decide(State(seen=500), Policy(seconds=0), now=10.0)
    >>> move.action, move.stage
    ('next stage', 1)
    """
    state = copy.deepcopy(state)
    if state.over:
        return state, None
    for guard in guards_of(policy):
        if not passed(state, guard):
            continue
        if guard.action == "roll back":
            return _end(state, "rolled back", f"{guard.name}: {said(state, guard)}")
        if guard.action == "prove":
            state.proven = True
        elif state.status == "running":
            state.status, state.reason = "held", f"{guard.name}: {said(state, guard)}"
            return state, Move("hold", state.stage, state.reason)
    if state.status == "running":
        reason = waits_for(state, policy, now)
        if reason is None:
            return _advance(state, policy, now, f"{state.seen} requests without an alarm")
        state.reason = reason
    return state, None


def order(state: State, policy: Policy, command: str, now: float) -> tuple[State, Move]:
    """Do what a person says.

    Args:
        command: hold, resume (inputs are then compared anew), advance (to the next stage, whatever is still
            waited for), or roll-back.
    Raises: CorankError, for another word, or a roll-out that is over.

    >>> order(State(), Policy(), "roll-back", 0.0)[0].status
    'rolled back'
    """
    if command not in COMMANDS:
        raise CorankError(f"rollout: allowed are {', '.join(COMMANDS)}, got {command!r}.")
    if state.over and not (command == "roll-back" and state.status == "promoted"):
        raise CorankError(f"rollout: it is over ({state.status}: {state.reason}). Begin one of another name.")
    state = copy.deepcopy(state)
    if command == "roll-back":
        return _end(state, "rolled back", "by order")
    if command == "advance":
        return _advance(state, policy, now, "by order")
    state.status = "held" if command == "hold" else "running"
    state.reason = f"{command}, by order"
    if command == "resume":
        for part in (state.evidence, state.first, state.quantiles):
            for name in [one for one in part if one.startswith("input ")]:
                del part[name]
    return state, Move(command, state.stage, "by order")


def waits_for(state: State, policy: Policy, now: float) -> str | None:
    """Say what the next stage waits for; None when it may begin."""
    if state.seen < policy.requests:
        return f"waits for requests: {state.seen} of {policy.requests} in this stage"
    left = state.entered + policy.seconds - now
    if left > 0:
        return f"waits for time: {left:.0f} s of this stage are left"
    last = state.stage == len(policy.stages) - 1
    ahead = 1.0 if last else policy.share(state.stage + 1)
    if ahead > (policy.unlabelled_ceiling or 0.0) and not state.proven:
        return (
            f"waits for outcomes: not yet shown to be no worse than {policy.margin:g}, "
            f"so exposure stays at {policy.share(state.stage):g}"
        )
    return None


def passed(state: State, guard: Guard) -> bool:
    """Say whether the evidence against a guard's hypothesis has passed its threshold."""
    kept = state.evidence.get(guard.name)
    return kept is not None and kept.log_value >= guard.threshold


def said(state: State, guard: Guard) -> str:
    """Say what a guard saw."""
    kept = state.evidence[guard.name]
    mean = kept.total / max(kept.count, 1)
    size = f"{exp(kept.log_value):.3g}" if kept.log_value < 300 else "over 1e130"
    return (
        f"{guard.means}: mean {mean:+.4f} over {kept.count} comparisons, allowed {guard.bound:+.4f}; "
        f"evidence {size}, needed {exp(guard.threshold):.3g}"
    )


def _advance(state: State, policy: Policy, now: float, reason: str) -> tuple[State, Move]:
    if state.stage == len(policy.stages) - 1:
        return _end(state, "promoted", reason)
    state.stage, state.seen, state.entered = state.stage + 1, 0, now
    state.status, state.reason = "running", reason
    return state, Move("next stage", state.stage, reason)


def _end(state: State, status: str, reason: str) -> tuple[State, Move]:
    state.status = "promoted" if status == "promoted" else "rolled back"
    state.reason = reason
    return state, Move(state.status, state.stage, reason)
