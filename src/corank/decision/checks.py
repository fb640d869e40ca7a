"""The checks of the gate: each holds one thing that a trial measured against the policy."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import isfinite, sqrt
from typing import Any, Literal

from corank.decision.intervals import samples_needed
from corank.decision.losses import Scale, scale_of
from corank.decision.policy import Policy
from corank.wording import mark, named, say

Outcome = Literal["advance", "hold", "roll back", "not judged"]
_P = 0.05  # of a test, corrected for how many there are
_Z = 1.959964  # half the width of a 95% interval, in standard errors


@dataclass(frozen=True, slots=True)
class Check:
    """What one check found.

    Args:
        name: what was looked at.
        outcome: what follows from it alone.
        reason: a sentence without its full stop.
        measured, interval: a loss, a speedup or a share; None where it was not measured.
        limit: of the policy, in the same unit.
        needs: final samples that it takes, where there are too few.
    """

    name: str
    outcome: Outcome
    reason: str
    measured: float | None = None
    interval: tuple[float, float] | None = None
    limit: float | None = None
    needs: int | None = None


Checker = Callable[[Mapping[str, Any], Mapping[str, Any], Mapping[str, Any], Policy], Check]


def check_accuracy(
    result: Mapping[str, Any], arm: Mapping[str, Any], dense: Mapping[str, Any], policy: Policy
) -> Check:
    """Non-inferiority: the whole interval of the loss lies below the margin, on enough samples."""
    scale = scale_of(result, dense)
    margin = policy.margin * scale.whole
    comparison, ci = arm.get("comparison"), arm.get("accuracy_difference_ci")
    if not comparison or ci is None or margin <= 0:
        why = say("{metric} has no interval against dense, so a loss cannot be ruled out", metric=scale.name)
        if margin <= 0:
            why = say(
                "{metric} of dense is 0 or unknown, so a margin that is a fraction of it means nothing",
                metric=scale.name,
            )
        return Check(scale.name, "hold", why, limit=margin)
    low, high = scale.losses(ci)
    loss, n = scale.loss(arm["accuracy_difference"]), int(comparison["samples"])
    spread = comparison.get("spread")
    spread = (high - low) / (2 * _Z) * sqrt(n) if spread is None else spread
    needed = max(samples_needed(spread, margin, policy.power), policy.minimum_samples)
    told = say(
        "loss of {metric} {loss} (95% interval {interval})",
        metric=scale.name,
        loss=scale.told(loss),
        interval=scale.reach(low, high),
    )
    limit = say("the margin of {limit}", limit=scale.told(margin))

    def found(outcome: Outcome, why: str, needs: int | None = None) -> Check:
        return Check(scale.name, outcome, _both(told, why), loss, (low, high), margin, needs)

    if low > margin:
        return found("roll back", say("beyond {limit} for certain", limit=limit))
    if n < needed:
        why = say(
            "and {samples} final samples are too few for {limit}: it needs {needed}",
            samples=f"{n:,}",
            limit=limit,
            needed=f"{needed:,}",
        )
        return found("hold", why, needed)
    if high < margin:
        return found("advance", say("within {limit}", limit=limit))
    return found("hold", say("which reaches beyond {limit}", limit=limit))


def check_speed(
    result: Mapping[str, Any], arm: Mapping[str, Any], dense: Mapping[str, Any], policy: Policy
) -> Check:
    """The whole interval of the speedup lies above the minimum, on every engine that is judged."""
    speedups, intervals = arm.get("speedup") or {}, arm.get("speedup_ci") or {}
    engines = list(speedups) if policy.engines is None else list(policy.engines)
    missing = [one for one in engines if speedups.get(one) is None or intervals.get(one) is None]
    least = policy.minimum_speedup
    if missing or not engines:
        why = say("the speed was not measured")
        if missing:
            why = say("the speed was not measured on {engine}", engine=missing[0])
        return Check(say("speed"), "hold", why, limit=least)
    slower = [one for one in engines if intervals[one][1] < 1]
    engine = min(slower or engines, key=lambda one: float(intervals[one][0]))
    (low, high), speedup = intervals[engine], speedups[engine]
    told = say(
        "{speedup} times as fast on {engine} (95% interval {low} to {high})",
        speedup=f"{speedup:.2f}",
        engine=engine,
        low=f"{low:.2f}",
        high=f"{high:.2f}",
    )
    limit = say("the minimum of {limit}", limit=f"{least:g}")
    outcome: Outcome = "hold"
    if slower:
        outcome, why = "roll back", say("slower than dense for certain")
    elif low >= least:
        outcome, why = "advance", say("at least {limit}", limit=limit)
    elif high < least:
        why = say("below {limit}", limit=limit)
    else:
        why = say("which reaches below {limit}", limit=limit)
    return Check(say("speed"), outcome, _both(told, why), speedup, (low, high), least)


def check_slices(
    result: Mapping[str, Any], arm: Mapping[str, Any], dense: Mapping[str, Any], policy: Policy
) -> Check:
    """No class and no slice loses more than its limit."""
    rows = (arm.get("comparison") or {}).get("slices") or []
    if policy.worst_slice is None or not rows:
        why = say("the policy leaves slices open") if rows else say("no classes or slices are known")
        return Check(say("worst slice"), "not judged", why, limit=policy.worst_slice)
    scale = scale_of(result, dense)
    limit = policy.worst_slice * scale.whole
    for row in rows:
        if not _finite(row["difference"], *(row["ci"] or ())):
            why = say("{name} has a loss that is not finite, so it is not known", name=row["name"])
            return Check(say("worst slice"), "hold", why, limit=limit)
    certain = [row for row in rows if _harmed(row, scale, limit)]
    worst = max(certain or rows, key=lambda row: scale.loss(row["difference"]))
    loss = scale.loss(worst["difference"])
    ends = None if worst["ci"] is None else scale.losses(worst["ci"])
    told = say(
        "the worst {kind}, {name}, loses {loss} on {samples} samples",
        kind=named(worst["kind"]),
        name=worst["name"],
        loss=scale.told(loss),
        samples=f"{worst['samples']:,}",
    )
    beyond = mark("beyond {limit}") if loss > limit else None
    return _held_to(limit, scale, say("worst slice"), told, loss, ends, certain=bool(certain), beyond=beyond)


def check_drift(
    result: Mapping[str, Any], arm: Mapping[str, Any], dense: Mapping[str, Any], policy: Policy
) -> Check:
    """Under shift, small loses no more than dense does, by more than the limit: the interval's worst end."""
    found = (arm.get("drift") or {}).get("judged") or []
    if policy.drift is None or not found:
        required = policy.require_drift and not found
        why = say("the policy leaves drift open") if found else say("drift was not measured")
        if required:
            why = _both(why, say("and the policy requires it: run the trial with --drift"))
        return Check(say("drift"), "hold" if required else "not judged", why, limit=policy.drift)
    scale = scale_of(result, dense)
    limit = policy.drift * scale.whole
    for one in found:
        if one.get("ci") is None or not _finite(one["extra"], *one["ci"]):
            why = say("under {corruption} the loss has no interval", corruption=named(one["name"]))
            return Check(say("drift"), "hold", why, limit=limit)
        if (one.get("samples") or policy.minimum_samples) < policy.minimum_samples:
            why = say(
                "{name} has {samples} samples, fewer than the {needed} that the policy asks for",
                name=named(one["name"]),
                samples=f"{one['samples']:,}",
                needed=f"{policy.minimum_samples:,}",
            )
            return Check(say("drift"), "hold", why, limit=limit)
    certain = [one for one in found if scale.losses(one["ci"])[0] > limit]
    worst = max(certain or found, key=lambda one: scale.losses(one["ci"])[1])
    loss, (low, high) = scale.loss(worst["extra"]), scale.losses(worst["ci"])
    told = say(
        "under {corruption} it loses {loss} more than dense (95% interval {interval})",
        corruption=named(worst["name"]),
        loss=scale.told(loss),
        interval=scale.reach(low, high),
    )
    beyond = mark("which reaches beyond {limit}") if high > limit else None
    return _held_to(limit, scale, say("drift"), told, loss, (low, high), certain=bool(certain), beyond=beyond)


