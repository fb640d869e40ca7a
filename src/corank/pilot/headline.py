"""What a pilot result says in words, made from its numbers alone: the headline and the sentences below it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from corank.decision.results import reference_arm, subject_arm
from corank.pilot.formats import interval, known, listing, times
from corank.pilot.metric import score_of
from corank.pilot.tables import label
from corank.wording import mark, say


def headline(result: Mapping[str, Any]) -> str:
    """Say in one sentence what got faster, by how much, and at what accuracy.

    An engine counts as faster or slower only where the 95% interval of its speedup leaves out 1.
    """
    arm = subject_arm(result)
    if arm is None:
        return say("Only the dense network was run: there is nothing to compare")
    score = score_of(result)
    form, name = score.form, score.name
    pace, own, dense = _pace(arm), arm.get("accuracy"), (reference_arm(result) or {}).get("accuracy")
    if not known(own):
        accuracy = say("{metric} not measured", metric=name)
    elif known(dense):
        accuracy = say("at {value} {metric} against {dense}", value=form(own), metric=name, dense=form(dense))
    else:
        accuracy = say("at {value} {metric}", value=form(own), metric=name)
    return say("{arm} {pace}, {accuracy}", arm=label(arm["name"]), pace=pace, accuracy=accuracy)


def _pace(arm: Mapping[str, Any]) -> str:
    speedups = {e: x for e, x in (arm.get("speedup") or {}).items() if known(x)}
    if not speedups:
        return say("was not timed against dense")
    found: dict[str, list[str]] = {}
    for engine in speedups:
        found.setdefault(speed_outcome((arm.get("speedup_ci") or {}).get(engine)), []).append(engine)
    said: list[str] = []
    for outcome, words in _WORDS.items():
        if names := found.get(outcome):
            on = "" if len(names) == len(speedups) else say(" on {engines}", engines=listing(names))
            pace = _range([speedups[engine] for engine in names])
            sure = "" if said else _sure(arm, names)  # the sentence below the headline has every interval
            said.append(say(words, pace=pace, on=on) + sure)
    return listing(said)


_WORDS = {
    "faster": mark("runs {pace} as fast as dense{on}"),
    "unclear": mark("is not measurably faster{on} at {pace}"),
    "slower": mark("is slower{on} at {pace}"),
    "unsure": mark("runs {pace} as fast{on} with no interval measured"),
}


def speed_outcome(ci: Sequence[float | None] | None) -> str:
    """Say what an interval of a speedup shows: faster, slower, unclear, or unsure without one.

    >>> speed_outcome([1.1, 1.3]), speed_outcome([0.9, 1.1]), speed_outcome(None)
    ('faster', 'unclear', 'unsure')
    """
    if ci is None or not all(known(x) for x in ci):
        return "unsure"
    low, high = ci
    return "faster" if (low or 0) > 1 else "slower" if (high or 0) < 1 else "unclear"


def _sure(arm: Mapping[str, Any], names: Sequence[str]) -> str:
    """Return the interval, or the reach of several: the lowest low to the highest high."""
    found = [(arm.get("speedup_ci") or {}).get(engine) for engine in names]
    pairs = [pair for pair in found if pair is not None and all(known(x) for x in pair)]
    if len(pairs) < len(names):
        return ""
    reach = interval((min(low for low, _ in pairs), max(high for _, high in pairs)), times, "×")
    if len(pairs) == 1:
        return say(" (95% interval {interval})", interval=reach)
    return say(" (95% intervals within {interval})", interval=reach)


def _range(values: Sequence[float]) -> str:
    low, high = times(min(values)), times(max(values))
    return low if low == high else say("{low} to {high}", low=low, high=high)


def findings(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Say what was measured with its intervals, and what this trial cannot prove: (about, sentence)."""
    arm = subject_arm(result)
    if arm is None:
        return []
    said = {
        say("Speed"): _measured(arm),
        score_of(result).title: _accuracy(arm, result),
        say("Without the force"): _compared(arm, result),
        say("Money"): say(" ").join((result.get("economics") or {}).get("said") or []),
        say("Limits"): _limits(result),
    }
    return [(about, sentence) for about, sentence in said.items() if sentence]


def _measured(arm: Mapping[str, Any]) -> str:
    parts = []
    for engine, speedup in (arm.get("speedup") or {}).items():
        if known(speedup):
            sure = interval((arm.get("speedup_ci") or {}).get(engine), times, "×")
            told = say(
                "{speedup} on {engine} (95% interval {interval})",
                speedup=times(speedup),
                engine=engine,
                interval=sure,
            )
            parts.append(told)
    if not parts:
        return say("Speedup: not measured.")
    return say("Measured speedup over dense: {speedups}.", speedups=listing(parts))


def _accuracy(arm: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    score = score_of(result)
    form, steps = score.change, score.steps
    change, ci = arm.get("accuracy_difference"), arm.get("accuracy_difference_ci")
    final = (result["protocol"].get("samples") or {}).get("final")
    on = say(" on {samples} final samples", samples=f"{final:,}") if known(final) else ""
    if not known(change):
        return say("The difference in {metric} to dense was not measured.", metric=score.name)
    said = say(
        "{metric} differs by {change}{on}", metric=score.title, change=stepped(form(change), steps), on=on
    )
    if ci is None or not all(known(x) for x in ci):
        return said + say("; no interval was measured, so chance cannot be told apart from a real change.")
    low, high = ci
    said += say(" (95% interval {interval}): ", interval=interval(ci, form))
    least, most = (-high, -low) if score.higher else (low, high)  # of what is lost
    if least > 0:
        ends = {"low": form(least).lstrip("+"), "high": stepped(form(most).lstrip("+"), steps)}
        return said + say("the loss is real, between {low} and {high}.", **ends)
    if most < 0:
        return said + say("the gain is real.")
    lost = stepped(form(most).lstrip("+"), steps)
    return said + say("a loss above {lost} is ruled out at the 95% level; a smaller one is not.", lost=lost)


def stepped(figure: str, steps: str) -> str:
    """Put what a difference counts behind it.

    >>> stepped("+0.3", "points"), stepped("+0.3", "")
    ('+0.3 points', '+0.3')
    """
    return say("{figure} {steps}", figure=figure, steps=steps) if steps else figure


def _compared(arm: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    other = next((a for a in result["arms"] if a["name"] == "lowrank"), None)
    if other is None or other is arm or not known(other.get("accuracy")):
        return ""
    form = score_of(result).form
    timed = [
        say("{speedup} on {engine}", speedup=times(x), engine=engine)
        for engine, x in (other.get("speedup") or {}).items()
        if known(x)
    ]
    value = form(other["accuracy"])
    if not timed:
        return say("Cut without the force, the network reaches {value}.", value=value)
    return say(
        "Cut without the force, the network reaches {value} at {speedups}.",
        value=value,
        speedups=listing(timed),
    )


def _limits(result: Mapping[str, Any]) -> str:
    seeds = result["protocol"].get("seeds") or []
    luck = (
        say("{seeds} seeds were trained; their spread is below.", seeds=len(seeds))
        if len(seeds) > 1
        else say("With one seed, the method cannot be told from the luck of one training run.")
    )
    limits = say("This trial says nothing about other data, machines or batch sizes than its own.")
    return say("{first} {second}", first=limits, second=luck)
