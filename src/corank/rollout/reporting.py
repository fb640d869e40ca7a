"""What a roll-out has to show: one dict of plain values, for the page, the command line and machines."""

from __future__ import annotations

from math import exp
from typing import TYPE_CHECKING, Any

from corank.rollout.guards import guards_of
from corank.rollout.moves import passed
from corank.rollout.policy import Policy
from corank.rollout.state import State

if TYPE_CHECKING:
    from corank.rollout.store import Store


def report(store: Store, policy: Policy) -> dict[str, Any]:
    """Return where a roll-out is, its guards with their evidence, both arms' totals, and every move."""
    return {"name": store.name, **describe(store.state(), policy), "moves": store.moves()}


def describe(state: State, policy: Policy) -> dict[str, Any]:
    """Return a state in words and numbers.

    >>> described = describe(State(), Policy())
    >>> described["share"], described["guards"][0]["name"]
    (0.0, 'quality')
    """
    guards = []
    for guard in guards_of(policy):
        kept = state.evidence.get(guard.name)
        guards.append(
            {
                "name": guard.name,
                "action": guard.action,
                "compared": kept.count if kept else 0,
                "mean": kept.total / kept.count if kept and kept.count else None,
                "allowed": guard.bound,
                "evidence": exp(min(kept.log_value, 700.0)) if kept else 1.0,
                "needed": 1 / guard.level,
                "passed": passed(state, guard),
            }
        )
    totals = {
        stream: {
            arm: {"count": tally.count, "mean": tally.mean}
            for arm, tally in zip(("champion", "challenger"), pair, strict=True)
        }
        for stream, pair in state.totals.items()
    }
    share = {"rolled back": 0.0, "promoted": 1.0}.get(state.status, policy.share(state.stage))
    return {
        "status": state.status,
        "stage": state.stage,
        "stages": list(policy.stages),
        "share": share,
        "reason": state.reason,
        "seen": state.seen,
        "outcomes": state.outcomes,
        "shown_no_worse": state.proven,
        "limit_ms": state.limit_ms,
        "guards": guards,
        "totals": totals,
    }
