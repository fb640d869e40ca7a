"""What follows from the figures of a trial: the decision, the money, and the sentences about both."""

from __future__ import annotations

from typing import Any

from corank.decision.gate import gate
from corank.decision.policy import Policy
from corank.pilot.headline import findings, headline
from corank.pilot.proof import what_it_proves


def conclude(result: dict[str, Any], policy: Policy | None = None) -> dict[str, Any]:
    """Add to a result what follows from it alone: `decision`, `proves` and `summary`.

    Args:
        result: what was measured; changed in place.
        policy: the terms; None keeps those of an earlier decision, or takes the default.
    Returns: the result.
    """
    kept = (result.get("decision") or {}).get("policy")
    terms = policy or (Policy() if kept is None else Policy.from_dict(kept))
    result["decision"] = gate(result, terms).to_dict()
    result["proves"] = what_it_proves(result, terms)
    result["summary"] = [headline(result), *(sentence for _, sentence in findings(result))]
    return result
