"""What a trial can prove about its deciding metric, in sentences made from its numbers alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

NAMES = {
    "lowrank": "Low rank without force",
    "force": "Force and low rank",
    "force_plan": "Force towards the plan and low rank",
}
MARGIN = 0.5  # points of accuracy that users ask about


def what_it_proves(
    arms: Sequence[Mapping[str, Any]], final: int, seeds: int, *, share: bool = True
) -> list[str]:
    """Say how small a difference this trial could see, and what it leaves open.

    Args:
        arms: dense first.
        final: samples.
        seeds: how many were trained.
        share: whether the metric is a share of samples, told in points.
    """
    scale, points = (100, " points") if share else (1, "")
    sentences, widest = [], 0.0
    for arm in arms[1:]:
        name = NAMES.get(arm["name"], arm["name"])
        if arm["accuracy_difference_ci"] is None:
            sentences.append(
                f"{name} against dense: the metric has no value per sample, so how sure the difference is "
                "cannot be told."
            )
            continue
        low, high = arm["accuracy_difference_ci"]
        half = scale * (high - low) / 2
        widest = max(widest, half)
        seen = "excludes" if low > 0 or high < 0 else "includes"
        sentences.append(
            f"{name} against dense: on {final:,} final samples the difference is known to "
            f"±{f'{half:.2f}' if share else f'{half:.3g}'}{points}, and the interval {seen} no difference."
        )
    if share and widest > MARGIN:
        needed = int(final * (widest / MARGIN) ** 2)
        sentences.append(
            f"It cannot prove that at most {MARGIN} points are lost: that takes about {needed:,} final "
            "samples with as many disagreements in proportion."
        )
    if seeds == 1:
        sentences.append("One seed was trained: how much the result moves from seed to seed is not known.")
    return sentences
