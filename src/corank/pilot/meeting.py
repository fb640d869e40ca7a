"""The three sentences that open the page: what it does, what it gains, the risk and what is next."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from corank.decision.economics import Economics
from corank.decision.gate import VERDICTS, tell_stage
from corank.decision.policy import Stage
from corank.decision.results import reference_arm, subject_arm
from corank.pilot.formats import interval, known, milliseconds, percent, times
from corank.pilot.headline import speed_outcome, stepped
from corank.pilot.metric import score_of
from corank.pilot.tables import cell_id
from corank.wording import Part, parts, say

Sentence = tuple[Part, ...]


def meeting(result: Mapping[str, Any]) -> list[tuple[str, Sentence]]:
    """Say in three sentences what whoever decides must know: (about, pieces with their sources' anchors).

    >>> meeting({"protocol": {}, "arms": [{"name": "dense"}]})
    []
    """
    arm, dense = subject_arm(result), reference_arm(result)
    if arm is None or dense is None:
        return []
    return [
        (say("What it does"), _does(result, arm, dense)),
        (say("What it gains"), _gains(result, arm, dense)),
        (say("The risk, and what is next"), (*_risk(result, arm), Part(say(" ")), *_next(result))),
    ]


def plain_sentence(sentence: Sentence) -> str:
    """Return a sentence without its anchors."""
    return "".join(part.text for part in sentence)


def serving_engine(result: Mapping[str, Any]) -> str | None:
    """Return the engine that a page speaks of first: the one that serves, else where dense is fastest."""
    chosen = ((result.get("economics") or {}).get("terms") or {}).get("backend")
    timed = (reference_arm(result) or {}).get("latency_ms") or {}
    found = {engine: x for engine, x in timed.items() if known(x)}
    return chosen or min(found, key=lambda engine: found[engine], default=None)


def _does(result: Mapping[str, Any], arm: Mapping[str, Any], dense: Mapping[str, Any]) -> Sentence:
    layers = arm.get("layers") or ()
    if not known(arm.get("decomposed")) or not layers:
        return parts("How the network was changed was not written down.")

    def share(key: str) -> Part:
        mine, whole = arm.get(key), dense.get(key)
        ratio = mine / whole if known(mine) and known(whole) and whole else None
        return Part(percent(ratio, 0), cell_id(result, arm["name"], key))

    return parts(
        "{cut} of {layers} layers of the network were each replaced by smaller ones that do nearly the same: "
        "it now needs {macs} of the multiplications and {params} of the parameters, and is used as before.",
        cut=Part(str(arm["decomposed"]), "h-layers"),
        layers=Part(str(len(layers)), "h-layers"),
        macs=share("macs"),
        params=share("params"),
    )


def _gains(result: Mapping[str, Any], arm: Mapping[str, Any], dense: Mapping[str, Any]) -> Sentence:
    engine = serving_engine(result)
    speedup = (arm.get("speedup") or {}).get(engine)
    if engine is None or not known(speedup):
        return parts("How fast it is was not measured.")
    ci = (arm.get("speedup_ci") or {}).get(engine)
    place = cell_id(result, arm["name"], engine)
    figures: dict[str, Part | str] = {
        "engine": engine,
        "speedup": Part(times(speedup), place),
        "interval": Part(interval(ci, times, "×"), place),
    }
    outcome = speed_outcome(ci)
    if outcome == "faster":
        after, before = ((one.get("latency_ms") or {}).get(engine) for one in (arm, dense))
        figures |= {
            "after": Part(milliseconds(after), place),
            "before": Part(milliseconds(before), cell_id(result, "dense", engine)),
        }
        told = parts(
            "On {engine} it is {speedup} as fast (95% interval {interval}), {after} instead of {before} "
            "a batch",
            **figures,
        )
    elif outcome == "slower":
        told = parts("On {engine} it is slower, {speedup} as fast (95% interval {interval})", **figures)
    else:
        told = parts(
            "On {engine} it is not measurably faster, {speedup} (95% interval {interval})", **figures
        )
    return (*told, *_saves(result, str(arm["name"])))


def _saves(result: Mapping[str, Any], arm: str) -> Sentence:
    found = result.get("economics")
    if not found or arm not in found["arms"]:
        return parts("; what that is worth in money was not worked out (--economics does).")
    terms, saved = Economics(**found["terms"]), found["arms"][arm]
    return parts(
        "; at your load that saves {saving} a month (95% interval {interval}).",
        saving=Part(terms.money(saved["saving_per_month"]), "h-money"),
        interval=Part(interval(saved["saving_per_month_ci"], lambda x: terms.money(x or 0.0)), "h-money"),
    )


def _risk(result: Mapping[str, Any], arm: Mapping[str, Any]) -> Sentence:
    score = score_of(result)
    change, ci = arm.get("accuracy_difference"), arm.get("accuracy_difference_ci")
    if not known(change) or ci is None:
        return parts("How {metric} changes is not known for sure.", metric=score.name)
    place = cell_id(result, arm["name"], "difference")
    final = (result["protocol"].get("samples") or {}).get("final")
    return parts(
        "On {samples} samples that it had never seen, {metric} changes by {change} "
        "(95% interval {interval}).",
        samples=Part(f"{final:,}", "p-samples") if known(final) else Part("?"),
        metric=score.name,
        change=Part(stepped(score.change(change), score.steps), place),
        interval=Part(interval(ci, score.change), place),
    )


def _next(result: Mapping[str, Any]) -> Sentence:
    decision = result.get("decision")
    if not decision:
        return parts("No decision was made: ask corank gate.")
    verdict = Part(say(VERDICTS[decision["verdict"]]), "h-checks")
    if decision["verdict"] == "roll back":
        return parts("{verdict}: keep serving the dense network.", verdict=verdict)
    if decision["verdict"] == "advance":
        stage = Stage(**decision["stage"])
        return parts(
            "{verdict}: next comes {stage}.", verdict=verdict, stage=Part(tell_stage(stage), "h-checks")
        )
    if decision["needs"]:
        return parts(
            "{verdict}: keep serving the dense network, collect {needed} final samples, and run the trial "
            "again.",
            verdict=verdict,
            needed=Part(f"{decision['needs']:,}", "h-checks"),
        )
    return parts(
        "{verdict}: keep serving the dense network until what holds it is settled: {reason}.",
        verdict=verdict,
        reason=Part(decision["reasons"][0], "h-checks"),
    )
