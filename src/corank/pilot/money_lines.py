"""Return on investment in sentences: what was found, and how it moves with the user's numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from corank.decision.economics import Economics
from corank.pilot.formats import BYTES, scale_of, scaled, significant
from corank.wording import named, say


def money_lines(terms: Economics, found: Mapping[str, Any], *, bound: bool = False) -> list[str]:
    """Say in sentences what `estimate` found.

    Args:
        terms: the user's numbers, for currency and locale.
        found: what `estimate` returned.
        bound: whether the speedup is one that was not reached, only a bound.
    """
    money = terms.money
    cost, count = found["cost_per_million"], found["instances"]
    after = say("at least {amount}", amount=money(cost["after"])) if bound else money(cost["after"])
    ends, saving = found["saving_per_month_ci"], _saved(terms, found["saving_per_month"], bound)
    if ends is not None:
        reach = say("{low} to {high}", low=money(ends[0]), high=money(ends[1]))
        saving = say("{value} (95% interval {interval})", value=saving, interval=reach)
    return [
        say(
            "A million inferences on {engine} cost {before} before and {after} after.",
            engine=found["engine"],
            before=money(cost["before"]),
            after=after,
        ),
        say(
            "Saving per month: {saving}, as far as instances follow the load; in whole instances {whole} "
            "({before} before, {after} after).",
            saving=saving,
            whole=_saved(terms, found["saving_per_month_whole_instances"], bound),
            before=count["whole_before"],
            after=count["whole_after"],
        ),
        *_memory_line(found["memory_bytes"], bound),
        _pays_back(money(found["investment"]), found["payback_months"], bound),
    ]


def sensitivity_lines(terms: Economics, found: Mapping[str, Any], *, bound: bool = False) -> list[str]:
    """Say how the saving of a month moves when one number is half or twice what was given.

    Args: as `money_lines`.
    """
    return [
        say(
            "With {name} at {low} or {high}, the saving per month is {less} or {more}.",
            name=named(row["name"].replace("_", " ")),
            low=significant(row["values"][0]),
            high=significant(row["values"][1]),
            less=_saved(terms, row["savings"][0], bound),
            more=_saved(terms, row["savings"][1], bound),
        )
        for row in found["sensitivity"]
    ]


def _saved(terms: Economics, amount: float, bound: bool) -> str:
    return say("at most {amount}", amount=terms.money(amount)) if bound else terms.money(amount)


def _memory_line(found: Mapping[str, float] | None, bound: bool) -> list[str]:
    if found is None:
        return []
    unit = scale_of(found.values(), BYTES)
    before, after = scaled(found["before"], unit), scaled(found["after"], unit)
    if bound:
        return [
            say(
                "The weights in all instances take {before} before and at least {after} after.",
                before=before,
                after=after,
            )
        ]
    return [
        say(
            "All instances take {before} of memory at the peak before and {after} after.",
            before=before,
            after=after,
        )
    ]


def _pays_back(invested: str, months: float | None, bound: bool) -> str:
    if months is None:
        return say("The {invested} that it takes are paid back never.", invested=invested)
    months_told = f"{months:.1f}"
    if bound:
        return say(
            "The {invested} that it takes are paid back at the earliest after {months} months.",
            invested=invested,
            months=months_told,
        )
    return say(
        "The {invested} that it takes are paid back after {months} months.",
        invested=invested,
        months=months_told,
    )
