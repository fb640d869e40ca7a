"""What a trial can prove about its deciding metric, in sentences made from its numbers alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from corank.decision.checks import scale_of
from corank.decision.intervals import samples_needed
from corank.decision.policy import Policy
from corank.decision.results import reference_arm

NAMES = {
    "lowrank": "Low rank without force",
    "force": "Force and low rank",
    "force_plan": "Force towards the plan and low rank",
}


def what_it_proves(result: Mapping[str, Any], policy: Policy) -> list[str]:
    """Say how small a difference a trial could see, what the margin would take, and what is left open."""
    scale = scale_of(result, reference_arm(result) or {})
    margin = policy.margin * scale.whole
    sentences, needed, final = [], 0, 0
    for arm in result["arms"]:
        if arm["name"] == "dense":
            continue
        name, comparison = NAMES.get(arm["name"], arm["name"]), arm.get("comparison")
        if comparison is None or arm.get("accuracy_difference_ci") is None:
            sentences.append(
                f"{name} against dense: the metric has no value per sample, so how sure the difference is "
                "cannot be told."
            )
            continue
        final = comparison["samples"]
        low, high = arm["accuracy_difference_ci"]
        half = (high - low) / 2
        seen = "excludes" if low > 0 or high < 0 else "includes"
        sentences.append(
            f"{name} against dense: on {final:,} final samples the difference is known to "
            f"±{scale.told(half)}, and the interval {seen} no difference."
        )
        if comparison["spread"] is not None and margin > 0:
            needed = max(needed, samples_needed(comparison["spread"], margin, policy.power))
    if needed > final:
        sentences.append(
            f"It cannot prove that at most {scale.told(margin)} are lost: that takes about {needed:,} final "
            "samples with as many disagreements in proportion."
        )
    if len(result["protocol"].get("seeds") or ()) == 1:
        sentences.append("One seed was trained: how much the result moves from seed to seed is not known.")
    return sentences
