"""The tables of the decision: its checks, classes and slices, drift, folds and money."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from corank.decision.economics import Economics
from corank.decision.results import subject_arm
from corank.pilot.formats import MISSING, interval, known, percent, plain, points, significant
from corank.pilot.metric import Score, score_of
from corank.pilot.tables import Cell, Column, Row, Table, label, to_markdown_table
from corank.wording import mark, named, say

OUTCOMES = {
    "advance": mark("advance"),
    "hold": mark("hold"),
    "roll back": mark("roll back"),
    "not judged": mark("not judged"),
}
FIRST = 10  # flips that are listed; pilot.json has all of them
MOST = 30  # rows of a table of slices; pilot.json has all of them


@dataclass(frozen=True, slots=True)
class Titled:
    """A table with its title and what the figures in it mean; `key` is its place on the page."""

    key: str
    title: str
    note: str
    table: Table


def decision_tables(result: Mapping[str, Any]) -> list[Titled]:
    """Build the tables of the decision; one without data is left out."""
    found = [
        _checks(result),
        _sample_by_sample(result),
        *(one for arm in result["arms"] for one in (_slices(result, arm), _drift(result, arm)) if one),
        _folds(result),
        _money(result),
        _sensitivity(result),
        _energy(result),
    ]
    return [one for one in found if one is not None]


def decision_to_markdown(result: Mapping[str, Any]) -> str:
    """Write the checks and the money in Markdown, for a terminal."""
    found = {say("Check"): _checks(result), say("Arm"): _money(result)}
    return "\n".join(
        f"{one.title}\n\n{to_markdown_table(one.table, first)}"
        for first, one in found.items()
        if one is not None
    )


def _checks(result: Mapping[str, Any]) -> Titled | None:
    decision = result.get("decision")
    if not decision:
        return None
    rows = [
        Row("", one["name"], "", (Cell(say(OUTCOMES[one["outcome"]])), Cell(one["reason"])))
        for one in decision["checks"]
    ]
    columns = (Column(say("Outcome")), Column(say("Reason")))
    verdict = say(OUTCOMES[decision["verdict"]])
    title = say("Decision on {arm}: {verdict}", arm=label(decision["arm"]), verdict=verdict)
    return Titled("checks", title, decision["sentence"], Table(columns, tuple(rows)))


def _sample_by_sample(result: Mapping[str, Any]) -> Titled | None:
    arms = [arm for arm in result["arms"] if (arm.get("comparison") or {}).get("mcnemar")]
    if not arms:
        return None
    rows = []
    for arm in arms:
        found, test = arm["comparison"], arm["comparison"]["mcnemar"]
        calibration = arm.get("calibration") or {}
        cells = (
            Cell(f"{test['lost']:,}"),
            Cell(f"{test['gained']:,}"),
            Cell(significant(test["p"], 2)),
            Cell(percent(found.get("agreement"))),
            Cell(percent(calibration.get("ece")), (interval(found.get("ece_difference_ci"), points),)),
        )
        rows.append(Row(arm["name"], label(arm["name"]), "", cells))
    columns = (
        Column(say("Right to wrong"), say("samples")),
        Column(say("Wrong to right"), say("samples")),
        Column(say("p, McNemar")),
        Column(say("Same answer")),
        Column(say("Calibration error"), say("change in points, 95% interval")),
    )
    subject = subject_arm(result) or {}
    lost = ((subject.get("comparison") or {}).get("flips") or {}).get("lost") or []
    note = say("Against dense on the same final samples; samples.csv has each of them.")
    if lost:
        first = plain(lost[:FIRST])
        note += say(
            " The first that {arm} turns wrong: {numbers}.", arm=label(subject["name"]), numbers=first
        )
    return Titled("samples", say("Sample by sample"), note, Table(columns, tuple(rows)))


def _slices(result: Mapping[str, Any], arm: Mapping[str, Any]) -> Titled | None:
    slices = (arm.get("comparison") or {}).get("slices") or []
    if not slices:
        return None
    score = score_of(result)
    worst = arm["comparison"]["worst_slice"]
    ordered = sorted(slices, key=lambda row: row["difference"] if score.higher else -row["difference"])
    rows = [
        Row(
            "",
            row["name"],
            say("{kind}, {samples} samples", kind=named(row["kind"]), samples=f"{row['samples']:,}"),
            (
                Cell(score.form(row["reference"])),
                Cell(score.form(row["value"])),
                Cell(score.change(row["difference"]), (interval(row["ci"], score.change),)),
                Cell(significant(row["p_holm"], 2)),
            ),
        )
        for row in ordered[:MOST]
    ]
    heads = (label("dense"), label(arm["name"]), say("Difference"), say("p, Holm"))
    columns = tuple(map(Column, heads))
    note = say(
        "Worst: {worst}. All intervals hold together at 95% (Bonferroni); p is that of McNemar's exact test, "
        "or of a permutation test where the metric counts no hits, corrected by Holm.",
        worst=worst,
    )
    if len(ordered) > MOST:
        note += say(" The {shown} that lose most of {all}.", shown=MOST, all=len(ordered))
    title = say("Classes and slices: {arm}", arm=label(arm["name"]))
    return Titled("slices", title, note, Table(columns, tuple(rows)))


def _drift(result: Mapping[str, Any], arm: Mapping[str, Any]) -> Titled | None:
    drift = arm.get("drift")
    if not drift:
        return None
    score = score_of(result)
    rows = [
        Row("", named(row["name"]), say("mean of five strengths"), _extra(row, score))
        if row["name"] != (drift["shifted"] or {}).get("name")
        else Row("", row["name"], say("second data set"), _extra(row, score))
        for row in drift["judged"]
    ]
    columns = (Column(say("Changes more than dense")), Column(say("95% interval")))
    unknown = [
        say(
            "on {inputs} it is {small} sure, dense {dense} (difference in points {interval})",
            inputs=named(row["name"]),
            small=percent(row["confidence"]),
            dense=percent(row["reference"]),
            interval=interval(row.get("ci"), points),
        )
        for row in drift["unknown"]
        if known(row["confidence"])
    ]
    note = say("Change of small minus change of dense, on the same samples; a second data set has its own.")
    if unknown:
        note += say(" Inputs that show nothing: {told}.", told=say("; ").join(unknown))
    return Titled("drift", say("Drift: {arm}", arm=label(arm["name"])), note, Table(columns, tuple(rows)))


def _extra(row: Mapping[str, Any], score: Score) -> tuple[Cell, ...]:
    return (Cell(score.change(row["extra"])), Cell(interval(row["ci"], score.change)))


def _folds(result: Mapping[str, Any]) -> Titled | None:
    folds = result.get("folds")
    if not folds:
        return None
    score = score_of(result)
    rows = [
        Row(
            name,
            label(name),
            "",
            (
                *(Cell(score.form(value)) for value in arm["accuracy"]),
                Cell(score.form(arm["mean_accuracy"])),
                Cell(interval(arm["difference_ci"], score.change) if arm["difference"] else say("reference")),
            ),
        )
        for name, arm in folds["arms"].items()
    ]
    columns = (
        *(Column(say("Fold {number}", number=number)) for number in range(1, folds["folds"] + 1)),
        Column(say("Mean")),
        Column(say("Difference"), say("95% interval over all held-out samples")),
    )
    note = say(
        "Networks of two folds share most of their training data: the interval is a little too narrow, and "
        "the gate does not use it."
    )
    return Titled("folds", say("Cross-validation"), note, Table(columns, tuple(rows)))


def _money(result: Mapping[str, Any]) -> Titled | None:
    found = result.get("economics")
    if not found or not found["arms"]:
        return None
    terms = Economics(**found["terms"])
    columns = (
        Column(say("Per million, dense")),
        Column(say("Per million")),
        Column(say("Saving per month")),
        Column(say("In whole instances")),
        Column(say("Paid back"), say("months")),
    )
    rows = []
    for name, arm in found["arms"].items():
        money = partial(_money_of, terms)
        months = arm["payback_months"]
        cells = (
            Cell(money(arm["cost_per_million"]["before"])),
            Cell(money(arm["cost_per_million"]["after"])),
            Cell(money(arm["saving_per_month"]), (interval(arm["saving_per_month_ci"], money),)),
            Cell(money(arm["saving_per_month_whole_instances"])),
            Cell(say("never") if months is None else f"{months:.1f}"),
        )
        rows.append(Row(name, label(name), say("on {engine}", engine=arm["engine"]), cells))
    given = {named(key.replace("_", " ")): one for key, one in found["terms"].items() if one is not None}
    note = say("From measured times and these numbers: {terms}.", terms=plain(given))
    return Titled("money", say("Money"), note, Table(columns, tuple(rows)))


def _sensitivity(result: Mapping[str, Any]) -> Titled | None:
    found = result.get("economics")
    name = str((subject_arm(result) or {}).get("name"))
    if not found or name not in found["arms"]:
        return None
    terms = Economics(**found["terms"])
    rows = [
        Row(
            "",
            named(plain(row["name"]).replace("_", " ")),
            "",
            tuple(
                Cell(terms.money(saving), (say("at {value}", value=significant(value)),))
                for value, saving in zip(row["values"], row["savings"], strict=True)
            ),
        )
        for row in found["arms"][name]["sensitivity"]
    ]
    note = say(
        "Saving per month of {arm} with one number halved or doubled, or at its interval's ends.",
        arm=label(name),
    )
    columns = (Column(say("Low")), Column(say("High")))
    return Titled("sensitivity", say("Money, if"), note, Table(columns, tuple(rows)))


def _money_of(terms: Economics, amount: float | None) -> str:
    return terms.money(amount) if known(amount) else say(MISSING)


def _energy(result: Mapping[str, Any]) -> Titled | None:
    arms = [arm for arm in result["arms"] if arm.get("energy")]
    if not arms:
        return None
    rows = [
        Row(
            arm["name"],
            label(arm["name"]),
            "",
            (Cell(f"{significant(arm['energy']['kwh_per_million'])} kWh", (named(arm["energy"]["label"]),)),),
        )
        for arm in arms
    ]
    note = say("In eager torch, by {source}.", source=arms[0]["energy"]["by"])
    return Titled("energy", say("Energy"), note, Table((Column(say("A million inferences")),), tuple(rows)))