def check_seeds(
    result: Mapping[str, Any], arm: Mapping[str, Any], dense: Mapping[str, Any], policy: Policy
) -> Check:
    """Where several seeds were trained, none loses more than the margin or misses the minimum speed."""
    spread = result.get("spread") or {}
    mine, whole = (spread.get("arms", {}).get(one) or {} for one in (arm["name"], "dense"))
    accuracies = zip(
        mine.get("accuracy", ()), whole.get("accuracy", ()), spread.get("seeds", ()), strict=False
    )
    scale = scale_of(result, dense)
    losses = [(scale.loss(one - two), seed) for one, two, seed in accuracies if None not in (one, two)]
    if len(losses) < 2 or not scale.whole:
        return Check(say("seeds"), "not judged", say("one seed alone was trained"))
    speeds = [
        (speed, engine, seed)
        for engine, values in (mine.get("speedup") or {}).items()
        if policy.engines is None or engine in policy.engines
        for speed, seed in zip(values, spread["seeds"], strict=False)
        if speed is not None
    ]
    slowest = min(speeds, default=None)
    if slowest is not None and slowest[0] < policy.minimum_speedup:
        told = say(
            "of {seeds} seeds, seed {seed} is the slowest, {speedup} times as fast on {engine}",
            seeds=len(losses),
            seed=slowest[2],
            speedup=f"{slowest[0]:.2f}",
            engine=slowest[1],
        )
        limit = say("the minimum of {limit}", limit=f"{policy.minimum_speedup:g}")
        why = say("below {limit}", limit=limit)
        return Check(say("seeds"), "hold", _both(told, why), slowest[0], None, policy.minimum_speedup)
    (loss, seed), margin = max(losses), policy.margin * scale.whole
    told = say(
        "of {seeds} seeds, seed {seed} loses most, {loss}",
        seeds=len(losses),
        seed=seed,
        loss=scale.told(loss),
    )
    beyond = mark("beyond {limit}") if loss > margin else None
    return _held_to(margin, scale, say("seeds"), told, loss, None, certain=False, beyond=beyond)


