"""What a pilot result says in words, made from its numbers alone: the headline and the sentences below it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from corank.decision.results import candidate_arm, reference_arm
from corank.pilot.formats import MISSING, interval, known, listing, times
from corank.pilot.metric import score_of
from corank.pilot.tables import label


def headline(result: Mapping[str, Any]) -> str:
    """Say in one sentence what got faster, by how much, and at what accuracy.

    An engine counts as faster or slower only where the 95% interval of its speedup leaves out 1.
    """
    arm = candidate_arm(result)
    if arm is None:
        return "Only the dense network was run: there is nothing to compare"
    score = score_of(result)
    form, name = score.form, score.name
    accuracy = f"at {form(arm['accuracy'])} {name}" if known(arm.get("accuracy")) else f"{name} not measured"
    dense = reference_arm(result)
    if dense is not None and known(dense.get("accuracy")):
        accuracy += f" against {form(dense['accuracy'])}"
    return f"{label(arm['name'])} {_pace(arm)}, {accuracy}"


def _pace(arm: Mapping[str, Any]) -> str:
    speedups = {e: x for e, x in (arm.get("speedup") or {}).items() if known(x)}
    if not speedups:
        return "was not timed against dense"
    found: dict[str, list[str]] = {}
    for engine in speedups:
        found.setdefault(_outcome((arm.get("speedup_ci") or {}).get(engine)), []).append(engine)
    said: list[str] = []
    for outcome, words in _WORDS.items():
        if names := found.get(outcome):
            on = "" if len(names) == len(speedups) else f" on {listing(names)}"
            pace = _range([speedups[engine] for engine in names])
            sure = "" if said else _sure(arm, names)  # the sentence below the headline has every interval
            said.append(words.format(pace=pace, on=on) + sure)
    return listing(said)


_WORDS = {
    "faster": "runs {pace} as fast as dense{on}",
    "unclear": "is not measurably faster{on} at {pace}",
    "slower": "is slower{on} at {pace}",
    "unsure": "runs {pace} as fast{on} with no interval measured",
}


def _outcome(ci: Sequence[float | None] | None) -> str:
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
    return f" (95% interval {reach})" if len(pairs) == 1 else f" (95% intervals within {reach})"


def _range(values: Sequence[float]) -> str:
    low, high = times(min(values)), times(max(values))
    return low if low == high else f"{low} to {high}"


def findings(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Say what was measured with its intervals, and what this trial cannot prove: (about, sentence)."""
    arm = candidate_arm(result)
    if arm is None:
        return []
    said = {
        "Speed": _measured(arm),
        score_of(result).title: _accuracy(arm, result),
        "Without the force": _compared(arm, result),
        "Decision": str((result.get("decision") or {}).get("sentence") or ""),
        "Money": " ".join((result.get("economics") or {}).get("said") or []),
        "Limits": _limits(result),
    }
    return [(about, sentence) for about, sentence in said.items() if sentence]


def _measured(arm: Mapping[str, Any]) -> str:
    parts = []
    for engine, speedup in (arm.get("speedup") or {}).items():
        if known(speedup):
            sure = interval((arm.get("speedup_ci") or {}).get(engine), times, "×")
            parts.append(f"{times(speedup)} on {engine} (95% interval {sure})")
    return f"Measured speedup over dense: {listing(parts)}." if parts else f"Speedup: {MISSING}."


def _accuracy(arm: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    score = score_of(result)
    form, steps = score.change, f" {score.steps}" if score.steps else ""
    change, ci = arm.get("accuracy_difference"), arm.get("accuracy_difference_ci")
    final = (result["protocol"].get("samples") or {}).get("final")
    on = f" on {final:,} final samples" if known(final) else ""
    if not known(change):
        return f"The difference in {score.name} to dense was {MISSING}."
    said = f"{score.title} differs by {form(change)}{steps}{on}"
    if ci is None or not all(known(x) for x in ci):
        return f"{said}; no interval was measured, so chance cannot be told apart from a real change."
    low, high = ci
    said += f" (95% interval {interval(ci, form)}): "
    least, most = (-high, -low) if score.higher else (low, high)  # of what is lost
    if least > 0:
        return said + f"the loss is real, between {form(least)[1:]} and {form(most)[1:]}{steps}."
    if most < 0:
        return said + "the gain is real."
    lost = form(most).lstrip("+")
    return said + f"a loss above {lost}{steps} is ruled out at the 95% level; a smaller one is not."


def _compared(arm: Mapping[str, Any], result: Mapping[str, Any]) -> str:
    other = next((a for a in result["arms"] if a["name"] == "lowrank"), None)
    if other is None or other is arm or not known(other.get("accuracy")):
        return ""
    form = score_of(result).form
    timed = [f"{times(x)} on {e}" for e, x in (other.get("speedup") or {}).items() if known(x)]
    return f"Cut without the force, the network reaches {form(other['accuracy'])}" + (
        f" at {listing(timed)}." if timed else "."
    )


def _limits(result: Mapping[str, Any]) -> str:
    seeds = result["protocol"].get("seeds") or []
    luck = (
        f"{len(seeds)} seeds were trained; their spread is below."
        if len(seeds) > 1
        else "With one seed, the method cannot be told from the luck of one training run."
    )
    return f"This trial says nothing about other data, machines or batch sizes than its own. {luck}"
