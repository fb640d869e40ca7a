"""What a trial can prove about its deciding metric, in sentences made from its numbers alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from corank.decision.intervals import samples_needed
from corank.decision.losses import scale_of
from corank.decision.policy import Policy
from corank.decision.results import reference_arm
from corank.wording import mark, say

NAMES = {
    "lowrank": mark("Low rank without force"),
    "force": mark("Force and low rank"),
    "force_plan": mark("Force towards the plan and low rank"),
}


def what_it_proves(result: Mapping[str, Any], policy: Policy) -> list[str]:
    """Say how small a difference a trial could see, what the margin would take, and what is left open."""
    scale = scale_of(result, reference_arm(result) or {})
    margin = policy.margin * scale.whole
    sentences, needed, final = [], 0, 0
    for arm in result["arms"]:
        if arm["name"] == "dense":
            continue
        name = say(NAMES[arm["name"]]) if arm["name"] in NAMES else arm["name"]
        comparison = arm.get("comparison")
        if comparison is None or arm.get("accuracy_difference_ci") is None:
            sentences.append(
                say(
                    "{name} against dense: the metric has no value per sample, so how sure the difference is "
                    "cannot be told.",
                    name=name,
                )
            )
            continue
        final = comparison["samples"]
        low, high = arm["accuracy_difference_ci"]
        half = (high - low) / 2
        seen = (
            say("the interval excludes no difference")
            if low > 0 or high < 0
            else say("the interval includes no difference")
        )
        sentences.append(
            say(
                "{name} against dense: on {samples} final samples the difference is known to ±{half}, and "
                "{seen}.",
                name=name,
                samples=f"{final:,}",
                half=scale.told(half),
                seen=seen,
            )
        )
        if comparison["spread"] is not None and margin > 0:
            needed = max(needed, samples_needed(comparison["spread"], margin, policy.power))
    if needed > final:
        sentences.append(
            say(
                "It cannot prove that at most {margin} are lost: that takes about {needed} final samples "
                "with as many disagreements in proportion.",
                margin=scale.told(margin),
                needed=f"{needed:,}",
            )
        )
    if len(result["protocol"].get("seeds") or ()) == 1:
        sentences.append(
            say("One seed was trained: how much the result moves from seed to seed is not known.")
        )
    return sentences