def check_memory(
    result: Mapping[str, Any], arm: Mapping[str, Any], dense: Mapping[str, Any], policy: Policy
) -> Check:
    """Peak memory stays below a share of dense's, on every engine where both were measured."""
    mine, whole = arm.get("peak_memory") or {}, dense.get("peak_memory") or {}
    engines = [one for one in mine if policy.engines is None or one in policy.engines]
    shares = {one: mine[one] / whole[one] for one in engines if mine.get(one) and whole.get(one)}
    if policy.memory is None or not shares:
        why = say("the policy leaves memory open") if shares else say("peak memory was not measured")
        return Check(say("memory"), "not judged", why, limit=policy.memory)
    engine = max(shares, key=lambda one: shares[one])
    told = say(
        "peak memory is {share} of dense's on {engine}", share=f"{100 * shares[engine]:.0f}%", engine=engine
    )
    within = shares[engine] <= policy.memory
    limit = say("the limit of {limit}", limit=f"{100 * policy.memory:g}%")
    why = say("within {limit}", limit=limit) if within else say("above {limit}", limit=limit)
    outcome: Outcome = "advance" if within else "hold"
    return Check(say("memory"), outcome, _both(told, why), shares[engine], None, policy.memory)


def _harmed(row: Mapping[str, Any], scale: Scale, limit: float) -> bool:
    """Say whether a slice loses more than the limit for certain: by its interval, and by its own test."""
    beyond = row["ci"] is not None and scale.losses(row["ci"])[0] > limit
    return beyond and row.get("p_holm") is not None and row["p_holm"] <= _P


def _finite(*values: float | None) -> bool:
    return all(one is not None and isfinite(one) for one in values)


def _held_to(
    limit: float,
    scale: Scale,
    name: str,
    told: str,
    loss: float,
    interval: tuple[float, float] | None,
    *,
    certain: bool,
    beyond: str | None,
) -> Check:
    """Judge a loss by a limit: beyond it for certain, beyond it as `beyond` says, or within it."""
    told_limit = say("the limit of {limit}", limit=scale.told(limit))
    outcome: Outcome = "advance"
    why = say("within {limit}", limit=told_limit)
    if certain:
        outcome, why = "roll back", say("beyond {limit} for certain", limit=told_limit)
    elif beyond is not None:
        outcome, why = "hold", say(beyond, limit=told_limit)
    return Check(name, outcome, _both(told, why), loss, interval, limit)


def _both(told: str, why: str) -> str:
    return say("{told}, {why}", told=told, why=why)


CHECKS: tuple[Checker, ...] = (
    check_accuracy,
    check_speed,
    check_slices,
    check_drift,
    check_memory,
    check_seeds,
)
