"""What follows from the figures of a trial: the decision, the money, and the sentences about both."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from corank.decision.economics import Economics, Measured, as_dict, estimate
from corank.decision.gate import gate
from corank.decision.policy import Policy
from corank.decision.results import candidate_arm, reference_arm, subject_arm
from corank.errors import CorankError
from corank.pilot.headline import findings, headline
from corank.pilot.meeting import meeting, plain_sentence
from corank.pilot.money_lines import money_lines
from corank.pilot.proof import what_it_proves
from corank.wording import language


def conclude(
    result: dict[str, Any], policy: Policy | None = None, economics: Economics | None = None
) -> dict[str, Any]:
    """Add to a result what follows from it alone: `economics`, `decision`, `proves` and `summary`.

    Args:
        result: what was measured; changed in place.
        policy: the terms; None keeps those of an earlier decision, or takes the default.
        economics: the user's numbers; None keeps earlier ones, or leaves money out.
    Returns: the result.
    Raises: CorankError, for an engine that was not timed.
    """
    kept = (result.get("decision") or {}).get("policy")
    terms = policy or (Policy() if kept is None else Policy.from_dict(kept))
    result["decision"] = gate(result, terms).to_dict()  # first: the money is that of the arm it judged
    before = (result.get("economics") or {}).get("terms")
    numbers = economics or (None if before is None else Economics(**before))
    result["economics"] = None if numbers is None else count_money(result, numbers)
    result["proves"] = what_it_proves(result, terms)
    opening = [plain_sentence(sentence) for _, sentence in meeting(result)]
    result["summary"] = [headline(result), *opening, *(sentence for _, sentence in findings(result))]
    return result


def retold(result: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a result whose sentences are in the language of the moment; in English as they were written."""
    if language() == "en" or candidate_arm(result) is None:
        return result
    told = conclude(copy.deepcopy(dict(result)))
    return {key: told[key] if value else value for key, value in result.items()}


def count_money(result: Mapping[str, Any], terms: Economics) -> dict[str, Any]:
    """Return what each arm that was cut saves, on the engine that serves.

    Raises: CorankError, for an engine that was not timed.
    """
    dense = reference_arm(result) or {}
    times: Mapping[str, float] = dense.get("latency_ms") or {}
    engine = terms.backend or min(times, key=lambda one: times[one], default=None)
    if engine is None or engine not in times:
        timed = ", ".join(times) or "none"
        raise CorankError(f"economics: backend: allowed are those that were timed, {timed}; got {engine!r}.")
    hours = sum(arm.get("training_seconds") or 0.0 for arm in result["arms"]) / 3600
    arms = {}
    for arm in result["arms"]:
        speedup, ci = (arm.get("speedup") or {}).get(engine), (arm.get("speedup_ci") or {}).get(engine)
        if arm["name"] == "dense" or speedup is None or ci is None:
            continue
        peaks = [(one.get("peak_memory") or {}).get(engine) for one in (dense, arm)]
        both = (peaks[0], peaks[1]) if peaks[0] and peaks[1] else None
        measured = Measured(
            engine, times[engine], result["protocol"]["latency_batch"], speedup, tuple(ci), both, hours
        )
        arms[arm["name"]] = estimate(terms, measured)
    chosen = (subject_arm(result) or {}).get("name")
    lines = money_lines(terms, arms[chosen]) if chosen in arms else []
    points = (result.get("front") or {}).get("points") or ()
    front = [
        estimate(
            terms,
            Measured(engine, times[engine], result["protocol"]["latency_batch"], point["speedup"][engine]),
        )["saving_per_month"]
        for point in points
    ]
    return {"terms": as_dict(terms), "arms": arms, "said": lines, "front": front}


def require_terms(
    arms: Sequence[str], engines: Sequence[str], policy: Policy | None, economics: Economics | None
) -> None:
    """Raise CorankError, before any work, for an arm or an engine that a trial will not have."""
    cut = [arm for arm in arms if arm != "dense"]
    if policy is not None and policy.arm is not None and policy.arm not in cut:
        raise CorankError(f"policy: arm: allowed are {', '.join(cut)} in this trial, got {policy.arm!r}.")
    wanted = {"policy: engines": policy.engines or () if policy is not None else ()}
    if economics is not None and economics.backend is not None:
        wanted["economics: backend"] = (economics.backend,)
    for what, names in wanted.items():
        if missing := [one for one in names if one not in engines]:
            raise CorankError(
                f"{what}: allowed are {', '.join(engines)}, which this trial times; got {missing[0]!r}. "
                "Add it with --backend."
            )
