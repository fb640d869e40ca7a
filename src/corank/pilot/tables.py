"""The tables of a pilot's report as rows of text, shared by the page and by Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from corank.decision.results import reference_arm
from corank.pilot.formats import (
    BYTES,
    COUNTS,
    MISSING,
    Scale,
    duration,
    interval,
    known,
    milliseconds,
    percent,
    scale_of,
    scaled,
    significant,
    times,
)
from corank.pilot.metric import Score, score_of
from corank.wording import mark, named, say

LABELS = {
    "dense": mark("Dense"),
    "lowrank": mark("Low rank"),
    "force": mark("Force + low rank"),
    "force_plan": mark("Force towards the plan + low rank"),
}
FORCED = ("force", "force_plan")
REFERENCE = mark("reference")


@dataclass(frozen=True, slots=True)
class Cell:
    """One figure and the lines below it: its interval, what it is made of, or why it is missing."""

    value: str
    notes: tuple[str, ...] = ()
    span: int = 1  # columns it covers; more than one only where a reason replaces figures

    @property
    def soft(self) -> bool:
        """Whether the value is no figure, and should not stand out as one."""
        return self.value in (say(MISSING), say(REFERENCE)) or self.span > 1


@dataclass(frozen=True, slots=True)
class Column:
    title: str
    hint: str = ""


@dataclass(frozen=True, slots=True)
class Row:
    key: str  # the arm's name in the result, which decides the colour; empty for rows of no arm
    title: str
    note: str
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class Table:
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]


def label(name: str) -> str:
    """Return what an arm is called in the report.

    >>> label("force"), label("mine")
    ('Force + low rank', 'mine')
    """
    return say(LABELS[name]) if name in LABELS else name


def engines(result: Mapping[str, Any]) -> list[str]:
    """Return every engine that any arm was timed on, in the order of the result."""
    found = (e for arm in result["arms"] for key in ("latency_ms", "speedup") for e in arm.get(key) or {})
    return list(dict.fromkeys(found))


def column_keys(result: Mapping[str, Any]) -> tuple[str, ...]:
    """Return what each column of the main table holds: a field of the result, or an engine."""
    sizes = ("macs", "params", "bytes", "peak_memory", "training_seconds")
    return ("accuracy", "difference", *engines(result), *sizes)


def cell_id(result: Mapping[str, Any], arm: str, key: str) -> str:
    """Return the anchor of a figure in the main table, made of its place: names may be anything."""
    row = [one["name"] for one in result["arms"]].index(arm)
    return f"arm{row}-{column_keys(result).index(key)}"


def arm_table(result: Mapping[str, Any]) -> Table:
    """Build the main table: a row per arm, with what it reaches and what it costs.

    Args:
        result: a pilot result.
    Returns: the table; a missing figure reads `not measured`, with `arm["reasons"][field]` below it.
    """
    arms = result["arms"]
    score = score_of(result)
    units = {key: scale_of((arm.get(key) for arm in arms), COUNTS) for key in ("macs", "params")}
    units["bytes"] = scale_of((arm.get("bytes") for arm in arms), BYTES)
    peaks = [x for arm in arms for x in (arm.get("peak_memory") or {}).values()]
    units["peak_memory"] = scale_of(peaks, BYTES)
    names = engines(result)
    columns = (
        Column(score.title, say("95% interval")),
        Column(
            say("Difference"),
            say("{steps}, 95% interval", steps=score.steps) if score.steps else say("95% interval"),
        ),
        *(Column(engine, say("speedup; latency, p5 to p95")) for engine in names),
        Column(say("MACs"), say("of\N{NO-BREAK SPACE}dense")),
        Column(say("Parameters"), say("of\N{NO-BREAK SPACE}dense")),
        Column(say("File size"), say("of\N{NO-BREAK SPACE}dense")),
        Column(say("Peak memory"), say("by engine")),
        Column(say("Training"), say("time")),
    )
    dense = reference_arm(result)
    rows = (
        Row(
            arm["name"],
            label(arm["name"]),
            say("{epochs} epochs", epochs=arm["epochs"]) if known(arm.get("epochs")) else "",
            (
                _accuracy(arm, score),
                _difference(arm, dense, score),
                *(_engine(arm, dense, engine) for engine in names),
                *(_size(arm, dense, key, units[key]) for key in ("macs", "params", "bytes")),
                _memory(arm, names, units["peak_memory"]),
                _training(arm),
            ),
        )
        for arm in arms
    )
    return Table(columns, tuple(rows))


def metric_table(result: Mapping[str, Any]) -> Table | None:
    """Build the table of all metrics on final, a row per arm; None where there is only the deciding one."""
    names = list(dict.fromkeys(name for arm in result["arms"] for name in arm.get("metrics") or {}))
    if len(names) < 2:
        return None
    rows = []
    for arm in result["arms"]:
        cells = []
        for name in names:
            found = (arm.get("metrics") or {}).get(name) or {}
            notes = [] if found.get("ci") is None else [interval(found["ci"], significant)]
            cells.append(Cell(significant(found.get("value"), 4), tuple(notes)))
        rows.append(Row(arm["name"], label(arm["name"]), "", tuple(cells)))
    return Table(tuple(Column(named(name)) for name in names), tuple(rows))


def reason(arm: Mapping[str, Any], *path: str) -> tuple[str, ...]:
    """Return why a figure is missing, where the result says so: `reasons["peak_memory.torch"]` or of all."""
    reasons = arm.get("reasons") or {}
    said = reasons.get(".".join(path)) or reasons.get(path[0])
    return (str(said),) if said else ()


def _accuracy(arm: Mapping[str, Any], score: Score) -> Cell:
    form = score.form
    if not known(arm.get("accuracy")):
        return Cell(say(MISSING), reason(arm, "accuracy"))
    notes = [interval(arm.get("accuracy_ci"), form, score.unit)]
    if known(arm.get("accuracy_after_cut")):
        notes.append(say("{value} right after the cut", value=form(arm["accuracy_after_cut"])))
    return Cell(form(arm["accuracy"]), tuple(notes))


def _difference(arm: Mapping[str, Any], dense: Mapping[str, Any] | None, score: Score) -> Cell:
    if arm is dense:
        return Cell(say(REFERENCE))
    form = score.change
    if not known(arm.get("accuracy_difference")):
        return Cell(say(MISSING), reason(arm, "accuracy_difference"))
    return Cell(form(arm["accuracy_difference"]), (interval(arm.get("accuracy_difference_ci"), form),))


def _engine(arm: Mapping[str, Any], dense: Mapping[str, Any] | None, engine: str) -> Cell:
    speedup = (arm.get("speedup") or {}).get(engine)
    latency = (arm.get("latency_ms") or {}).get(engine)
    timed = [
        milliseconds(latency) if known(latency) else say("latency not measured"),
        *reason(arm, "latency_ms", engine),
    ]
    spread = (arm.get("latency_p5_p95") or {}).get(engine)
    if spread is not None:
        timed.append(interval(spread, milliseconds, " ms"))
    if arm is dense:
        return Cell(say(REFERENCE), tuple(timed))
    if not known(speedup):
        return Cell(say(MISSING), (*reason(arm, "speedup", engine), *timed))
    sure = interval((arm.get("speedup_ci") or {}).get(engine), times, "×")
    return Cell(times(speedup), (sure, *timed))


def _size(arm: Mapping[str, Any], dense: Mapping[str, Any] | None, key: str, unit: Scale) -> Cell:
    size = arm.get(key)
    if not known(size):
        return Cell(say(MISSING), reason(arm, key))
    whole = dense.get(key) if dense is not None and dense is not arm else None
    return Cell(scaled(size, unit), (percent(size / whole, 0),) if known(whole) and whole else ())


def _memory(arm: Mapping[str, Any], names: Sequence[str], unit: Scale) -> Cell:
    peaks = arm.get("peak_memory") or {}
    if not any(known(peaks.get(engine)) for engine in names):
        return Cell(say(MISSING), reason(arm, "peak_memory"))
    notes = []
    for engine in names:
        why = reason(arm, "peak_memory", engine) if not known(peaks.get(engine)) else ()
        notes.append(": ".join((f"{engine} {scaled(peaks.get(engine), unit)}", *why)))
    return Cell("", tuple(notes))


def _training(arm: Mapping[str, Any]) -> Cell:
    overhead = arm.get("force_overhead")
    if known(overhead):
        sure = arm.get("force_overhead_ci")
        added = percent(overhead)
        if sure:
            added = say("{first}, {second}", first=added, second=interval(sure, percent, "%"))
        notes: tuple[str, ...] = (say("force adds {added}", added=added),)
    elif arm["name"] in FORCED:
        notes = (say("force overhead not measured"), *reason(arm, "force_overhead"))
    else:
        notes = ()
    seconds = arm.get("training_seconds")
    return Cell(duration(seconds), notes if known(seconds) else (*reason(arm, "training_seconds"), *notes))


def to_markdown(result: Mapping[str, Any]) -> str:
    """Write the main table in Markdown, a row per arm, ending in a newline.

    Args:
        result: a pilot result.
    Returns: a GitHub table with the figures of the page; notes stand in brackets behind a figure.
    """
    return to_markdown_table(arm_table(result))


def metrics_to_markdown(result: Mapping[str, Any]) -> str:
    """Write the table of all metrics in Markdown; empty where there is only the deciding one."""
    table = metric_table(result)
    return "" if table is None else to_markdown_table(table)


def to_markdown_table(table: Table, first: str | None = None) -> str:
    """Write a table in Markdown, ending in a newline; `first` heads the names of the rows, or "Arm"."""
    head = [
        say("Arm") if first is None else first,
        *(f"{c.title} ({c.hint})" if c.hint else c.title for c in table.columns),
    ]
    body = [
        [row.title + (f" ({row.note})" if row.note else ""), *map(_flat, row.cells)] for row in table.rows
    ]
    lines = [head, ["---"] + ["---:"] * len(table.columns), *body]
    escaped = [[cell if cell.strip("-:") == "" else escape_markdown(cell) for cell in line] for line in lines]
    return "".join(f"| {' | '.join(line)} |\n" for line in escaped)


def _flat(cell: Cell) -> str:
    notes = "; ".join(cell.notes)
    if not cell.value:
        return notes
    return f"{cell.value} ({notes})" if notes else cell.value


def escape_markdown(text: str) -> str:
    r"""Keep text from being read as Markdown or HTML.

    >>> escape_markdown("a|b_c <i>")
    'a\\|b\\_c &lt;i&gt;'
    """
    text = " ".join(text.split()).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return "".join("\\" + c if c in "\\`*_[]|~" else c for c in text)
